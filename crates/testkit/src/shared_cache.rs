use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokenkeep_core::{
    Boot,
    ports::{BoxFuture, Clock, SharedCache, SharedCacheDescription, SharedCacheError},
};
use tokio::sync::watch;

use crate::ManualClock;

/// A [`SharedCache`] in memory that goes down, hangs and forgets as the test says. Clones are the same cache.
#[derive(Clone, Debug)]
pub struct MemoryCache {
    clock: ManualClock,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct Slot {
    rank: u64,
    /// `None` = a floor.
    copy: Option<Vec<u8>>,
    until: Boot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Hanging,
}

impl MemoryCache {
    /// Empty, and up. Lives are judged by `clock`.
    pub fn new(clock: &ManualClock) -> Self {
        Self { clock: clock.clone(), slots: Arc::default(), state: watch::Sender::new(State::Up) }
    }

    /// From now on every call fails. What is in it stays.
    pub fn go_down(&self) {
        self.state.send_replace(State::Down);
    }

    /// From now on no call is answered until it is up again.
    pub fn hang(&self) {
        self.state.send_replace(State::Hanging);
    }

    /// Answers again.
    pub fn come_up(&self) {
        self.state.send_replace(State::Up);
    }

    /// Forgets everything, floors too.
    pub fn empty(&self) {
        self.slots().clear();
    }

    /// The keys of all copies that live, in order.
    pub fn keys(&self) -> Vec<String> {
        let now = self.clock.now().boot;
        let slots = self.slots();
        let mut keys: Vec<_> =
            slots.iter().filter(|(_, s)| s.copy.is_some() && now < s.until).map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    }

    /// What lies under `key`, sealed as it is.
    pub fn sealed(&self, key: &str) -> Option<Vec<u8>> {
        self.slots().get(key)?.copy.clone()
    }

    /// Puts any bytes under `key`, as whoever has access to the cache can.
    pub fn inject(&self, key: &str, rank: u64, sealed: &[u8]) {
        let until = self.clock.now().boot + Duration::from_hours(1);
        self.slots().insert(key.to_owned(), Slot { rank, copy: Some(sealed.to_vec()), until });
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn up(&self) -> Result<(), SharedCacheError> {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so this ends only by a state.
        let state = state.wait_for(|state| *state != State::Hanging).await.map(|state| *state);
        match state {
            Ok(State::Up) => Ok(()),
            _ => Err(SharedCacheError { reason: "switched off".to_owned() }),
        }
    }

    /// Whether `rank` may stand under `key` now; a floor of the same rank gives way to a copy.
    fn yields(&self, slots: &HashMap<String, Slot>, key: &str, rank: u64) -> bool {
        slots.get(key).is_none_or(|slot| self.clock.now().boot >= slot.until || slot.rank <= rank)
    }
}

impl SharedCache for MemoryCache {
    fn describe(&self) -> SharedCacheDescription {
        SharedCacheDescription { name: "memory", location: "this process".to_owned() }
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, SharedCacheError>> {
        Box::pin(async move {
            self.up().await?;
            let now = self.clock.now().boot;
            Ok(self.slots().get(key).filter(|slot| now < slot.until).and_then(|slot| slot.copy.clone()))
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        rank: u64,
        sealed: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, SharedCacheError>> {
        Box::pin(async move {
            self.up().await?;
            let mut slots = self.slots();
            let yields = self.yields(&slots, key, rank);
            if yields {
                let until = self.clock.now().boot + life;
                slots.insert(key.to_owned(), Slot { rank, copy: Some(sealed.to_vec()), until });
            }
            Ok(yields)
        })
    }

    fn raise<'a>(&'a self, floors: &'a [(String, u64)], life: Duration) -> BoxFuture<'a, Result<(), SharedCacheError>> {
        Box::pin(async move {
            self.up().await?;
            let mut slots = self.slots();
            let until = self.clock.now().boot + life;
            for (key, rank) in floors {
                match slots.get_mut(key).filter(|slot| self.clock.now().boot < slot.until && slot.rank >= *rank) {
                    Some(floor) if floor.copy.is_none() => floor.until = floor.until.max(until),
                    Some(_) => {}
                    None => drop(slots.insert(key.clone(), Slot { rank: *rank, copy: None, until })),
                }
            }
            Ok(())
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SharedCacheError>> {
        Box::pin(self.up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn nothing_goes_below_a_floor_or_a_higher_rank() {
        let clock = ManualClock::default();
        let cache = MemoryCache::new(&clock);
        assert!(cache.put("a", 2, b"two", LIFE).await.unwrap());
        assert!(!cache.put("a", 1, b"one", LIFE).await.unwrap());
        assert_eq!(cache.get("a").await.unwrap().as_deref(), Some(&b"two"[..]));
        cache.raise(&[("a".to_owned(), 2)], LIFE).await.unwrap();
        assert_eq!(cache.get("a").await.unwrap().as_deref(), Some(&b"two"[..]), "it is of that rank");
        cache.raise(&[("a".to_owned(), 3)], LIFE).await.unwrap();
        assert_eq!(cache.get("a").await.unwrap(), None);
        assert!(!cache.put("a", 2, b"two", LIFE).await.unwrap());
        assert!(cache.put("a", 3, b"three", LIFE).await.unwrap(), "a floor of the same rank gives way");
        clock.advance(LIFE);
        assert_eq!(cache.get("a").await.unwrap(), None);
        assert!(cache.put("a", 1, b"one", LIFE).await.unwrap());
        cache.go_down();
        assert!(cache.get("a").await.is_err() && cache.ping().await.is_err());
    }
}
