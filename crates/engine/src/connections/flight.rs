//! Drives the refresh machine: one flight per connection at a time, detached from whoever started it.

mod pilot;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::stream::FuturesUnordered;
use tokenkeep_core::{
    AttemptId, Connection, ConnectionId, Generation, InstanceId, IntegrationId,
    connection::RefreshPolicy,
    refresh::{Answer, Cause, Flight, Held, Local, Outcome, Pause, PauseVerdict, Refused, Watch},
};
use tokio::sync::watch;

use self::pilot::Pilot;
use crate::{
    cache::{Asked, Cache, Ready},
    handover::Handover,
    integrations::{Integrations, Party},
    kept::KeptReplies,
    metrics::LoginOutcome,
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
    pauses: Mutex<HashMap<IntegrationId, Pause>>,
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
