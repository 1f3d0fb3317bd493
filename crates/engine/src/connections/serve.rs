//! Serving a token: from memory where it is fresh, from the store where it is not there, from the provider where it
//! is due.

use std::{sync::Arc, time::Duration};

use tokenkeep_core::{
    Action, Connection, ConnectionId, Freshness, Generation, Health,
    refresh::{Cause, Fault, INVALID_CREDENTIALS, Outcome, Seen},
};
use tokio::sync::watch;

use super::{
    Connections, PROVIDER_RETRY,
    flight::{Progress, Route},
    record,
    reports::{self, Report},
    view::until,
};
use crate::{
    Caller, Error,
    cache::{Hit, Ready},
    error::STORE_RETRY,
    integrations::Party,
};

/// What a caller who waits for a flight wants of it.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// A token that lives for this long; one that lives at all is better than none.
    Alive(Duration),
    /// A token younger than this one, which is said to be no good.
    Younger(Generation),
    /// Whatever a refresh brings, for the connection's holder.
    Renewed,
    /// Whatever a refresh brings, now.
    Refreshed,
}

impl Wanted {
    fn cause(self) -> Cause {
        match self {
            Wanted::Alive(min_ttl) => Cause::Read { min_ttl },
            Wanted::Younger(generation) => Cause::Reported { generation },
            Wanted::Renewed => Cause::Asked,
            Wanted::Refreshed => Cause::Forced,
        }
    }
}

/// A flight that was begun for somebody else may end without what one came for.
const FLIGHTS: usize = 3;

impl Connections {
    /// The hot path: the token, if it is in memory and fresh for `min_ttl`. Takes no lock, does no I/O. Whether the
    /// caller may have it must be asked before ([`Caller::may_at`]).
    pub fn cached(&self, integration: &str, tenant: &str, subject: &str, min_ttl: Duration) -> Option<Arc<Ready>> {
        let now = self.shared.now();
        match self.flights.cache.get(integration, tenant, subject, min_ttl, now) {
            Hit::Serve { ready, check, refresh } => {
                if check || refresh {
                    self.look_behind(integration, tenant, subject, &ready, check);
                }
                self.shared.metrics.l1_hits.inc();
                Some(ready)
            }
            // The store cannot say whether there is a younger one. It is asked behind: it may take long to fail.
            Hit::Doubtful(ready) if !self.shared.conditions.store.is_well() => {
                if ready.begin_check() {
                    self.look_behind(integration, tenant, subject, &ready, true);
                }
                self.shared.metrics.l1_hits.inc();
                Some(ready)
            }
            Hit::Doubtful(_) | Hit::Stale(_) | Hit::Miss => None,
        }
    }

    /// The token that is not in memory, if another instance's copy or the store has it fresh. Whether the caller may have
    /// it must be asked before ([`Caller::may_at`]). `None` says nothing: ask [`Connections::token`].
    pub async fn fetched(&self, id: &ConnectionId, min_ttl: Duration) -> Option<Arc<Ready>> {
        let (integration, tenant, subject) = (id.integration.as_str(), id.tenant.as_str(), id.subject.as_str());
        let known = self.flights.cache.get(integration, tenant, subject, min_ttl, self.shared.now());
        // While the store does not answer, one who waits for it is enough.
        if !matches!(known, Hit::Miss) || !self.shared.conditions.store.is_well() {
            return None;
        }
        let found = match self.copied(id, min_ttl).await {
            Some(copy) => Some(copy),
            None => self.look(id).await.ok()?,
        };
        let fresh = found.filter(|ready| ready.freshness(min_ttl, self.shared.now()) != Freshness::Stale)?;
        self.shared.metrics.l1_misses.inc();
        Some(fresh)
    }

    /// An access token that lives for `min_ttl`, capped at half its life: refreshed if need be. Inside the
    /// early-refresh margin it is answered at once and refreshed behind.
    pub async fn token(&self, caller: &Caller, id: &ConnectionId, min_ttl: Duration) -> Result<Arc<Ready>, Error> {
        caller.may_at(Action::ReadToken, &id.integration, &id.tenant)?;
        let (integration, tenant, subject) = (id.integration.as_str(), id.tenant.as_str(), id.subject.as_str());
        if let Some(ready) = self.cached(integration, tenant, subject, min_ttl) {
            return Ok(ready);
        }
        self.shared.metrics.l1_misses.inc();
        let now = self.shared.now();
        let known = match self.flights.cache.get(integration, tenant, subject, min_ttl, now) {
            Hit::Serve { ready, .. } => return Ok(ready),
            Hit::Doubtful(ready) | Hit::Stale(ready) => Some(ready),
            Hit::Miss => None,
        };
        if known.is_none()
            && let Some(ready) = self.copied(id, min_ttl).await
        {
            return Ok(ready);
        }
        let party = self.party_of(id).await;
        match self.look(id).await {
            Ok(Some(ready)) if ready.freshness(min_ttl, self.shared.now()) != Freshness::Stale => return Ok(ready),
            Ok(_) => {}
            // The store cannot say whether there is a younger one; this one is good until it dies.
            Err(error @ Error::StoreUnavailable { .. }) => {
                return known.filter(|ready| ready.is_alive(self.shared.now())).ok_or(error);
            }
            Err(error) => return Err(error),
        }
        // Boxed: a reader whose token is fresh would carry the room for all this.
        Box::pin(self.refreshed(id, party?, Wanted::Alive(min_ttl))).await
    }

