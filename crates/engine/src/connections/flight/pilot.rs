//! Carries out what one flight asks for, and lands it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokenkeep_core::{
    Boot, Connection, ConnectionId, Health, Renewal, Rotation,
    ports::{BoxFuture, Connected, Endpoint, Peers, SendError},
    refresh::{Answer, Effect, Fault, Flight, Input, Outcome, Refused},
    time::between,
};
use tokio::sync::watch;
use url::Url;

use super::{Flights, Progress, Route, Slot, lock};
use crate::{
    Error,
    cache::Asked,
    connections::{
        exchange,
        record::{read, write},
        revoke::revoke,
    },
    metrics::{RefreshOutcome, UpstreamCall},
};

/// One flight and what it has under way.
pub(super) struct Pilot {
    pub(super) flights: Arc<Flights>,
    pub(super) id: ConnectionId,
    pub(super) route: Route,
    pub(super) patient: bool,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) flight: Flight,
    pub(super) connected: Option<Box<dyn Connected>>,
    pub(super) connected_to: Option<Url>,
    /// The HTTP status of the last reply; 0 = there was none.
    pub(super) status: Arc<AtomicU16>,
    pub(super) under_way: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    /// Nothing that the flight shows was read before.
    pub(super) asked: Asked,
}

/// What comes of what is under way.
pub(super) enum Event {
    Input(Input),
    Connected(Box<dyn Connected>),
}

impl Pilot {
    pub(super) async fn fly(mut self) {
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
                    let revoked = revoke(&shared, &party, &held.successor.tokens).await;
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

    fn spend(&mut self, renewal: Renewal, claim: &Connection, not_after: Boot) {
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
