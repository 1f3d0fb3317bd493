//! Records: typed values over the store, sealed by the barrier.

mod aggregate;
mod api_key;
mod authorization_request;
mod client;
mod connection;
mod copy;
mod grant;
mod held;
mod instance;
mod integration;
mod interaction;
mod signing_keys;
mod voided;
mod wire;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    Boot,
    ports::{
        Clock, Cursor, Expect, Filter, LabelName, Put, Query, Record, RecordKey, Scope, SealingKeyId, Store,
        StoreError, Version,
    },
    time::after,
};

pub use aggregate::{Aggregate, DecodeError, Labels};
pub(crate) use connection::CLAIM;
pub(crate) use copy::TokenCopy;
pub use held::{decode_held, encode_held};

use crate::{
    barrier::{Barrier, OpenError, Place},
    conditions::Condition,
};

/// How long a tombstone is kept. Longer than anything that could bring the deleted back: journal entries, cached
/// copies, another instance's memory.
pub const TOMBSTONE_LIFE: Duration = Duration::from_hours(30 * 24);

/// A refused write says something about the store for so long.
const REFUSAL_COUNTS: Duration = Duration::from_mins(1);

/// Reads and writes aggregates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Records {
    store: Arc<dyn Store>,
    barrier: Arc<Barrier>,
    clock: Arc<dyn Clock>,
    hash_subjects: bool,
    refusal: Arc<Mutex<Option<Boot>>>,
    watched: Option<Watched>,
}

/// Who is told how the store's answers stand.
#[derive(Clone, Debug)]
struct Watched {
    reads: Arc<Condition>,
    writes: Arc<Condition>,
}

/// What a read showed.
#[derive(Clone, Debug)]
pub enum Loaded<T: Aggregate> {
    /// There is nothing, not even a tombstone.
    Absent,
    /// It was deleted.
    Deleted(Tombstone<T>),
    /// It is there.
    Live(Stored<T>),
}

/// A value that is there.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    /// The value.
    pub value: T,
    /// The write that made it.
    pub version: Version,
    /// When somebody should look at it.
    pub due_at: Option<Timestamp>,
    /// When its writer wrote it, by the writer's clock.
    pub changed_at: Timestamp,
    /// Which key sealed it.
    pub sealed_by: SealingKeyId,
}

/// What stands in the place of a deleted value.
#[derive(Clone, Debug)]
pub struct Tombstone<T: Aggregate> {
    /// What is remembered of it.
    pub remembered: T::Remembered,
    /// The write that made it.
    pub version: Version,
}

/// One record of a list. A record that cannot be read is there all the same.
#[derive(Debug)]
pub struct Item<T: Aggregate> {
    /// Where it stands.
    pub key: RecordKey,
    /// Its value (never [`Loaded::Absent`]), or why it cannot be read.
    pub content: Result<Loaded<T>, Unreadable>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Listed<T: Aggregate> {
    /// The records, in the store's order.
    pub items: Vec<Item<T>>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<Cursor>,
}

/// Why a record is no value. It is not absent: nothing may be put in its place unasked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It does not open.
    #[error("a record does not open")]
    Sealed(#[source] OpenError),
    /// It opens, but its content is not what we write.
    #[error("a record holds something else than we write")]
    Content(#[source] DecodeError),
}

/// Why a read brought nothing. Neither says that there is nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store did not answer. Try again later.
    #[error("the store did not answer")]
    Store(#[source] StoreError),
    /// The record is there, and cannot be read. Trying again will not help.
    #[error("the {} record {}/{} cannot be read", key.kind.as_str(), key.tenant, key.id)]
    Unreadable {
        /// Which record.
        key: RecordKey,
        /// Why not.
        #[source]
        why: Unreadable,
    },
}

impl From<StoreError> for RecordError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a tombstone holds. The store knows it for one only by a flag that nothing proves; in this form it cannot be
/// taken for a live value, nor a live value for it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remains<R> {
    remembered: R,
}

impl Records {
    /// `hash_subjects`: whether labels that name a person are hashed (`[store] hash_labels`).
    pub fn new(store: Arc<dyn Store>, barrier: Arc<Barrier>, clock: Arc<dyn Clock>, hash_subjects: bool) -> Self {
        Self { store, barrier, clock, hash_subjects, refusal: Arc::default(), watched: None }
    }

    /// Tells `reads` and `writes` from now on how the store answers.
    pub(crate) fn watched(self, reads: Arc<Condition>, writes: Arc<Condition>) -> Self {
        Self { watched: Some(Watched { reads, writes }), ..self }
    }

    /// Whether the store is the one for development that keeps nothing: what rotates has nowhere to go.
    pub(crate) fn is_fleeting(&self) -> bool {
        let store = self.store.describe();
        store.name == "env" && !store.durable
    }

    /// How label values are written, for [`Filter::Label`].
    pub fn labels(&self) -> Labels<'_> {
        Labels { hashes: self.barrier.hashes(), hash_subjects: self.hash_subjects }
    }

    /// The barrier in between.
    pub fn barrier(&self) -> &Arc<Barrier> {
        &self.barrier
    }

    /// The store below: for counting, sweeping and health.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads one.
    pub async fn load<T: Aggregate>(&self, id: &T::Id) -> Result<Loaded<T>, RecordError> {
        let key = T::key_of(id);
        match self.asked(self.store.get(&key).await)? {
            None => Ok(Loaded::Absent),
            Some(record) => self.read(record).map_err(|why| RecordError::Unreadable { key, why }),
        }
    }