    /// A token younger than `if_generation`, which the caller was told is no good; without it, a refresh now. A
    /// generation we do not know of yet is never refreshed: we are behind.
    pub async fn refresh(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        if_generation: Option<Generation>,
    ) -> Result<Arc<Ready>, Error> {
        caller.may_at(Action::Refresh, &id.integration, &id.tenant)?;
        let party = self.party_of(id).await?;
        if let Some(ready) = if_generation.and_then(|reported| self.younger_than(id, reported)) {
            return Ok(ready);
        }
        let current = self.look(id).await?;
        let is_static = is_static(party.as_deref());
        let Some(reported) = if_generation else {
            return match current.filter(|_| is_static) {
                Some(ready) => Ok(ready),
                None => self.refreshed(id, party, Wanted::Refreshed).await,
            };
        };
        if let Some(ready) = current.as_ref().filter(|ready| ready.generation > reported) {
            return Ok(ready.clone());
        }
        if is_static && current.as_ref().is_some_and(|ready| ready.generation == reported) {
            let reason = INVALID_CREDENTIALS.to_owned();
            return Err(Error::ReauthRequired { connection: id.clone(), reason });
        }
        if current.is_some_and(|ready| ready.generation == reported) {
            self.count_report(id, reported).await?;
        }
        self.refreshed(id, party, Wanted::Younger(reported)).await
    }

    /// A refresh now, for the connection's holder, who may ask again and again: after a failure nobody is asked until it
    /// is time again.
    pub(crate) async fn renew(&self, id: &ConnectionId) -> Result<Arc<Ready>, Error> {
        let party = self.party_of(id).await?;
        match self.look(id).await?.filter(|_| is_static(party.as_deref())) {
            Some(ready) => Ok(ready),
            None => self.refreshed(id, party, Wanted::Renewed).await,
        }
    }

    async fn count_report(&self, id: &ConnectionId, reported: Generation) -> Result<(), Error> {
        let too_many = |retry_after| Error::TooMany {
            what: "every new token of this connection was reported as bad",
            retry_after,
        };
        let report = self.reports.count(id, reported, self.shared.now().boot).map_err(too_many)?;
        match &self.shared.counter {
            Some(counter) if report == Report::First => {
                let name = self.shared.records.labels().shared("report", id);
                reports::count_everywhere(&**counter, &name, reported).await.map_err(too_many)
            }
            _ => Ok(()),
        }
    }

    /// The copy that another instance left, if it is fresh and nothing here knows better.
    async fn copied(&self, id: &ConnectionId, min_ttl: Duration) -> Option<Arc<Ready>> {
        let cache = &self.flights.cache;
        let asked = cache.asking(self.shared.now());
        if self.flights.kept.has_unsettled(id) {
            return None;
        }
        let copy = self.shared.l2.read(id).await?;
        let margin = self.policy(&id.integration).await.margin;
        let life = (copy.incarnation, copy.generation);
        let ready = Ready::of(&copy.access, copy.scope.as_deref(), life, margin, asked)?;
        let fresh = ready.freshness(min_ttl, self.shared.now()) != Freshness::Stale;
        (fresh && cache.admits(id, life) && cache.is_answered(id, asked)).then(|| cache.insert(id, ready, asked))
    }

