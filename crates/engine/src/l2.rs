//! L2: sealed copies of tokens that instances leave for each other in the shared cache.
//!
//! A copy is believed only while the bus tells of every change, and while nothing is known to be missing from the
//! cache: a floor or a newer copy that could not be put there is *owed*, and until it is paid, by raising the floors
//! of whatever was changed meanwhile, no copy is read. Nothing ever waits for a cache that does not answer: after a
//! failure it is left alone for a while.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokenkeep_core::{
    Boot, Connection, ConnectionId, Generation,
    ports::{Clock, SharedCache, SharedCacheError},
    time::{after, between},
};
use tokio::sync::Notify;

use crate::{
    barrier::Place,
    cache::Lease,
    conditions::Condition,
    metrics::Metrics,
    records::{Aggregate as _, Records, TokenCopy},
};

/// How long a copy or a floor stays at most. What is older is not believed, so that no recorded copy can be played
/// back later.
pub(crate) const LIFE: Duration = Duration::from_mins(5);
/// A reader waits so long for a copy, and then asks the store.
const READ_DEADLINE: Duration = Duration::from_millis(100);
const WRITE_DEADLINE: Duration = Duration::from_secs(1);
/// After the first failure the cache is left alone for so long, after each further one twice as long.
const REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(8);
/// How far apart the clocks of two instances may be.
const SKEW: Duration = Duration::from_secs(30);

/// The tokens in the shared cache. Without one, or without a bus, nothing is put there and nothing read.
#[derive(Debug)]
pub(crate) struct L2 {
    cache: Option<Arc<dyn SharedCache>>,
    records: Records,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    condition: Arc<Condition>,
    lease: Arc<Lease>,
    state: Mutex<State>,
    trouble: Notify,
}

#[derive(Debug)]
struct State {
    failures: u32,
    rest_until: Boot,
    owed: Option<Owed>,
}

/// Something may be missing from the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    /// What was changed before is there.
    pub(crate) since: Boot,
    /// Counts what was not put there, so that what is added during a payment is not taken for paid.
    losses: u64,
}

impl L2 {
    /// What earlier instances owed, nobody knows: so everything that can still be there is owed at first.
    pub(crate) fn new(
        cache: Option<Arc<dyn SharedCache>>,
        records: Records,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        condition: Arc<Condition>,
        lease: Arc<Lease>,
    ) -> Self {
        let started = clock.now().boot;
        let since = Boot(started.0.saturating_sub(LIFE));
        let owed = cache.is_some().then_some(Owed { since, losses: 0 });
        let state = Mutex::new(State { failures: 0, rest_until: started, owed });
        Self { cache, records, clock, metrics, condition, lease, state, trouble: Notify::new() }
    }

