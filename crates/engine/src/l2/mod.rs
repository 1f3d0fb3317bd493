//! L2: sealed copies of tokens that instances leave for each other in the shared cache.
//!
//! A copy is believed only while the bus tells of every change, and only if nothing younger was told of. So it does
//! not matter what becomes of the cache: what is outdated in it is known to be. Nothing ever waits for a cache that
//! does not answer: after a failure it is left alone for a while.

mod floors;

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

use self::floors::Floors;

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
/// How many changes are remembered: a thousand in every second, and sixteen megabytes then.
const MOST_FLOORS: usize = 330_000;
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
    floors: Floors,
}

impl L2 {
    pub(crate) fn new(
        cache: Option<Arc<dyn SharedCache>>,
        records: Records,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        condition: Arc<Condition>,
        lease: Arc<Lease>,
    ) -> Self {
        let started = clock.now().boot;
        let floors = Floors::new(LIFE + SKEW, MOST_FLOORS);
        let state = Mutex::new(State { failures: 0, rest_until: started, floors });
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
        if !self.lease.holds(now.boot) || self.rests(now.boot) {
            return None;
        }
        let key = self.key(id);
        let copy = self.within(READ_DEADLINE, cache.get(&key)).await.ok()?;
        let copy = copy.and_then(|sealed| self.open(id, &sealed, now.wall));
        let copy = copy.filter(|copy| self.state().floors.admit(id, copy.generation, now.boot));
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

    /// Leaves a copy of what the store showed. It does not matter if that fails.
    pub(crate) async fn fill(&self, connection: &Connection) {
        let now = self.clock.now().boot;
        if self.lease.holds(now) && !self.rests(now) {
            let _ = self.put(connection).await;
        }
    }

    /// `connection` was changed here: its copy takes the place of every older one. If it cannot, nobody who reads
    /// copies believes the older one: they are told of the change.
    pub(crate) async fn changed(&self, connection: &Connection) {
        if connection.tokens.access.is_none() {
            self.raise(&connection.id, connection.generation).await;
        } else if !self.rests(self.clock.now().boot) {
            let _ = self.put(connection).await;
        }
    }

    /// Takes copies below `floor` away, and lets none in again.
    pub(crate) async fn raise(&self, id: &ConnectionId, floor: Generation) {
        let Some(cache) = &self.cache else { return };
        if !self.rests(self.clock.now().boot) {
            let _ = self.within(WRITE_DEADLINE, cache.raise(&[(self.key(id), floor.0)], LIFE)).await;
        }
    }

    /// This instance was told that `id` changed: it believes no copy below `floor` any more.
    pub(crate) fn told(&self, id: &ConnectionId, floor: Generation) {
        if self.cache.is_some() {
            let now = self.clock.now().boot;
            self.state().floors.raise(id, floor, now);
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

    /// Asks a cache that failed now and then whether it is back, for ever: there may be nobody else who asks.
    pub(crate) async fn watch(&self) {
        let Some(cache) = &self.cache else { return };
        loop {
            if self.condition.is_well() {
                self.trouble.notified().await;
            }
            let rest_until = self.state().rest_until;
            self.clock.sleep_until(rest_until).await;
            let _ = self.within(WRITE_DEADLINE, cache.ping()).await;
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
