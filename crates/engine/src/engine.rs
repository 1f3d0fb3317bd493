//! Putting the engine together, starting and ending it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokenkeep_core::{
    Action, ConnectionId, InstanceId, Subject, Tenant,
    ports::{Bus, Clock, Counter, Entropy, SharedCache, Store, Transport},
};
use tokio::task::JoinHandle;

use crate::{
    Caller, Error, Settings,
    adoption::Heir,
    barrier::{Barrier, KeyCheckError, verify_or_create},
    bus,
    catalogue::Catalogue,
    conditions::Conditions,
    connect::Connect,
    connections::{Connections, flight::Flights},
    health::{Health, HealthStatus, Part},
    instances::{Instances, Registration, SecondWriter, refuse_second_writer},
    integrations::Integrations,
    issuer::{Issuer, IssuerSettings},
    journal::{self, AdoptError, Journal, JournalError, Limits},
    kept::KeptReplies,
    keys::Keys,
    l2::{self, L2},
    metrics::Metrics,
    proxy::{self, Circuit, Proxy},
    records::Records,
    sessions::{SessionSettings, Sessions},
    shared::Shared,
    stats::Stats,
    transport::{BodyError, Outbound, OutboundBody, Pacer},
    upkeep::{Cleaned, Upkeep, landed},
};

/// What an engine is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where records are kept.
    pub store: Arc<dyn Store>,
    /// How instances that share the store tell each other what they did. Without it each asks the store more often.
    pub bus: Option<Arc<dyn Bus>>,
    /// What instances that share the store leave for each other, sealed.
    pub shared_cache: Option<Arc<dyn SharedCache>>,
    /// What counts over all instances; without it, each counts for itself.
    pub counter: Option<Arc<dyn Counter>>,
    /// What seals them.
    pub barrier: Barrier,
    /// How providers are reached.
    pub transport: Arc<dyn Transport>,
    /// How calls to providers' APIs go out; without it, none do.
    pub outbound: Option<Outbound>,
    /// The transport's pacer, if it has one: told when a provider asks us to wait.
    pub pacer: Option<Arc<Pacer>>,
    /// Which providers there are.
    pub catalogue: Catalogue,
    /// Where replies are made durable, on a local disk. Without it a reply is durable only once the store has it.
    pub journal_dir: Option<PathBuf>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub entropy: Arc<dyn Entropy>,
}

