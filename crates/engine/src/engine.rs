//! Putting the engine together, starting and ending it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokenkeep_core::{
    ConnectionId, InstanceId,
    ports::{Bus, Clock, Entropy, SharedCache, Store, Transport},
    refresh::Held,
    time::after,
};
use tokio::task::JoinHandle;

use crate::{
    Caller, Error, Settings,
    barrier::{Barrier, KeyCheckError, verify_or_create},
    bus,
    catalogue::Catalogue,
    connect::Connect,
    connections::{
        Connections,
        flight::{Flights, Route},
    },
    health::{Health, HealthStatus, Part},
    integrations::Integrations,
    journal::{Abandoned, AdoptError, Entry, Journal, JournalError, Limits, adopt},
    kept::KeptReplies,
    keys::Keys,
    metrics::Metrics,
    records::{Records, TOMBSTONE_LIFE, decode_held},
    shared::Shared,
    stats::Stats,
    transport::Pacer,
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
    /// What seals them.
    pub barrier: Barrier,
    /// How providers are reached.
    pub transport: Arc<dyn Transport>,
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

/// Why an engine did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root key is not the store's.
    #[error(transparent)]
    Key(#[from] KeyCheckError),
    /// The journal cannot be used.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
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
    integrations: Integrations,
    keys: Keys,
    connect: Connect,
    upkeep: Upkeep,
    ending: Arc<AtomicBool>,
    tasks: Arc<std::sync::Mutex<Vec<JoinHandle<()>>>>,
}

impl Engine {
    /// Checks the root key, takes over what earlier processes left, and begins to refresh what is due. Must be called
    /// within a tokio runtime.
    pub async fn start(parts: Parts, settings: Settings) -> Result<Self, StartError> {
        let Parts { store, bus, shared_cache, barrier, transport, pacer, catalogue, journal_dir, clock, entropy } =
            parts;
        let barrier = Arc::new(verify_or_create(barrier, &*store, &*clock).await?);
        let instance = InstanceId(entropy.ulid(clock.now()));
        let metrics = Arc::new(Metrics::new());
        let records = Records::new(store, barrier.clone(), clock.clone(), settings.hash_labels);
        let journal = match &journal_dir {
            None => None,
            Some(dir) => Some(open_journal(dir, instance, &barrier, &clock, &entropy)?),
        };
        let (link, _waiting) = bus::Link::new(bus.is_some());
        let shared = Arc::new(Shared {
            records,
            bus: link,
            shared_cache,
            clock,
            entropy,
            transport,
            pacer,
            catalogue,
            metrics,
            instance,
            settings,
        });
        let integrations = Integrations::new(shared.clone());
        let kept = KeptReplies::new(journal, shared.metrics.clone());
        let flights = Arc::new(Flights::new(shared.clone(), kept, integrations.clone()));
        let connections = Connections::new(shared.clone(), flights, integrations.clone());
        let connect = Connect::new(shared.clone(), connections.clone());
        let upkeep = Upkeep { shared: shared.clone(), connections: connections.clone(), connect: connect.clone() };
        let keys = Keys::new(shared.clone());
        let engine = Self {
            shared,
            connections,
            integrations,
            keys,
            connect,
            upkeep: upkeep.clone(),
            ending: Arc::default(),
            tasks: Arc::default(),
        };
        if let Some(dir) = journal_dir {
            engine.adopt(&dir, &barrier).await?;
        }
        if let Err(error) = engine.keys.reload().await {
            tracing::warn!(%error, "the API keys cannot be read yet: none is known");
        }
        let tasks = vec![
            tokio::spawn(upkeep.clone().preload()),
            tokio::spawn(upkeep.clean()),
            tokio::spawn(engine.keys.clone().follow()),
            tokio::spawn(engine.connect.clone().poll()),
        ];
        engine.tasks().extend(tasks);
        Ok(engine)
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes over the replies that processes which are gone could not commit. They are durable in our own journal
    /// before anything is served, and committed one by one.
    async fn adopt(&self, dir: &Path, barrier: &Arc<Barrier>) -> Result<(), StartError> {
        let (dir, barrier, own) = (dir.to_owned(), barrier.clone(), self.shared.instance);
        let found = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for mut abandoned in adopt(&dir, own, &barrier)?.abandoned {
                let entries = newest_entries(&mut abandoned)?;
                found.push((abandoned, entries));
            }
            Ok::<_, AdoptError>(found)
        })
        .await;
        let Ok(found) = found else { return Ok(()) };
        let flights = &self.connections.flights;
        let Some(journal) = flights.kept.journal() else { return Ok(()) };
        for (abandoned, entries) in found? {
            let instance = abandoned.instance();
            if let Err(error @ AdoptError::Unreadable { .. }) = abandoned.carry_over(journal, &entries).await {
                // Its readable entries are safe in ours by now; the file stays for whoever has the key.
                tracing::error!(%error, "a journal was taken over in part");
                continue;
            }
            flights.is_gone(instance);
            tracing::info!(%instance, replies = entries.len(), "took over the journal of a process that is gone");
            let engine = self.clone();
            tokio::spawn(async move { engine.commit(entries).await });
        }
        Ok(())
    }

    async fn commit(self, entries: Vec<Entry>) {
        for entry in entries {
            // The tombstone that would tell what was deleted meanwhile may be gone: what is that old stays gone, too.
            if after(entry.recorded_at, TOMBSTONE_LIFE) < self.shared.now().wall {
                tracing::warn!(integration = %entry.connection.integration, "a kept reply is too old to be committed");
                self.connections.flights.kept.forget(&entry.connection);
                continue;
            }
            let held: Held = match decode_held(&entry.payload) {
                Ok(held) => held,
                Err(error) => {
                    tracing::error!(integration = %entry.connection.integration, %error, "a kept reply cannot be read");
                    continue;
                }
            };
            let id = &entry.connection.integration;
            let policy = self.connections.policy(id).await;
            let party = self.connections.party(id).await.ok().flatten();
            let progress = self.connections.flights.resume(held, Route { policy, party });
            // One after the other, but none waits for a store that is down: its flight goes on by itself.
            tokio::select! {
                () = landed(progress) => {}
                () = self.shared.clock.sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// The use cases of connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
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
        let store = match self.shared.records.store().ping().await {
            Ok(()) if !self.shared.records.refuses_writes() => Part::Ok,
            _ => Part::Unavailable,
        };
        let journal = match self.connections.flights.kept.is_writable().await {
            None => Part::None,
            Some(true) => Part::Ok,
            Some(false) => Part::Unavailable,
        };
        let status = if self.ending.load(SeqCst) {
            HealthStatus::NotReady
        } else if store == Part::Unavailable || journal == Part::Unavailable {
            HealthStatus::Degraded
        } else {
            HealthStatus::Ready
        };
        Health { status, store, bus: Part::None, cache: Part::Ok, journal }
    }

    /// Says not ready from now on, while everything goes on: whoever sends requests here can look for another
    /// instance.
    pub fn announce_shutdown(&self) {
        self.ending.store(true, SeqCst);
    }

    /// Begins nothing any more, and waits for what is under way: exchanges finish and commit, for `patience` at
    /// most. What cannot be committed by then lies in the journal.
    pub async fn shutdown(&self, patience: Duration) {
        self.ending.store(true, SeqCst);
        for task in self.tasks().drain(..) {
            task.abort();
        }
        let over = self.shared.clock.sleep(patience);
        let all_landed = async {
            for flight in self.connections.flights.all() {
                landed(flight).await;
            }
        };
        tokio::select! {
            () = all_landed => {}
            () = over => tracing::warn!(flights = self.connections.flights.flying(), "ending with refreshes under way"),
        }
        if let Some(journal) = self.connections.flights.kept.journal() {
            journal.clone().close().await;
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

/// The last entry of each connection: earlier ones are what it was spent from.
fn newest_entries(abandoned: &mut Abandoned) -> Result<Vec<Entry>, AdoptError> {
    let mut newest: HashMap<ConnectionId, Entry> = HashMap::new();
    while let Some(entry) = abandoned.next_entry()? {
        newest.insert(entry.connection.clone(), entry);
    }
    Ok(newest.into_values().collect())
}
