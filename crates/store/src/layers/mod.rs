//! What may be wrapped around any store.
//!
//! A [`Layer`] sees every call to a store pass by: which operation it is, on which kind of record, and how it ended;
//! never whose record it is. [`Layered`] is the store with one layer around it.

mod metered;
mod traced;

use std::{fmt::Debug, sync::Arc};

use jiff::Timestamp;
pub use metered::{Metered, Metering, StoreMetrics};
use tokenkeep_core::ports::{
    BoxFuture, Count, Expect, Kind, Page, Put, Query, Record, RecordKey, Store, StoreDescription, StoreError, Version,
};
pub use traced::{Traced, Tracing};

/// What happens around the calls to a store.
pub trait Layer: Debug + Send + Sync {
    /// Around any call. A layer that does not await `future` keeps the call from being made.
    fn call<'a, T: Answer + 'a>(&'a self, call: Call, future: Pending<'a, T>) -> Pending<'a, T>;

    /// Around a conditional write; like any other call unless the layer says otherwise.
    fn write<'a>(&'a self, call: Call, future: Pending<'a, Put>) -> Pending<'a, Put> {
        self.call(call, future)
    }
}

/// The answer of a store, to come.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Which call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method of [`Store`].
    pub operation: &'static str,
    /// The kind of record, if it is for one kind.
    pub kind: Option<Kind>,
}

/// What a store answers if it answers.
pub trait Answer: Send {
    /// How the call ended, in one word: `ok` unless there is more to say.
    fn outcome(&self) -> &'static str {
        "ok"
    }
}

impl Answer for () {}
impl Answer for u64 {}
impl Answer for Count {}
impl Answer for Page {}
impl Answer for Vec<Record> {}
impl Answer for Option<Record> {
    fn outcome(&self) -> &'static str {
        if self.is_some() { "ok" } else { "absent" }
    }
}
impl Answer for Put {
    fn outcome(&self) -> &'static str {
        match self {
            Put::Committed(_) => "ok",
            Put::Conflict => "conflict",
            Put::Unknown => "unknown",
        }
    }
}

/// How a call ended, in one word.
fn outcome<T: Answer>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(answer) => answer.outcome(),
        Err(StoreError::Unavailable { .. }) => "unavailable",
        Err(StoreError::Corrupt { .. }) => "corrupt",
    }
}

/// A store with a layer around it.
#[derive(Clone, Debug)]
pub struct Layered<L> {
    inner: Arc<dyn Store>,
    layer: L,
}

impl<L: Layer> Layered<L> {
    /// `inner` with `layer` around it.
    pub fn around(inner: Arc<dyn Store>, layer: L) -> Self {
        Self { inner, layer }
    }
}

impl<L: Layer> Store for Layered<L> {
    fn describe(&self) -> StoreDescription {
        self.inner.describe()
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> Pending<'a, Option<Record>> {
        self.layer.call(Call { operation: "get", kind: Some(key.kind) }, self.inner.get(key))
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> Pending<'a, Put> {
        self.layer.write(Call { operation: "put", kind: Some(record.key.kind) }, self.inner.put(record, expect))
    }

    fn delete<'a>(&'a self, tombstone: &'a Record, version: &'a Version, keep_until: Timestamp) -> Pending<'a, Put> {
        let call = Call { operation: "delete", kind: Some(tombstone.key.kind) };
        self.layer.write(call, self.inner.delete(tombstone, version, keep_until))
    }

    fn list<'a>(&'a self, query: &'a Query) -> Pending<'a, Page> {
        self.layer.call(Call { operation: "list", kind: Some(query.kind) }, self.inner.list(query))
    }

    fn claim(&self, kind: Kind, due_before: Timestamp, limit: u32, until: Timestamp) -> Pending<'_, Vec<Record>> {
        let call = Call { operation: "claim", kind: Some(kind) };
        self.layer.call(call, self.inner.claim(kind, due_before, limit, until))
    }

    fn count<'a>(&'a self, query: &'a Query) -> Pending<'a, Count> {
        self.layer.call(Call { operation: "count", kind: Some(query.kind) }, self.inner.count(query))
    }

    fn sweep(&self, now: Timestamp) -> Pending<'_, u64> {
        self.layer.call(Call { operation: "sweep", kind: None }, self.inner.sweep(now))
    }

    fn ping(&self) -> Pending<'_, ()> {
        self.layer.call(Call { operation: "ping", kind: None }, self.inner.ping())
    }
}