    /// Reads the record, and puts its token into the cache.
    async fn look(&self, id: &ConnectionId) -> Result<Option<Arc<Ready>>, Error> {
        self.shared.metrics.store_reads.inc();
        let asked = self.flights.cache.asking(self.shared.now());
        let Some(stored) = self.load(id).await? else {
            self.flights.cache.remove_deleted(id);
            return Err(Error::not_found("connection", id));
        };
        if self.flights.kept.may_be_ahead_of(&stored.value) {
            // A reply lies here that the store does not show: it is committed first, whatever is wanted.
            let route = Route { policy: self.policy(&id.integration).await, party: self.party_of(id).await? };
            let mut progress = self.flights.join(id, Cause::Due, route);
            while matches!(*progress.borrow_and_update(), Progress::Flying) {
                if progress.changed().await.is_err() {
                    break;
                }
            }
        }
        let policy = self.policy(&id.integration).await;
        let ready = self.flights.publish(&stored.value, &policy, asked);
        if let Some(ready) = &ready {
            self.flights.cache.confirm(id, ready, asked);
        }
        if self.shared.l2.is_used() && self.flights.cache.is_answered(id, asked) {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.l2.fill(&stored.value).await });
        }
        Ok(ready)
    }

    fn route(&self, party: Arc<Party>) -> Route {
        Route { policy: party.policy(self.shared.settings.refresh_margin), party: Some(party) }
    }

    /// Joins or starts flights until one brings what is wanted, or says why not.
    async fn refreshed(
        &self,
        id: &ConnectionId,
        party: Option<Arc<Party>>,
        wanted: Wanted,
    ) -> Result<Arc<Ready>, Error> {
        let Some(party) = party else {
            return self.alive(id, wanted).ok_or_else(|| Error::IntegrationMissing(id.integration.clone()));
        };
        if let Some(code) = self.integrations.holds_back(&party) {
            let integration = id.integration.clone();
            return self.alive(id, wanted).ok_or(Error::IntegrationRejected { integration, code });
        }
        let route = self.route(party);
        let deadline = route.policy.deadline;
        let waited_out = self.shared.clock.sleep(deadline);
        let flown = async {
            let mut last = None;
            for _ in 0..FLIGHTS {
                let progress = self.flights.join(id, wanted.cause(), route.clone());
                match self.landed(progress, wanted).await {
                    Landed::With(ready) => return Ok(ready),
                    Landed::Early => {}
                    Landed::Without(outcome) => {
                        if let Some(result) = self.answer(id, wanted, &outcome) {
                            return result;
                        }
                        last = Some(outcome);
                    }
                }
            }
            tracing::debug!(integration = %id.integration, ?last, "no flight brought what was wanted");
            Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
        };
        tokio::select! {
            result = flown => result,
            () = waited_out => self.alive(id, wanted).ok_or_else(|| Error::ProviderUnavailable {
                integration: id.integration.clone(),
                detail: "the provider has not answered yet".to_owned(),
                retry_after: PROVIDER_RETRY,
            }),
        }
    }

    /// Follows a flight to what is wanted, or to its end.
    async fn landed(&self, mut progress: watch::Receiver<Progress>, wanted: Wanted) -> Landed {
        loop {
            match progress.borrow_and_update().clone() {
                Progress::Flying => {}
                Progress::Published(ready) if self.serves(&ready, wanted) => return Landed::With(ready),
                Progress::Published(_) => {}
                Progress::Landed { outcome, patient } => {
                    // Somebody else's refresh is running, which this flight would not wait for, but its reader will.
                    let fly_again = !patient && matches!(*outcome, Outcome::Blocked { .. });
                    return if fly_again { Landed::Early } else { Landed::Without(outcome) };
                }
            }
            if progress.changed().await.is_err() {
                return Landed::Without(Arc::new(Outcome::StoreUnavailable));
            }
        }
    }

    fn serves(&self, ready: &Ready, wanted: Wanted) -> bool {
        let now = self.shared.now();
        match wanted {
            Wanted::Alive(min_ttl) => ready.freshness(min_ttl, now) != Freshness::Stale,
            Wanted::Younger(generation) => ready.generation > generation,
            Wanted::Renewed | Wanted::Refreshed => ready.is_alive(now),
        }
    }

    /// What a flight's end means for a caller; `None` = it was not made for them: fly again.
    fn answer(&self, id: &ConnectionId, wanted: Wanted, outcome: &Outcome) -> Option<Result<Arc<Ready>, Error>> {
        let now = self.shared.now().wall;
        let error = match outcome {
            Outcome::Refreshed(connection) | Outcome::Current(connection) => {
                return self.of(connection).filter(|ready| self.serves(ready, wanted)).map(Ok);
            }
            Outcome::Absent => return Some(Err(Error::not_found("connection", id))),
            Outcome::Blocked { obstacle, retry_in, .. } => Error::Unresolved {
                connection: id.clone(),
                detail: obstacle.detail(),
                retry_after: (*retry_in).max(Duration::from_secs(1)),
            },
            Outcome::BackingOff(connection) => {
                let retry_at = match connection.health {
                    Health::Failing { retry_at, .. } => retry_at,
                    _ => now,
                };
                let detail = connection.last_error.as_ref().map_or_else(String::new, |e| e.detail.clone());
                let retry_after = until(now, retry_at).max(Duration::from_secs(1));
                Error::ProviderUnavailable { integration: id.integration.clone(), detail, retry_after }
            }
            Outcome::Dead { reason, .. } => Error::ReauthRequired { connection: id.clone(), reason: reason.clone() },
            Outcome::Failed { fault, .. } => failure(id, fault),
            Outcome::Behind | Outcome::StoreUnavailable => {
                Error::StoreUnavailable { retry_after: STORE_RETRY, source: None }
            }
        };
        Some(self.alive(id, wanted).ok_or(error))
    }

    /// What there is, if that is better than nothing for what is wanted.
    fn alive(&self, id: &ConnectionId, wanted: Wanted) -> Option<Arc<Ready>> {
        match wanted {
            Wanted::Alive(_) => self.flights.cache.peek(id).filter(|ready| ready.is_alive(self.shared.now())),
            Wanted::Younger(generation) => self.younger_than(id, generation),
            Wanted::Renewed | Wanted::Refreshed => None,
        }
    }

    fn younger_than(&self, id: &ConnectionId, generation: Generation) -> Option<Arc<Ready>> {
        self.flights.cache.peek(id).filter(|ready| ready.generation > generation)
    }

    fn of(&self, connection: &Connection) -> Option<Arc<Ready>> {
        let cached = self.flights.cache.peek(&connection.id);
        cached.or_else(|| {
            let asked = self.flights.cache.asking(self.shared.now());
            Ready::new(connection, Duration::ZERO, asked).map(Arc::new)
        })
    }

    /// Looks behind a reader's back: whether the token is still the newest, and whether its refresh is due.
    #[cold]
    fn look_behind(&self, integration: &str, tenant: &str, subject: &str, ready: &Arc<Ready>, check: bool) {
        let (Ok(integration), Ok(tenant), Ok(subject)) = (integration.parse(), tenant.parse(), subject.parse()) else {
            return;
        };
        let id = ConnectionId { integration, tenant, subject };
        let (this, ready) = (self.clone(), ready.clone());
        tokio::spawn(async move {
            if check {
                this.shared.metrics.l1_revalidations.inc();
                let asked = this.flights.cache.asking(this.shared.now());
                match record::read(&this.shared.records, &id).await {
                    Ok(Seen::Live(connection, _)) => {
                        let policy = this.policy(&id.integration).await;
                        this.flights.publish(&connection, &policy, asked);
                        this.flights.cache.confirm(&id, &ready, asked);
                    }
                    Ok(Seen::Absent | Seen::Deleted(..)) => {
                        this.flights.cache.remove_deleted(&id);
                    }
                    Err(()) => ready.unconfirmed(),
                }
            }
            if ready.freshness(Duration::ZERO, this.shared.now()) != Freshness::Fresh {
                this.refresh_behind(&id).await;
            }
        });
    }

    /// Starts a refresh that nobody waits for, if it can be made at all.
    pub(crate) async fn refresh_behind(&self, id: &ConnectionId) -> Option<watch::Receiver<Progress>> {
        let party = self.party_of(id).await.ok().flatten()?;
        if self.integrations.holds_back(&party).is_some() {
            return None;
        }
        Some(self.flights.join(id, Cause::Due, self.route(party)))
    }
}

