//! Drives the refresh machine: one flight per connection at a time, detached from whoever started it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokenkeep_core::{
    AttemptId, Connection, ConnectionId, Generation, Health, InstanceId, Renewal, Rotation,
    connection::RefreshPolicy,
    ports::{BoxFuture, Connected, Endpoint, Expect, Peers, Put, SendError, Version},
    refresh::{
        Answer, Cause, Effect, Fault, Flight, Held, Input, Local, Outcome, Pause, PauseVerdict, Refused, Seen, Watch,
        Written,
    },
    time::between,
};
use tokio::sync::watch;
use url::Url;

use super::exchange;
use crate::{
    Error,
    cache::{Asked, Cache, Ready},
    handover::Handover,
    integrations::{Integrations, Party},
    kept::KeptReplies,
    metrics::{LoginOutcome, RefreshOutcome, UpstreamCall},
    records::{Loaded, RecordError, Records},
    shared::Shared,
};

/// How far a flight is, for those who wait for it.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Flying,
    /// New tokens are durable somewhere; what else becomes of them is not the reader's concern.
    Published(Arc<Ready>),
    Landed {
        outcome: Arc<Outcome>,
        /// Whether it was made for somebody who waits. One that was not gives up where another instance is at work.
        patient: bool,
    },
}

/// What this instance remembers of a connection between flights.
#[derive(Debug, Default)]
struct Slot {
    flight: Option<watch::Receiver<Progress>>,
    watch: Option<Watch>,
}

/// What a flight flies by.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) policy: RefreshPolicy,
    /// Without an integration nothing can be spent, but what was received can be committed.
    pub(crate) party: Option<Arc<Party>>,
}

/// What a flight is for.
enum Mission {
    Refresh(Cause),
    /// Committing a reply that a journal held.
    Commit(Box<Held>),
}

impl Mission {
    fn is_patient(&self) -> bool {
        !matches!(self, Mission::Refresh(Cause::Due))
    }
}

/// All flights of this instance.
#[derive(Debug)]
pub(crate) struct Flights {
    shared: Arc<Shared>,
    pub(crate) cache: Cache,
    pub(crate) kept: KeptReplies,
    handover: Arc<Handover>,
    integrations: Integrations,
    slots: Mutex<HashMap<ConnectionId, Slot>>,
    pauses: Mutex<HashMap<tokenkeep_core::IntegrationId, Pause>>,
    /// Instances that are surely gone, and whose journals we have read to the end.
    gone: Mutex<Vec<InstanceId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    pub(crate) fn new(shared: Arc<Shared>, kept: KeptReplies, integrations: Integrations) -> Self {
        let settings = &shared.settings;
        let cache = Cache::new(settings.cache_bytes, settings.cache_soft_life, shared.bus.lease().clone());
        Self {
            cache,
            kept,
            handover: Arc::new(Handover::new(shared.clone())),
            integrations,
            slots: Mutex::default(),
            pauses: Mutex::default(),
            gone: Mutex::default(),
            shared,
        }
    }

    /// Joins the connection's flight, or starts one.
    pub(crate) fn join(self: &Arc<Self>, id: &ConnectionId, cause: Cause, route: Route) -> watch::Receiver<Progress> {
        self.start(id, Mission::Refresh(cause), route)
    }

    /// Carries on with a reply that a journal held.
    pub(crate) fn resume(self: &Arc<Self>, held: Held, route: Route) -> watch::Receiver<Progress> {
        let id = held.successor.id.clone();
        self.start(&id, Mission::Commit(Box::new(held)), route)
    }

