//! Records in one map: what a store does that has no database to do it.

use std::{collections::BTreeMap, ops::Bound};

use jiff::Timestamp;
use tokenkeep_core::ports::{
    Count, Expect, Filter, Kind, LabelName, Page, Put, Query, Record, RecordKey, Scope, Version,
};

use crate::page::{self, Start, from_microseconds};

/// Every record, ordered as lists are: kind, tenant, id. Lists and claims look at every record of their kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(BTreeMap<Place, Record>);

type Place = (Kind, String, String);

impl Records {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.0.get(&place(key))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.0.values()
    }

    /// Puts in a record as it is.
    pub(crate) fn insert(&mut self, record: Record) {
        self.0.insert(place(&record.key), record);
    }

    /// Puts in `record` under its version, if what is there matches.
    pub(crate) fn replace(&mut self, record: Record, expect: Expect<'_>) -> Put {
        if !matches(self.get(&record.key), expect) {
            return Put::Conflict;
        }
        let version = record.version.clone();
        self.insert(record);
        Put::Committed(version)
    }

    pub(crate) fn list(&self, query: &Query) -> Page {
        let start = match Start::of(query) {
            Start::First => first(query.kind),
            Start::After(at) => Bound::Excluded((query.kind, at.tenant.to_owned(), at.id.to_owned())),
            Start::Nowhere => return Page::default(),
        };
        let size = page::size(query);
        let found = self.of_kind(query.kind, start).filter(|r| is_listed(r, query));
        page::cut(found.take(size.saturating_add(1)).cloned().collect(), size)
    }

    pub(crate) fn claim(&mut self, kind: Kind, due_before: Timestamp, limit: u32, until: Timestamp) -> Vec<Record> {
        let due_before = to_the_microsecond(due_before);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut due: Vec<(Timestamp, RecordKey)> = self
            .of_kind(kind, first(kind))
            .filter_map(|r| Some((r.due_at.filter(|at| *at <= due_before)?, r.key.clone())))
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        let claimed = due.into_iter().filter_map(|(_, key)| {
            let record = self.0.get_mut(&place(&key))?;
            record.due_at = Some(to_the_microsecond(until));
            Some(record.clone())
        });
        claimed.collect()
    }

    pub(crate) fn count(&self, query: &Query) -> Count {
        let count = self.of_kind(query.kind, first(query.kind)).filter(|r| is_listed(r, query)).count();
        Count::Exact(count as u64)
    }

    pub(crate) fn sweep(&mut self, now: Timestamp) -> u64 {
        let before = self.len();
        self.0.retain(|_, r| !is_expired(r, now));
        (before - self.len()) as u64
    }

    fn of_kind(&self, kind: Kind, from: Bound<Place>) -> impl Iterator<Item = &Record> {
        self.0.range((from, Bound::Unbounded)).map(|(_, record)| record).take_while(move |r| r.key.kind == kind)
    }
}

/// Whether a write that expects `expect` may replace what is `there`.
pub(crate) fn matches(there: Option<&Record>, expect: Expect<'_>) -> bool {
    match expect {
        Expect::Absent => there.is_none_or(|r| r.deleted),
        Expect::Version(version) => there.is_some_and(|r| r.version == *version),
    }
}

/// Whether `query` is for this record, wherever its pages begin.
pub(crate) fn is_listed(record: &Record, query: &Query) -> bool {
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

/// Whether a sweep at `now` takes it.
pub(crate) fn is_expired(record: &Record, now: Timestamp) -> bool {
    record.expires_at.is_some_and(|at| at <= to_the_microsecond(now))
}

/// A living record as it is kept, under `version`.
pub(crate) fn alive(record: &Record, version: Version) -> Record {
    let label = |name| record.labels.iter().find(|(n, _)| *n == name).cloned();
    Record {
        key: record.key.clone(),
        version,
        changed_at: to_the_microsecond(record.changed_at),
        expires_at: record.expires_at.map(to_the_microsecond),
        due_at: record.due_at.map(to_the_microsecond),
        labels: LabelName::ALL.into_iter().filter_map(label).collect(),
        sealed_by: record.sealed_by.clone(),
        sealed: record.sealed.clone(),
        deleted: false,
    }
}

/// A tombstone as it is kept, under `version`.
pub(crate) fn tombstone(record: &Record, keep_until: Timestamp, version: Version) -> Record {
    Record {
        expires_at: Some(to_the_microsecond(keep_until)),
        due_at: None,
        labels: Vec::new(),
        deleted: true,
        ..alive(record, version)
    }
}

/// `at` as it is kept.
pub(crate) fn to_the_microsecond(at: Timestamp) -> Timestamp {
    // Towards the epoch is never out of range, so the default is never taken.
    from_microseconds(at.as_microsecond()).unwrap_or(at)
}

fn place(key: &RecordKey) -> Place {
    (key.kind, key.tenant.as_str().to_owned(), key.id.clone())
}

fn first(kind: Kind) -> Bound<Place> {
    Bound::Included((kind, String::new(), String::new()))
}
