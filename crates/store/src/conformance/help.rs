//! What the cases share.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokenkeep_core::{
    Tenant,
    ports::{Expect, Filter, Kind, Put, Query, Record, RecordKey, Scope, SealingKeyId, Store, Version},
};
use tokio::sync::Barrier;

use super::Stop;

/// Ends the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Stop::Failed(format!($($what)+)));
        }
    };
}

/// Ends the case unless both are equal.
macro_rules! ensure_eq {
    ($found:expr, $wanted:expr, $($what:tt)+) => {
        // A match, so that what the arguments borrow from lives long enough.
        match (&$found, &$wanted) {
            (found, wanted) => {
                ensure!(found == wanted, "{}: expected {wanted:?}, found {found:?}", format_args!($($what)+));
            }
        }
    };
}

pub(super) use {ensure, ensure_eq};

/// That many seconds into the tests' own epoch.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + seconds)
}

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("the suite's tenants are valid")
}

/// A connection's record in the default tenant that never expires and is never due.
pub(super) fn record(id: &str) -> Record {
    Record {
        key: RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: id.into() },
        version: Version::default(),
        changed_at: at(0),
        expires_at: None,
        due_at: None,
        labels: Vec::new(),
        sealed_by: SealingKeyId("k1".into()),
        sealed: id.as_bytes().to_vec(),
        deleted: false,
    }
}

/// All connections of every tenant that `filter` lets through, in pages of ten.
pub(super) fn query(filter: Filter) -> Query {
    Query { scope: Scope::Every, kind: Kind::Connection, filter, limit: 10, cursor: None }
}

/// The version under which the write was committed.
pub(super) fn committed(put: Put) -> Result<Version, Stop> {
    match put {
        Put::Committed(version) => Ok(version),
        other => Err(Stop::Failed(format!("a write that nothing stood against ended as {other:?}"))),
    }
}

/// Puts a record where none is.
pub(super) async fn create(store: &Arc<dyn Store>, record: &Record) -> Result<Version, Stop> {
    committed(store.put(record, Expect::Absent).await?)
}

/// What is there, and must be.
pub(super) async fn read(store: &Arc<dyn Store>, key: &RecordKey) -> Result<Record, Stop> {
    store.get(key).await?.ok_or_else(|| Stop::Failed(format!("{key:?} is gone")))
}

/// Everything `query` lists, over all pages.
pub(super) async fn list(store: &Arc<dyn Store>, query: &Query) -> Result<Vec<Record>, Stop> {
    let mut query = query.clone();
    let mut records = Vec::new();
    // A store that never ends its list fails the case, it does not hang it.
    for _ in 0..1000 {
        let page = store.list(&query).await?;
        ensure!(page.records.len() <= query.limit.max(1) as usize, "a page holds more than it may");
        records.extend(page.records);
        match page.next {
            None => return Ok(records),
            next => query.cursor = next,
        }
    }
    Err(Stop::Failed("the list has no end".into()))
}

/// The ids that `query` lists, sorted, repeated ones repeated.
pub(super) async fn ids(store: &Arc<dyn Store>, query: &Query) -> Result<Vec<String>, Stop> {
    let mut ids: Vec<_> = list(store, query).await?.into_iter().map(|r| r.key.id).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Runs `count` futures at once, each a task of its own that starts when all are there, and gathers what they return.
pub(super) async fn at_once<T, F>(count: usize, mut task: impl FnMut(usize) -> F) -> Result<Vec<T>, Stop>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Stop>> + Send + 'static,
{
    let start = Arc::new(Barrier::new(count));
    let mut begin = |n| {
        let (start, work) = (start.clone(), task(n));
        tokio::spawn(async move {
            start.wait().await;
            work.await
        })
    };
    let tasks: Vec<_> = (0..count).map(&mut begin).collect();
    let mut results = Vec::with_capacity(count);
    for task in tasks {
        results.push(task.await.map_err(|e| Stop::Failed(format!("a task of the case ended early: {e}")))??);
    }
    Ok(results)
}