/// How long telling the others that we leave may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why an engine did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root key is not the store's.
    #[error(transparent)]
    Key(#[from] KeyCheckError),
    /// The journal cannot be used.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// The store takes one writer only, and has one.
    #[error(transparent)]
    SecondWriter(#[from] SecondWriter),
    /// The store does not say whether another instance writes to it.
    #[error("it cannot be seen whether another instance writes to the store")]
    Writers(#[source] Error),
    /// A journal that an earlier process left cannot be taken over.
    #[error("what an earlier process left in its journal cannot be taken over")]
    Adopt(#[from] AdoptError),
}

/// Holds, refreshes and serves tokens. Cheap to clone; the last one to go ends nothing by itself:
/// [`Engine::shutdown`] does.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    connections: Connections,
    instances: Instances,
    integrations: Integrations,
    keys: Keys,
    connect: Connect,
    issuer: Option<Issuer>,
    proxy: Proxy,
    sessions: Option<Sessions>,
    upkeep: Upkeep,
    ending: Arc<AtomicBool>,
    tasks: Arc<std::sync::Mutex<Vec<JoinHandle<()>>>>,
    /// Tells the others that we leave, once everything else is over.
    speaker: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Engine {
    /// Checks the root key, takes over what earlier processes left, and begins to refresh what is due. Must be called
    /// within a tokio runtime.
    pub async fn start(parts: Parts, settings: Settings) -> Result<Self, StartError> {
        let Parts {
            store,
            bus,
            shared_cache,
            counter,
            barrier,
            transport,
            outbound,
            pacer,
            catalogue,
            journal_dir,
            clock,
            entropy,
        } = parts;
        let barrier = Arc::new(verify_or_create(barrier, &*store, &*clock).await?);
        let instance = InstanceId(entropy.ulid(clock.now()));
        let metrics = Arc::new(Metrics::new());
        let conditions = Conditions::new(&metrics);
        let records = Records::new(store, barrier.clone(), clock.clone(), settings.hash_labels)
            .watched(conditions.store.clone(), conditions.store_writes.clone());
        refuse_second_writer(&records, &*clock).await.map_err(StartError::Writers)??;
        let (journal, journal_id) = match &journal_dir {
            None => (None, None),
            Some(dir) => {
                let journal = open_journal(dir, instance, &barrier, &clock, &entropy)?;
                let journal = journal.watched(conditions.journal.clone());
                (Some(journal), Some(journal::identity(dir, &*entropy, clock.now())?))
            }
        };
        let registration = Registration::new(journal_id, clock.now().wall);
        // Copies of what was changed before we came may still lie in the shared cache.
        let reach = shared_cache.as_ref().map_or(Duration::ZERO, |_| l2::LIFE);
        let (link, unspoken) = bus::Link::new(bus, instance, clock.clone(), reach);
        // Nobody could believe a copy without being told when it is outdated.
        let for_tokens = shared_cache.clone().filter(|_| link.is_connected());
        let l2 = L2::new(
            for_tokens,
            records.clone(),
            clock.clone(),
            metrics.clone(),
            conditions.cache.clone(),
            link.lease().clone(),
        );
        let limits = proxy::limits::Limits::new(
            counter.clone(),
            conditions.counter.clone(),
            link.clone(),
            records.clone(),
            clock.clone(),
            &metrics,
        );
        let circuit = Circuit::new(settings.proxy.circuit, &metrics);
        let shared = Arc::new(Shared {
            records,
            bus: link,
            copies: shared_cache,
            l2,
            counter,
            conditions,
            limits,
            circuit,
            clock,
            entropy,
            transport,
            outbound,
            pacer,
            catalogue,
            metrics,
            instance,
            registration,
            settings,
        });
        let integrations = Integrations::new(shared.clone());
        let kept = KeptReplies::new(journal, shared.metrics.clone());
        let flights = Arc::new(Flights::new(shared.clone(), kept, integrations.clone()));
        let connections = Connections::new(shared.clone(), flights, integrations.clone());
        let connect = Connect::new(shared.clone(), connections.clone());
        let keys = Keys::new(shared.clone());
        let told = shared.settings.sessions.clone();
        let own = told.as_ref().map(|told| Arc::new(IssuerSettings::of_sessions(told.issuer.clone())));
        let granting = shared.settings.issuer.clone().or(own).map(|issuer| {
            Issuer::new(shared.clone(), connections.clone(), connect.clone(), keys.clone(), issuer, told.clone())
        });
        let sessions = told
            .zip(granting.clone())
            .map(|(told, issuer)| Sessions::new(shared.clone(), connections.clone(), issuer, told));
        let issuer = granting.filter(|_| shared.settings.issuer.is_some());
        let proxy = Proxy::new(connections.clone());
        let upkeep = Upkeep { shared: shared.clone(), connections: connections.clone(), connect: connect.clone() };
        let heir =
            journal_dir.map(|dir| Arc::new(Heir::new(dir, barrier.clone(), shared.clone(), connections.clone())));
        let instances = Instances::new(shared.clone(), connections.flights.clone(), heir.clone());
        let engine = Self {
            shared,
            connections,
            instances,
            integrations,
            keys,
            connect,
            issuer,
            proxy,
            sessions,
            upkeep: upkeep.clone(),
            ending: Arc::default(),
            tasks: Arc::default(),
            speaker: Arc::default(),
        };
        if let Some(unspoken) = unspoken {
            engine.listen(unspoken);
        }
        if let Err(error) = engine.instances.begin().await {
            tracing::warn!(%error, "the other instances cannot be seen yet");
        }
        if let Some(heir) = &heir {
            heir.adopt().await?;
            engine.instances.bury_the_adopted().await;
        }
        if let Err(error) = engine.keys.reload().await {
            tracing::warn!(%error, "the API keys cannot be read yet: none is known");
        }
        if let Some(issuer) = engine.granting() {
            if let Err(error) = issuer.ensure_keys().await {
                tracing::warn!(%error, "the signing keys cannot be read yet: nothing is issued");
            }
            engine.tasks().push(tokio::spawn(issuer.clone().follow()));
        }
        let tasks = vec![
            tokio::spawn(upkeep.clone().preload()),
            tokio::spawn(upkeep.clean()),
            tokio::spawn(engine.keys.clone().follow()),
            tokio::spawn(engine.connect.clone().poll()),
        ];
        engine.tasks().extend(tasks);
        engine.tasks().extend(heir.map(|heir| tokio::spawn(heir.follow())));
        engine.instances.start();
        Ok(engine)
    }

    /// Tells the others what happens here, and hears what they do.
    fn listen(&self, (line, waiting): bus::Unspoken) {
        let shared = &self.shared;
        let ears = bus::Ears {
            connections: self.connections.clone(),
            integrations: self.integrations.clone(),
            keys: self.keys.clone(),
            issuer: self.granting().cloned(),
        };
        *self.speaker() = Some(tokio::spawn(bus::speak(line.clone(), shared.clone(), waiting)));
        self.tasks().push(tokio::spawn(bus::listen(line, shared.clone(), ears)));
        let shared = shared.clone();
        self.tasks().push(tokio::spawn(async move { shared.l2.watch().await }));
    }

    fn speaker(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.speaker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The use cases of connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The use cases of instances.
    pub fn instances(&self) -> &Instances {
        &self.instances
    }

    /// The use cases of integrations.
    pub fn integrations(&self) -> &Integrations {
        &self.integrations
    }

    /// The use cases of API keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The use cases of connecting.
    pub fn connect(&self) -> &Connect {
        &self.connect
    }

    /// The use cases of issuing, where this installation is an authorization server.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.issuer.as_ref()
    }

    /// Calls to providers' APIs.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Calls the API of the connection's provider with a fresh token: [`Proxy::call`].
    ///
    /// ```no_run
    /// # use tokenkeep_engine::{Caller, Engine};
    /// # async fn example(engine: Engine) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, Empty};
    ///
    /// let alice = "github/_default/alice".parse()?;
    /// let request = http::Request::get("/user/repos?per_page=5").body(Empty::<Bytes>::new())?;
    /// let reply = engine.request(&Caller::Local, &alice, request).await?;
    /// println!("{}", reply.status());
    /// let repositories = reply.into_body().collect().await?.to_bytes();
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request<B>(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        request: http::Request<B>,
    ) -> Result<http::Response<OutboundBody>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let request = request.map(|body| OutboundBody::new(body.map_err(Into::into)));
        self.proxy.call(caller, id, request).await
    }

    /// The use cases of backend sessions, where this installation has them.
    pub fn sessions(&self) -> Option<&Sessions> {
        self.sessions.as_ref()
    }

    /// Whatever makes grants here: the authorization server, or, where there is none, what issues sessions. The latter has
    /// no clients, and nobody can ask it for anything.
    pub fn granting(&self) -> Option<&Issuer> {
        self.issuer.as_ref().or(self.sessions.as_ref().map(Sessions::issuer))
    }

    /// Takes over the secrets of issuing, read anew from the configuration file: those of clients, the token for
    /// registering, the keys of HS256. Everything else is what it was at the start.
    pub async fn renew_secrets(&self, issuer: Option<&IssuerSettings>, sessions: Option<&SessionSettings>) {
        if let Some(granting) = self.granting() {
            granting.renew_secrets(issuer.unwrap_or(granting.settings()), sessions).await;
        }
    }

    /// Forgets a person: every connection of `subject` in `tenant`, and whatever was granted on them, sessions included.
    /// Answers how many connections there were; that there is nothing at all is [`Error::NotFound`].
    pub async fn forget(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        subject: &Subject,
        revoke: bool,
    ) -> Result<u64, Error> {
        caller.may_in(Action::DeleteConnection, tenant)?;
        let mut ended = 0;
        if let Some(issuer) = self.granting() {
            let is_seen = |id: &ConnectionId| id.tenant == *tenant && caller.sees_integration(&id.integration);
            // What rests on no connection is no provider's, and stands in `_default`.
            let alone = *tenant == Tenant::default_tenant() && caller.sees_every_integration();
            ended = issuer.end_grants_of_person(subject, is_seen, alone).await?;
        }
        match self.connections.forget(caller, tenant, subject, revoke).await {
            Err(Error::NotFound { .. }) if ended > 0 => Ok(0),
            forgotten => forgotten,
        }
    }

    /// The way out for what is passed on, where this installation has one.
    pub fn outbound(&self) -> Option<&Outbound> {
        self.shared.outbound.as_ref()
    }

    /// Which providers there are.
    pub fn catalogue(&self) -> &Catalogue {
        &self.shared.catalogue
    }

    /// What is counted; other layers add theirs.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Which process this is.
    pub fn instance(&self) -> InstanceId {
        self.shared.instance
    }

    /// Where time comes from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// Where randomness comes from.
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.shared.entropy
    }

    /// What it was told to be.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Counts of what the caller may see.
    pub async fn stats(&self, caller: &Caller) -> Result<Stats, Error> {
        self.connections.stats(caller).await
    }

    /// Removes what is dead, now rather than at its time.
    pub async fn cleanup(&self, caller: &Caller) -> Result<Cleaned, Error> {
        self.upkeep.clean_for(caller).await
    }

    /// Refreshes one batch of what is due, now rather than at its time; answers how many were due.
    pub async fn preload(&self) -> Result<usize, Error> {
        self.upkeep.preload_once().await
    }

    /// Polls one batch of the devices that are due, now rather than at their time.
    pub async fn poll_devices(&self) -> Result<(), Error> {
        self.connect.poll_once().await.map(drop)
    }

    /// Whether this instance can serve, and what it does without.
    pub async fn health(&self) -> Health {
        let records = &self.shared.records;
        let store = match records.asked(records.store().ping().await) {
            Ok(()) if !records.refuses_writes() => Part::Ok,
            _ => Part::Unavailable,
        };
        let bus = match self.shared.bus.is_connected() {
            false => Part::None,
            true if self.shared.conditions.bus.is_well() => Part::Ok,
            true => Part::Unavailable,
        };
        let cache = self.shared.l2.part();
        let journal = match self.connections.flights.kept.is_writable().await {
            None => Part::None,
            Some(true) => Part::Ok,
            Some(false) => Part::Unavailable,
        };
        let status = if self.ending.load(SeqCst) || self.shared.registration.is_forgotten() {
            HealthStatus::NotReady
        } else if [store, bus, cache, journal].contains(&Part::Unavailable) {
            HealthStatus::Degraded
        } else {
            HealthStatus::Ready
        };
        Health { status, store, bus, cache, journal }
    }

    /// Says not ready from now on, while everything goes on: whoever sends requests here can look for another
    /// instance.
    pub fn announce_shutdown(&self) {
        self.ending.store(true, SeqCst);
    }

    /// Begins nothing any more, and waits for what is under way: exchanges finish and commit, for `patience` at
    /// most. What cannot be committed by then lies in the journal. The others are told which of the two it was.
    pub async fn shutdown(&self, patience: Duration) {
        self.ending.store(true, SeqCst);
        for task in self.tasks().drain(..) {
            task.abort();
        }
        if let Some(issuer) = self.granting() {
            issuer.say_tally();
        }
        let over = self.shared.clock.sleep(patience);
        let all_landed = async {
            for flight in self.connections.flights.all() {
                landed(flight).await;
            }
            self.connections.flights.kept.journaled().await;
        };
        tokio::select! {
            () = all_landed => {}
            () = over => tracing::warn!(flights = self.connections.flights.flying(), "ending with refreshes under way"),
        }
        if let Some(journal) = self.connections.flights.kept.journal() {
            journal.clone().close().await;
        }
        self.instances.leave().await;
        let speaker = self.speaker().take();
        if let Some(mut speaker) = speaker {
            let over = self.shared.clock.sleep(FAREWELL);
            // Whom this does not reach takes our silence for what it is not, until the registry says otherwise.
            tokio::select! {
                _ = &mut speaker => {}
                () = over => speaker.abort(),
            }
        }
    }
}

fn open_journal(
    dir: &Path,
    instance: InstanceId,
    barrier: &Arc<Barrier>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Journal, JournalError> {
    Journal::open(dir, instance, Limits::default(), barrier.clone(), clock.clone(), entropy.clone())
}