enum Landed {
    With(Arc<Ready>),
    Early,
    Without(Arc<Outcome>),
}

/// Whether what was stored is what the API takes: there is no other to be had.
fn is_static(party: Option<&Party>) -> bool {
    party.is_some_and(|party| party.provider.kind.is_static())
}

/// What a failed refresh means for whoever has no token to fall back on.
fn failure(id: &ConnectionId, fault: &Fault) -> Error {
    let integration = id.integration.clone();
    let unavailable =
        |detail, retry_after| Error::ProviderUnavailable { integration: integration.clone(), detail, retry_after };
    match fault {
        Fault::IntegrationRejected { code } => Error::IntegrationRejected { integration, code: code.clone() },
        Fault::Rejected { code } => Error::ProviderRejected { integration, code: code.clone() },
        Fault::Misconfigured { detail } => {
            tracing::error!(%integration, detail, "the integration cannot be used");
            Error::IntegrationRejected { integration, code: "misconfigured".to_owned() }
        }
        Fault::Throttled { retry_after } => unavailable(fault.detail(), retry_after.unwrap_or(PROVIDER_RETRY)),
        Fault::Unreachable { .. } | Fault::NoOutcome { .. } | Fault::Paused => {
            unavailable(fault.detail(), PROVIDER_RETRY)
        }
    }
}