    /// Whether there is any use in it.
    pub(crate) fn is_used(&self) -> bool {
        self.cache.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy of `id`, if there is one that can be believed. The caller knows better whether it is too old.
    pub(crate) async fn read(&self, id: &ConnectionId) -> Option<TokenCopy> {
        let cache = self.cache.as_ref()?;
        let now = self.clock.now();
        if !self.lease.holds(now.boot) || self.state().owed.is_some() || self.rests(now.boot) {
            return None;
        }
        let key = self.key(id);
        let copy = self.within(READ_DEADLINE, cache.get(&key)).await.ok()?;
        let copy = copy.and_then(|sealed| self.open(id, &sealed, now.wall));
        if copy.is_some() { &self.metrics.l2_hits } else { &self.metrics.l2_misses }.inc();
        copy
    }

    fn open(&self, id: &ConnectionId, sealed: &[u8], now: Timestamp) -> Option<TokenCopy> {
        let plain = self.records.barrier().open(Place::L2, &Connection::key_of(id), sealed).ok();
        let copy = plain.and_then(|plain| TokenCopy::decode(&plain).ok());
        if copy.is_none() {
            // Another root key, a later tokenkeep, or somebody who should not be there: the store knows.
            self.metrics.l2_errors.inc();
        }
        copy.filter(|copy| between(copy.copied_at, now) <= LIFE && copy.copied_at <= after(now, SKEW))
    }

    /// Leaves a copy of what the store showed. Nothing is owed if that fails.
    pub(crate) async fn fill(&self, connection: &Connection) {
        let now = self.clock.now().boot;
        if self.lease.holds(now) && !self.rests(now) {
            let _ = self.put(connection).await;
        }
    }

    /// `connection` was changed: its copy takes the place of every older one.
    pub(crate) async fn changed(&self, connection: &Connection) {
        if self.cache.is_none() {
            return;
        }
        if connection.tokens.access.is_none() {
            return self.raise(&[(connection.id.clone(), connection.generation)]).await;
        }
        let now = self.clock.now().boot;
        if self.rests(now) || self.put(connection).await.is_err() {
            self.owe(now);
        }
    }

    /// No copy older than these is to be served any more.
    pub(crate) async fn raise(&self, floors: &[(ConnectionId, Generation)]) {
        let Some(cache) = &self.cache else { return };
        let floors: Vec<_> = floors.iter().map(|(id, floor)| (self.key(id), floor.0)).collect();
        let now = self.clock.now().boot;
        if floors.is_empty() {
            return;
        }
        if self.rests(now) || self.within(WRITE_DEADLINE, cache.raise(&floors, LIFE)).await.is_err() {
            self.owe(now);
        }
    }

    async fn put(&self, connection: &Connection) -> Result<(), SharedCacheError> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let now = self.clock.now().wall;
        let dies = connection.tokens.access.as_ref().and_then(|access| access.expires_at);
        let life = dies.map_or(LIFE, |dies| between(now, dies).min(LIFE));
        let Some(plain) = TokenCopy::encode(connection, now) else {
            return Ok(());
        };
        if life.is_zero() {
            return Ok(());
        }
        let sealed = self.records.barrier().seal(Place::L2, &Connection::key_of(&connection.id), &plain);
        self.within(WRITE_DEADLINE, cache.put(&self.key(&connection.id), connection.generation.0, &sealed, life))
            .await
            .map(drop)
    }

    fn key(&self, id: &ConnectionId) -> String {
        self.records.labels().shared("token", id)
    }

    /// Lets the cache answer in time, and notes whether it did.
    async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, SharedCacheError>>,
    ) -> Result<T, SharedCacheError> {
        let over = self.clock.sleep(deadline);
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            () = over => Err(SharedCacheError { reason: format!("no answer within {deadline:?}") }),
        };
        let now = self.clock.now().boot;
        match &answer {
            Ok(_) => {
                self.state().failures = 0;
                self.condition.well(now);
            }
            Err(error) => {
                self.metrics.l2_errors.inc();
                let mut state = self.state();
                let rest = REST.saturating_mul(1 << state.failures.min(5)).min(LONGEST_REST);
                state.failures = state.failures.saturating_add(1);
                state.rest_until = now + rest;
                drop(state);
                self.condition.lost(now, error);
                self.trouble.notify_one();
            }
        }
        answer
    }

    fn rests(&self, now: Boot) -> bool {
        now < self.state().rest_until
    }

    fn owe(&self, now: Boot) {
        let mut state = self.state();
        let (since, losses) = state.owed.map_or((now, 0), |owed| (owed.since, owed.losses + 1));
        state.owed = Some(Owed { since, losses });
        drop(state);
        self.trouble.notify_one();
    }

    /// Waits until the cache is in trouble, then until it answers again; says what is owed to it by then.
    pub(crate) async fn answers_again(&self) -> Option<Owed> {
        let cache = self.cache.as_ref()?;
        loop {
            let owed = self.state().owed;
            if owed.is_none() && self.condition.is_well() {
                self.trouble.notified().await;
                continue;
            }
            let rest_until = self.state().rest_until;
            self.clock.sleep_until(rest_until).await;
            if self.within(WRITE_DEADLINE, cache.ping()).await.is_ok() && owed.is_some() {
                return owed;
            }
        }
    }

    /// The floors of all that was changed since `owed` was said were raised.
    pub(crate) fn paid(&self, owed: Owed) {
        let mut state = self.state();
        if state.owed.is_some_and(|now| now.losses == owed.losses) {
            state.owed = None;
        }
    }

    /// Whether there is one at all, and it answers.
    pub(crate) fn part(&self) -> crate::Part {
        match &self.cache {
            None => crate::Part::None,
            Some(_) if self.condition.is_well() => crate::Part::Ok,
            Some(_) => crate::Part::Unavailable,
        }
    }
}