    fn start(self: &Arc<Self>, id: &ConnectionId, mission: Mission, route: Route) -> watch::Receiver<Progress> {
        let mut slots = lock(&self.slots);
        let slot = slots.entry(id.clone()).or_default();
        // A flight whose pilot is gone without a word (a bug of ours) must not ground the connection for ever.
        if let Some(flying) = slot.flight.as_ref().filter(|f| f.has_changed().is_ok()) {
            return flying.clone();
        }
        let (progress, follow) = watch::channel(Progress::Flying);
        slot.flight = Some(follow.clone());
        let watch = slot.watch.take();
        drop(slots);
        self.shared.metrics.flights.inc();
        let (flights, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let spends = matches!(mission, Mission::Refresh(_));
            if spends && !flights.shared.registration.may_spend(&flights.shared).await {
                return flights.ground(&id, &progress);
            }
            let asked = flights.cache.asking(flights.shared.now());
            let local = flights.local(&id, &route.policy, watch).await;
            let patient = mission.is_patient();
            let flight = match mission {
                Mission::Refresh(cause) => Flight::new(cause, local, flights.attempt()),
                Mission::Commit(held) => Flight::resume(*held, local, flights.attempt()),
            };
            let (connected, connected_to, under_way) = (None, None, FuturesUnordered::new());
            let status = Arc::default();
            Pilot { flights, id, route, patient, progress, flight, connected, connected_to, status, under_way, asked }
                .fly()
                .await;
        });
        follow
    }

    fn attempt(&self) -> AttemptId {
        AttemptId(self.shared.ulid())
    }

    async fn local(&self, id: &ConnectionId, policy: &RefreshPolicy, watch: Option<Watch>) -> Local {
        let now = self.shared.now();
        let alive = self.cache.peek(id).is_none_or(|ready| ready.is_alive(now));
        let gone = lock(&self.gone).clone();
        Local {
            instance: self.shared.instance,
            policy: *policy,
            watch,
            gone,
            served: self.cache.floor(id).filter(|_| alive),
            held: self.kept.newest_of(id).await.map(Box::new),
            heard: self.handover.heard(id),
            sought: None,
        }
    }

    /// Ends a flight that must not begin: this instance was given up by an operator.
    fn ground(&self, id: &ConnectionId, progress: &watch::Sender<Progress>) {
        lock(&self.slots).remove(id);
        self.shared.metrics.flights.dec();
        let outcome = Arc::new(Outcome::StoreUnavailable);
        progress.send_replace(Progress::Landed { outcome, patient: true });
    }

    /// An instance is surely gone, and its journal was read to the end.
    pub(crate) fn is_gone(&self, instance: InstanceId) {
        let mut gone = lock(&self.gone);
        if !gone.contains(&instance) {
            gone.push(instance);
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Another instance said that it holds the reply to `attempt`, which the record does not show yet.
    pub(crate) fn heard_beacon(&self, id: &ConnectionId, attempt: AttemptId) {
        self.handover.heard_beacon(id, attempt);
    }

    /// The user replaced or deleted what every reply up to `generation` would bring back. `before` is what was there.
    pub(crate) fn forget_replies(&self, id: &ConnectionId, before: Option<&Connection>, generation: Generation) {
        self.kept.forget(id);
        // Copies are left for attempts without an end only.
        if before.is_some_and(|connection| connection.attempt.is_some()) {
            let (handover, id) = (self.handover.clone(), id.clone());
            tokio::spawn(async move { handover.withdraw(&id, generation).await });
        }
    }

    /// How many flights are under way, and how many of them hold a reply that the store does not have.
    pub(crate) fn flying(&self) -> usize {
        lock(&self.slots).values().filter(|slot| slot.flight.is_some()).count()
    }

    /// Every flight under way.
    pub(crate) fn all(&self) -> Vec<watch::Receiver<Progress>> {
        lock(&self.slots).values().filter_map(|slot| slot.flight.clone()).collect()
    }

    /// Puts the token of `connection` into the cache, if it has one; answers what is there now. `asked` = before
    /// `connection` was read, or written.
    pub(crate) fn publish(&self, connection: &Connection, policy: &RefreshPolicy, asked: Asked) -> Option<Arc<Ready>> {
        let ready = Ready::new(connection, policy.margin, asked)?;
        Some(self.cache.insert(&connection.id, ready, asked))
    }
}

/// One flight and what it has under way.
struct Pilot {
    flights: Arc<Flights>,
    id: ConnectionId,
    route: Route,
    patient: bool,
    progress: watch::Sender<Progress>,
    flight: Flight,
    connected: Option<Box<dyn Connected>>,
    connected_to: Option<Url>,
    /// The HTTP status of the last reply; 0 = there was none.
    status: Arc<AtomicU16>,
    under_way: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    /// Nothing that the flight shows was read before.
    asked: Asked,
}

/// What comes of what is under way.
enum Event {
    Input(Input),
    Connected(Box<dyn Connected>),
}

impl Pilot {
    async fn fly(mut self) {
        let mut next = Some(Event::Input(Input::Start));
        let outcome = loop {
            let input = match next.take() {
                Some(Event::Input(input)) => input,
                Some(Event::Connected(connected)) => {
                    self.connected = Some(connected);
                    Input::Connected
                }
                None => match self.under_way.next().await {
                    Some(event) => {
                        next = event;
                        continue;
                    }
                    // Nothing is under way and the machine did not finish: it never does that.
                    None => break Outcome::StoreUnavailable,
                },
            };
            let now = self.flights.shared.now();
            self.flight.hear(self.flights.handover.heard(&self.id));
            let effects = self.flight.step(now, input);
            let mut finished = None;
            for effect in effects {
                match effect {
                    Effect::Finish(outcome) => finished = Some(*outcome),
                    effect => self.carry_out(effect),
                }
            }
            if let Some(outcome) = finished {
                break outcome;
            }
        };
        self.land(outcome);
    }

    fn carry_out(&mut self, effect: Effect) {
        let shared = self.flights.shared.clone();
        let id = self.id.clone();
        match effect {
            Effect::Read => {
                self.begin(async move { Input::Record(read(&shared.records, &id).await) });
            }
            Effect::Write { connection, expect } => {
                let margin = self.route.policy.margin;
                self.begin(async move {
                    Input::Written(write(&shared.records, &connection, margin, expect.as_ref()).await)
                });
            }
            Effect::Connect { renewal } => self.connect(&renewal),
            Effect::Spend { renewal, claim, not_after } => self.spend(renewal, &claim, not_after),
            Effect::Keep(held) => {
                // A task of its own: the reply is made durable even if the flight ends first.
                let flights = self.flights.clone();
                let reply = held.reply();
                let held = flights.kept.remember(*held);
                let keeping = tokio::spawn(async move { flights.kept.keep(&held).await });
                self.begin(async move { Input::Journaled(reply, keeping.await.unwrap_or(Err(()))) });
            }
            // Tasks of their own: nothing waits for them.
            Effect::Share(held) => {
                let handover = self.flights.handover.clone();
                tokio::spawn(async move { handover.share(&held).await });
            }
            Effect::Withdraw(held) => {
                let handover = self.flights.handover.clone();
                tokio::spawn(async move { handover.withdraw(&id, held.successor.generation).await });
            }
            Effect::Seek => {
                let handover = self.flights.handover.clone();
                self.begin(async move { Input::Found(handover.seek(&id).await) });
            }
            Effect::Publish(connection) => {
                if let Some(ready) = self.flights.publish(&connection, &self.route.policy, self.asked) {
                    self.progress.send_replace(Progress::Published(ready));
                }
            }
            Effect::Timer(timer, wait) => {
                let slept = shared.clock.sleep(wait);
                self.begin(async move {
                    slept.await;
                    Input::Timer(timer)
                });
            }
            Effect::Revoke(held) => {
                let Some(party) = self.route.party.clone() else { return };
                tokio::spawn(async move {
                    // The connection is gone and nobody waits: what cannot be revoked now dies by itself.
                    let revoked = super::revoke::revoke(&shared, &party, &held.successor.tokens).await;
                    tracing::info!(integration = %id.integration, ok = revoked.is_ok(), "revoked what came for a deleted connection");
                });
            }
            Effect::Settled(held) => self.flights.kept.settled(&self.id, held.attempt),
            Effect::Finish(_) => {}
        }
    }

    fn begin(&mut self, what: impl Future<Output = Input> + Send + 'static) {
        self.under_way.push(what.map(|input| Some(Event::Input(input))).boxed());
    }

    fn connect(&mut self, renewal: &Renewal) {
        let shared = self.flights.shared.clone();
        let party = self.route.party.clone();
        let paused = lock(&self.flights.pauses)
            .get(&self.id.integration)
            .is_some_and(|pause| pause.is_paused(shared.now().boot));
        if party.as_ref().is_some_and(|party| exchange::standing(&shared, party, renewal).is_some()) {
            return self.begin(async { Input::Connected });
        }
        let url = match &party {
            Some(party) => exchange::refresh_url(party, &renewal.by),
            None => Err(Fault::Misconfigured { detail: "there is no integration".to_owned() }),
        };
        self.connected_to = url.as_ref().ok().cloned();
        let (id, patience) = (self.id.clone(), self.route.policy.deadline);
        let is_login = renewal.login().is_some();
        let nowhere_to_go = !is_login && self.route.policy.rotation != Rotation::None && shared.records.is_fleeting();
        self.under_way.push(Box::pin(async move {
            if paused {
                return Some(Event::Input(Input::Unreachable(Fault::Paused)));
            }
            if nowhere_to_go {
                let detail =
                    "the provider rotates refresh tokens, and the `env` store without a file would lose them: \
                              name one with `[store] url = \"env:.env\"`"
                        .to_owned();
                return Some(Event::Input(Input::Unreachable(Fault::Misconfigured { detail })));
            }
            let url = match url {
                Ok(url) => url,
                Err(fault) => return Some(Event::Input(Input::Unreachable(fault))),
            };
            if let Some(party) = party.filter(|_| is_login)
                && let Err(Error::TooMany { retry_after, .. }) = shared.limits.enter_login(&party, &id, patience).await
            {
                let retry_after = Some(retry_after);
                return Some(Event::Input(Input::Unreachable(Fault::Throttled { retry_after })));
            }
            let endpoint = Endpoint { url, timeout: shared.settings.connect_timeout, peers: Peers::Any };
            Some(match shared.transport.connect(&endpoint).await {
                Ok(connected) => Event::Connected(connected),
                Err(error) => Event::Input(Input::Unreachable(Fault::Unreachable { detail: error.to_string() })),
            })
        }));
    }

    fn spend(&mut self, renewal: Renewal, claim: &Connection, not_after: tokenkeep_core::Boot) {
        let shared = self.flights.shared.clone();
        let Some(party) = self.route.party.clone() else {
            return self.begin(async { Input::Answered(Answer::NotSent) });
        };
        if let Some(standing) = exchange::standing(&shared, &party, &renewal) {
            return self.begin(async move { Input::Answered(Answer::Tokens(Box::new(standing))) });
        }
        let built = exchange::build(&shared, &party, claim, &renewal);
        let connected_to = self.connected_to.take();
        let leads_to = |url: &Url| connected_to.as_ref().is_some_and(|to| to.origin() == url.origin());
        let (request, connected) = match (built, self.connected.take()) {
            (Ok(request), Some(connected)) if leads_to(&request.url) => (request, connected),
            // What is spent has changed meanwhile, and goes elsewhere.
            (Ok(_), Some(_)) => return self.begin(async { Input::Answered(Answer::NotSent) }),
            (Err(fault), _) => {
                tracing::error!(integration = %self.id.integration, detail = %fault.detail(), "a refresh could not be asked for");
                let refused = Refused::Request { code: fault.code().to_owned() };
                return self.begin(async move { Input::Answered(Answer::Refused(refused)) });
            }
            (_, None) => return self.begin(async { Input::Answered(Answer::NotSent) }),
        };
        let is_login = renewal.login().is_some();
        let call = if is_login { UpstreamCall::login } else { UpstreamCall::refresh };
        shared.metrics.called(&self.id.integration, call);
        let flights = self.flights.clone();
        let id = self.id.clone();
        let status = self.status.clone();
        self.begin(async move {
            let url = request.url.clone();
            let answer = match connected.send(request, Some(not_after)).await {
                Ok(reply) => {
                    status.store(reply.status.as_u16(), Ordering::Relaxed);
                    exchange::judge(&shared, &party, &renewal, &reply)
                }
                Err(SendError::NotSent { .. }) => Answer::NotSent,
                Err(cut @ (SendError::Cut { .. } | SendError::TooLong { .. })) => {
                    Answer::Lost { detail: cut.to_string() }
                }
            };
            let answer = if is_login {
                // A refused login is believed, however many there are: trying it again may lock the account.
                flights.note_login(&id, &answer);
                answer
            } else {
                flights.doubt(&id, answer)
            };
            if let (Answer::Refused(Refused::Throttled { retry_after: Some(wait) }), Some(pacer)) =
                (&answer, &shared.pacer)
            {
                pacer.penalise(&url, *wait);
            }
            Input::Answered(answer)
        });
    }

    /// One line for each attempt that failed, and when the next one may follow.
    fn note_retry(&self, connection: Option<&Connection>, fault: &Fault) {
        let now = self.flights.shared.now().wall;
        let (attempt, wait) = match connection.map(|connection| &connection.health) {
            Some(Health::Failing { failures, retry_at }) => (*failures, between(now, *retry_at)),
            _ => (0, Duration::ZERO),
        };
        let generation = connection.map(|connection| connection.generation.0);
        let status = Some(self.status.load(Ordering::Relaxed)).filter(|status| *status != 0);
        tracing::warn!(
            connection = %self.id, generation, attempt, status, wait = wait.as_secs(),
            code = fault.code(), detail = %fault.detail(), "a refresh failed"
        );
    }

    fn land(self, outcome: Outcome) {
        let flights = &self.flights;
        let shared = &flights.shared;
        let policy = self.route.policy;
        let integration = &self.id.integration;
        shared.metrics.refreshed(integration, word(&outcome));
        let mut watch = None;
        match &outcome {
            Outcome::Refreshed(connection) => {
                flights.publish(connection, &policy, self.asked);
                shared.announce(connection);
                if let Some(party) = &self.route.party {
                    flights.integrations.accepted(party);
                }
                tracing::info!(target: "audit", action = "refreshed", connection = %self.id, generation = %connection.generation);
            }
            Outcome::Current(connection) | Outcome::BackingOff(connection) => {
                flights.publish(connection, &policy, self.asked);
            }
            Outcome::Dead { connection, reason } => {
                flights.publish(connection, &policy, self.asked);
                tracing::info!(integration = %integration, reason, "a connection needs its user's consent");
            }
            Outcome::Blocked { connection, watch: seen, .. } => {
                flights.publish(connection, &policy, self.asked);
                watch = *seen;
            }
            Outcome::Failed { connection, fault } => {
                if let Some(connection) = connection {
                    flights.publish(connection, &policy, self.asked);
                }
                if let (Fault::IntegrationRejected { code }, Some(party)) = (fault, &self.route.party) {
                    flights.integrations.rejected(party, code);
                }
                self.note_retry(connection.as_deref(), fault);
            }
            Outcome::Absent | Outcome::Behind | Outcome::StoreUnavailable => {}
        }
        {
            let mut slots = lock(&flights.slots);
            if watch.is_some() {
                slots.insert(self.id.clone(), Slot { flight: None, watch });
            } else {
                slots.remove(&self.id);
            }
        }
        shared.metrics.flights.dec();
        self.progress.send_replace(Progress::Landed { outcome: Arc::new(outcome), patient: self.patient });
    }
}

impl Flights {
    fn note_login(&self, id: &ConnectionId, answer: &Answer) {
        let outcome = match answer {
            Answer::Tokens(_) => LoginOutcome::succeeded,
            Answer::Refused(Refused::Grant { .. }) => {
                tracing::warn!(target: "audit", action = "login_refused", connection = %id,
                    "the provider does not take the stored credentials; nobody tries them again until they are stored anew");
                LoginOutcome::refused
            }
            Answer::NotSent => return,
            Answer::Refused(_) | Answer::Lost { .. } => LoginOutcome::failed,
        };
        self.shared.metrics.logged_in(&id.integration, outcome);
    }

    /// When most refreshes of an integration are refused at once, a refusal is not believed.
    fn doubt(&self, id: &ConnectionId, answer: Answer) -> Answer {
        let now = self.shared.now().boot;
        let mut pauses = lock(&self.pauses);
        let pause = pauses.entry(id.integration.clone()).or_default();
        match answer {
            Answer::Tokens(_) => {
                pause.succeeded(now);
                answer
            }
            Answer::Refused(Refused::Grant { .. }) => match pause.refused(now) {
                PauseVerdict::Believe => answer,
                PauseVerdict::Pause { first } => {
                    if first {
                        tracing::error!(target: "audit", action = "refresh_paused", integration = %id.integration,
                            "most refreshes of this integration are refused; nobody is marked until that changes");
                    }
                    Answer::Refused(Refused::Suspicious)
                }
            },
            _ => answer,
        }
    }
}

/// What the record of `id` shows. A record that cannot be read is an outage, not an absence.
pub(crate) async fn read(records: &Records, id: &ConnectionId) -> Result<Seen, ()> {
    match records.load::<Connection>(id).await {
        Ok(Loaded::Absent) => Ok(Seen::Absent),
        Ok(Loaded::Deleted(tombstone)) => Ok(Seen::Deleted(tombstone.remembered, tombstone.version)),
        Ok(Loaded::Live(stored)) => Ok(Seen::Live(Box::new(stored.value), stored.version)),
        Err(error) => {
            if let RecordError::Unreadable { why, .. } = &error {
                tracing::error!(integration = %id.integration, %why, "a connection's record cannot be read");
            }
            Err(())
        }
    }
}

async fn write(records: &Records, connection: &Connection, margin: Duration, expect: Option<&Version>) -> Written {
    let expect = expect.map_or(Expect::Absent, Expect::Version);
    match records.save(connection, margin, expect).await {
        Ok(Put::Committed(version)) => Written::Committed(version),
        Ok(Put::Conflict) => Written::Conflict,
        Ok(Put::Unknown) => Written::Unknown,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be written");
            Written::Unavailable
        }
    }
}

fn word(outcome: &Outcome) -> RefreshOutcome {
    match outcome {
        Outcome::Current(_) => RefreshOutcome::current,
        Outcome::Refreshed(_) => RefreshOutcome::refreshed,
        Outcome::Absent => RefreshOutcome::absent,
        Outcome::Blocked { .. } => RefreshOutcome::blocked,
        Outcome::BackingOff(_) => RefreshOutcome::backing_off,
        Outcome::Dead { .. } => RefreshOutcome::dead,
        Outcome::Failed { .. } => RefreshOutcome::failed,
        Outcome::Behind => RefreshOutcome::behind,
        Outcome::StoreUnavailable => RefreshOutcome::store_unavailable,
    }
}
