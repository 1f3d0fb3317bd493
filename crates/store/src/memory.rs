//! A store in this process.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use tokenkeep_core::ports::{
    BoxFuture, Count, Expect, Filter, Kind, LabelName, Page, Put, Query, Reach, Record, RecordKey, Scope, Store,
    StoreDescription, StoreError, Version,
};

use crate::page::{self, Start, from_microseconds};

/// Everything in one map, gone with the process. For tests and trials: lists and claims look at every record of their
/// kind.
#[derive(Default)]
pub struct Memory {
    // Never held across an await, so it need not be tokio's.
    records: Mutex<BTreeMap<Place, Record>>,
}

/// Ordered as lists are: kind, tenant, id.
type Place = (Kind, String, String);

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<Place, Record>> {
        // Nothing panics between two changes that belong together, so what a panicking thread left is whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, mut record: Record, expect: Expect<'_>) -> Put {
        let mut records = self.records();
        let there = records.get(&place(&record.key));
        let matches = match expect {
            Expect::Absent => there.is_none_or(|r| r.deleted),
            Expect::Version(version) => there.is_some_and(|r| r.version == *version),
        };
        if !matches {
            return Put::Conflict;
        }
        record.version = next_version();
        let version = record.version.clone();
        records.insert(place(&record.key), record);
        Put::Committed(version)
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
        Box::pin(async move { Ok(self.records().get(&place(key)).cloned()) })
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move { Ok(self.replace(as_kept(record), expect)) })
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        let tombstone = Record {
            expires_at: Some(to_the_microsecond(keep_until)),
            due_at: None,
            labels: Vec::new(),
            deleted: true,
            ..as_kept(tombstone)
        };
        Box::pin(async move { Ok(self.replace(tombstone, Expect::Version(version))) })
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let start = match Start::of(query) {
                Start::First => first(query.kind),
                Start::After(at) => Bound::Excluded((query.kind, at.tenant.to_owned(), at.id.to_owned())),
                Start::Nowhere => return Ok(Page::default()),
            };
            let size = page::size(query);
            let records = self.records();
            let found = of_kind(&records, query.kind, start).filter(|r| is_listed(r, query));
            Ok(page::cut(found.take(size.saturating_add(1)).cloned().collect(), size))
        })
    }

    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            let due_before = to_the_microsecond(due_before);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut records = self.records();
            let mut due: Vec<(Timestamp, RecordKey)> = of_kind(&records, kind, first(kind))
                .filter_map(|r| Some((r.due_at.filter(|at| *at <= due_before)?, r.key.clone())))
                .collect();
            due.sort_unstable();
            due.truncate(limit);
            let claimed = due.into_iter().filter_map(|(_, key)| {
                let record = records.get_mut(&place(&key))?;
                record.due_at = Some(to_the_microsecond(until));
                Some(record.clone())
            });
            Ok(claimed.collect())
        })
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move {
            let records = self.records();
            let count = of_kind(&records, query.kind, first(query.kind)).filter(|r| is_listed(r, query)).count();
            Ok(Count::Exact(count as u64))
        })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let now = to_the_microsecond(now);
            let mut records = self.records();
            let before = records.len();
            records.retain(|_, r| r.expires_at.is_none_or(|at| at > now));
            Ok((before - records.len()) as u64)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

fn place(key: &RecordKey) -> Place {
    (key.kind, key.tenant.as_str().to_owned(), key.id.clone())
}

/// One counter for all stores of the process: a version of one never matches in another.
fn next_version() -> Version {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Version(format!("m{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// `at` as it is kept.
fn to_the_microsecond(at: Timestamp) -> Timestamp {
    // Towards the epoch is never out of range, so the default is never taken.
    from_microseconds(at.as_microsecond()).unwrap_or(at)
}

fn as_kept(record: &Record) -> Record {
    let label = |name| record.labels.iter().find(|(n, _)| *n == name).cloned();
    Record {
        key: record.key.clone(),
        version: Version::default(),
        changed_at: to_the_microsecond(record.changed_at),
        expires_at: record.expires_at.map(to_the_microsecond),
        due_at: record.due_at.map(to_the_microsecond),
        labels: LabelName::ALL.into_iter().filter_map(label).collect(),
        sealed_by: record.sealed_by.clone(),
        sealed: record.sealed.clone(),
        deleted: false,
    }
}

fn first(kind: Kind) -> Bound<Place> {
    Bound::Included((kind, String::new(), String::new()))
}

fn of_kind(records: &BTreeMap<Place, Record>, kind: Kind, from: Bound<Place>) -> impl Iterator<Item = &Record> {
    records.range((from, Bound::Unbounded)).map(|(_, record)| record).take_while(move |r| r.key.kind == kind)
}

fn is_listed(record: &Record, query: &Query) -> bool {
    let in_scope = match &query.scope {
        Scope::Tenant(tenant) => record.key.tenant == *tenant,
        Scope::Every => true,
    };
    let at_or_before = |at: Option<Timestamp>, limit: Timestamp| at.is_some_and(|at| at <= to_the_microsecond(limit));
    in_scope
        && match &query.filter {
            Filter::ChangedSince(since) => record.changed_at >= to_the_microsecond(*since),
            Filter::SealedBy(key) => record.sealed_by == *key,
            _ if record.deleted => false,
            Filter::All => true,
            Filter::Label(name, value) => record.labels.iter().any(|(n, v)| n == name && v == value),
            Filter::DueBefore(limit) => at_or_before(record.due_at, *limit),
            Filter::ExpiresBetween(from, to) => {
                record.expires_at.is_some_and(|at| to_the_microsecond(*from) <= at && at < to_the_microsecond(*to))
            }
        }
}
