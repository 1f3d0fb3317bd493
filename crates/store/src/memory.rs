//! A store in this process.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use tokenkeep_core::ports::{
    BoxFuture, Count, Expect, Kind, Page, Put, Query, Reach, Record, RecordKey, Store, StoreDescription, StoreError,
    Version,
};

use crate::records::{self, Records};

/// Everything in one map, gone with the process. For tests and trials: lists and claims look at every record of their
/// kind.
#[derive(Default)]
pub struct Memory {
    // Never held across an await, so it need not be tokio's.
    records: Mutex<Records>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // Nothing panics between two changes that belong together, so what a panicking thread left is whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("records", &self.records().len()).finish()
    }
}

impl Store for Memory {
    fn describe(&self) -> StoreDescription {
        StoreDescription {
            name: "memory",
            location: "this process".into(),
            durable: false,
            reach: Reach::Process,
            may_roll_back: false,
        }
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move { Ok(self.records().get(key).cloned()) })
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move { Ok(self.records().replace(records::alive(record, next_version()), expect)) })
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        let tombstone = records::tombstone(tombstone, keep_until, next_version());
        Box::pin(async move { Ok(self.records().replace(tombstone, Expect::Version(version))) })
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move { Ok(self.records().list(query)) })
    }

    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(async move { Ok(self.records().claim(kind, due_before, limit, until)) })
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move { Ok(self.records().count(query)) })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { Ok(self.records().sweep(now)) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

/// One counter for all stores of the process: a version of one never matches in another.
fn next_version() -> Version {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Version(format!("m{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}
