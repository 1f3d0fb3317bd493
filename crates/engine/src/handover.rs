//! Replies that the store cannot take yet, handed over: a sealed copy in the shared cache for whoever comes next, and
//! a beacon on the bus for whoever else would spend again. Both may be lost at any time; neither is relied upon.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokenkeep_core::{
    AttemptId, Boot, Connection, ConnectionId, Generation,
    ports::{SharedCache, SharedCacheError},
    refresh::{Beacon, Heard, Held},
};

use crate::{
    barrier::{OpenError, Place},
    bus::Event,
    records::{Aggregate as _, DecodeError, decode_held, encode_held},
    shared::Shared,
};

/// As long as a journal keeps its entries.
const LIFE: Duration = Duration::from_hours(24);
/// A shared cache that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Beacons older than this say nothing any more, whatever the provider.
const BEACON_LIFE: Duration = Duration::from_mins(10);

/// Gives replies to other instances, takes them from others, and remembers who said that they have some.
#[derive(Debug)]
pub(crate) struct Handover {
    shared: Arc<Shared>,
    beacons: Mutex<Beacons>,
}

#[derive(Debug, Default)]
struct Beacons {
    last: HashMap<ConnectionId, Beacon>,
    swept: Boot,
}

/// Why a copy is as good as none, though there may be one.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Unavailable(#[from] SharedCacheError),
    #[error("the shared cache does not answer in time")]
    Late,
    #[error("a copy does not open")]
    Sealed(#[from] OpenError),
    #[error("a copy holds something else than we write")]
    Content(#[from] DecodeError),
}

impl Handover {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, beacons: Mutex::default() }
    }

    /// Leaves a copy of `held`, and tells the others.
    pub(crate) async fn share(&self, held: &Held) {
        let id = &held.successor.id;
        if let Some(cache) = &self.shared.copies {
            let sealed = self.shared.records.barrier().seal(Place::L2, &Connection::key_of(id), &encode_held(held));
            let (key, rank) = (self.key(id), held.successor.generation.0);
            if let Err(error) = self.in_time(cache.put(&key, rank, &sealed, LIFE)).await {
                tracing::warn!(integration = %id.integration, %error, "a reply that the store cannot take could not be shared");
            }
        }
        self.shared.bus.send(Event::Held { connection: id.clone(), attempt: held.attempt });
    }

    /// Drops the copy of the reply that made `generation`, or of an older one, and lets none of them in again.
    pub(crate) async fn withdraw(&self, id: &ConnectionId, generation: Generation) {
        let Some(cache) = &self.shared.copies else { return };
        let floor = [(self.key(id), generation.next().0)];
        if let Err(error) = self.in_time(cache.raise(&floor, LIFE)).await {
            // Whoever finds it sees that the record has moved on.
            tracing::debug!(integration = %id.integration, %error, "a copy that is not needed any more was left");
        }
    }

    /// The copy of a reply of `id` that somebody left. `Err` = there may be one.
    pub(crate) async fn seek(&self, id: &ConnectionId) -> Result<Option<Box<Held>>, ()> {
        let Some(cache) = &self.shared.copies else { return Ok(None) };
        self.read(&**cache, id).await.map_err(|error| {
            tracing::warn!(integration = %id.integration, %error, "whether a reply was shared cannot be seen");
        })
    }

    async fn read(&self, cache: &dyn SharedCache, id: &ConnectionId) -> Result<Option<Box<Held>>, CopyError> {
        let Some(sealed) = self.in_time(cache.get(&self.key(id))).await? else { return Ok(None) };
        let plain = self.shared.records.barrier().open(Place::L2, &Connection::key_of(id), &sealed)?;
        let held = decode_held(&plain)?;
        if held.successor.id != *id {
            return Err(DecodeError::Misplaced.into());
        }
        Ok(Some(Box::new(held)))
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, SharedCacheError>>) -> Result<T, CopyError> {
        let late = self.shared.clock.sleep(PATIENCE);
        tokio::select! {
            biased;
            answered = call => Ok(answered?),
            () = late => Err(CopyError::Late),
        }
    }

    fn key(&self, id: &ConnectionId) -> String {
        self.shared.records.labels().shared("held", id)
    }

    /// Another instance holds the reply to `attempt`.
    pub(crate) fn heard_beacon(&self, id: &ConnectionId, attempt: AttemptId) {
        let now = self.shared.now().boot;
        let mut beacons = self.beacons();
        if now.since(beacons.swept) >= BEACON_LIFE {
            beacons.last.retain(|_, beacon| now.since(beacon.at) < BEACON_LIFE);
            beacons.swept = now;
        }
        beacons.last.insert(id.clone(), Beacon { attempt, at: now });
    }

    /// What the bus told of `id` by now.
    pub(crate) fn heard(&self, id: &ConnectionId) -> Heard {
        Heard { beacon: self.beacons().last.get(id).copied(), listening: self.shared.bus.listening() }
    }

    fn beacons(&self) -> MutexGuard<'_, Beacons> {
        self.beacons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