    /// Writes one if what is there matches `expect`.
    pub async fn save<T: Aggregate>(
        &self,
        value: &T,
        timing: T::Timing,
        expect: Expect<'_>,
    ) -> Result<Put, StoreError> {
        let mut labels = value.labels(&self.labels());
        labels.sort();
        let record = Record {
            expires_at: value.expires_at(),
            due_at: value.due_at(timing),
            labels,
            ..self.seal(T::key_of(value.id()), &value.encode())
        };
        self.noted(self.store.put(&record, expect).await)
    }

    /// Puts a tombstone in the place of the record of `version`. It is kept for [`TOMBSTONE_LIFE`].
    pub async fn delete<T: Aggregate>(
        &self,
        id: &T::Id,
        version: &Version,
        remembered: &T::Remembered,
    ) -> Result<Put, StoreError> {
        let keep_until = after(self.clock.now().wall, TOMBSTONE_LIFE);
        let tombstone = Record {
            expires_at: Some(keep_until),
            deleted: true,
            ..self.seal(T::key_of(id), &wire::encode(&Remains { remembered }))
        };
        self.noted(self.store.delete(&tombstone, version, keep_until).await)
    }

    /// Whether the store refused the last write, less than a minute ago: it may well answer reads all the while.
    pub fn refuses_writes(&self) -> bool {
        let now = self.clock.now().boot;
        self.refusal().is_some_and(|at| now.since(at) < REFUSAL_COUNTS)
    }

    fn noted(&self, written: Result<Put, StoreError>) -> Result<Put, StoreError> {
        let now = self.clock.now().boot;
        *self.refusal() = written.is_err().then_some(now);
        if let Some(watched) = &self.watched {
            note(&watched.writes, &written, now);
        }
        written
    }

    /// Notes whether the store answers.
    pub(crate) fn asked<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(watched) = &self.watched {
            note(&watched.reads, &answer, self.clock.now().boot);
        }
        answer
    }

    fn refusal(&self) -> MutexGuard<'_, Option<Boot>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One page of records. Tombstones are listed with [`Filter::ChangedSince`] only.
    pub async fn list<T: Aggregate>(
        &self,
        scope: Scope,
        filter: Filter,
        limit: u32,
        cursor: Option<Cursor>,
    ) -> Result<Listed<T>, StoreError> {
        let query = Query { scope, kind: T::KIND, filter, limit, cursor };
        let page = self.asked(self.store.list(&query).await)?;
        Ok(Listed { items: self.items(page.records), next: page.next })
    }

    /// Hands out up to `limit` records due at or before `due_before` and moves their due time to `until`.
    pub async fn claim<T: Aggregate>(
        &self,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> Result<Vec<Item<T>>, StoreError> {
        Ok(self.items(self.asked(self.store.claim(T::KIND, due_before, limit, until).await)?))
    }

    /// A filter for the grants of `client`.
    pub fn of_client(&self, client: &tokenkeep_core::ClientId) -> Filter {
        Filter::Label(LabelName::Provider, self.labels().client(client))
    }

    /// A filter for what rests on `connection`.
    pub fn of_connection(&self, connection: &tokenkeep_core::ConnectionId) -> Filter {
        Filter::Label(LabelName::Connection, self.labels().connection(connection))
    }

    /// A filter for the connections of `subject`, as this installation labels them.
    pub fn of_subject(&self, subject: &tokenkeep_core::Subject) -> Filter {
        Filter::Label(LabelName::Subject, self.labels().subject(subject))
    }

    fn items<T: Aggregate>(&self, records: Vec<Record>) -> Vec<Item<T>> {
        records.into_iter().map(|record| Item { key: record.key.clone(), content: self.read(record) }).collect()
    }

    fn seal(&self, key: RecordKey, plain: &[u8]) -> Record {
        Record {
            sealed: self.barrier.seal(Place::Store, &key, plain),
            sealed_by: self.barrier.key_id(),
            key,
            version: Version::default(),
            changed_at: self.clock.now().wall,
            expires_at: None,
            due_at: None,
            labels: Vec::new(),
            deleted: false,
        }
    }

    fn read<T: Aggregate>(&self, record: Record) -> Result<Loaded<T>, Unreadable> {
        let plain = self.barrier.open(Place::Store, &record.key, &record.sealed).map_err(Unreadable::Sealed)?;
        let Record { version, due_at, changed_at, sealed_by, .. } = record;
        if record.deleted {
            let Remains { remembered } = wire::decode(&plain).map_err(Unreadable::Content)?;
            return Ok(Loaded::Deleted(Tombstone { remembered, version }));
        }
        let value = T::decode(&plain).map_err(Unreadable::Content)?;
        if T::key_of(value.id()) != record.key {
            return Err(Unreadable::Content(DecodeError::Misplaced));
        }
        Ok(Loaded::Live(Stored { value, version, due_at, changed_at, sealed_by }))
    }
}

/// A store that returns something strange has answered.
fn note<T>(condition: &Condition, answer: &Result<T, StoreError>, now: Boot) {
    match answer {
        Ok(_) => condition.well(now),
        Err(error @ StoreError::Unavailable { .. }) => condition.lost(now, error),
        Err(StoreError::Corrupt { .. }) => {}
    }
}

#[cfg(test)]
pub(crate) mod tests;
