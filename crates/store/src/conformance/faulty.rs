//! Stores with one fault on purpose.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokenkeep_core::{
    ports::{
        BoxFuture, Count, Cursor, Expect, Filter, Kind, LabelName, Page, Put, Query, Record, RecordKey, Scope, Store,
        StoreDescription, StoreError, Version,
    },
    time::after,
};

/// What somebody who writes a store could get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Replaces whatever version is there.
    VersionIgnored,
    /// Checks the version in one step and writes in another.
    CheckedThenWritten,
    /// Makes the version from the content.
    VersionReused,
    /// Finds a record by the labels it was created with.
    LabelNotMoved,
    /// Lists and counts every tenant's records for one.
    TenantIgnored,
    /// Says how many it swept, and keeps them.
    ExpiredServed,
    /// Sweeps whatever expires at all.
    SweptEarly,
    /// Finds what is due in one step and moves it in another.
    ClaimTwice,
    /// Writes what it claims anew.
    ClaimChangesVersion,
    /// Says `none` when it cannot say.
    UnavailableAsAbsent,
    /// Lists tombstones among the living.
    TombstoneListed,
    /// Goes on after as many records as it has listed, not after the last of them.
    PagedByOffset,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 12] = [
        Fault::VersionIgnored,
        Fault::CheckedThenWritten,
        Fault::VersionReused,
        Fault::LabelNotMoved,
        Fault::TenantIgnored,
        Fault::ExpiredServed,
        Fault::SweptEarly,
        Fault::ClaimTwice,
        Fault::ClaimChangesVersion,
        Fault::UnavailableAsAbsent,
        Fault::TombstoneListed,
        Fault::PagedByOffset,
    ];

    /// The case that must catch it; others may as well.
    pub fn caught_by(self) -> &'static str {
        match self {
            Fault::VersionIgnored => "put_needs_the_version",
            Fault::CheckedThenWritten => "no_increment_is_lost",
            Fault::VersionReused => "versions_are_never_reused",
            Fault::LabelNotMoved => "labels_move_with_the_record",
            Fault::TenantIgnored => "tenants_do_not_see_each_other",
            Fault::ExpiredServed | Fault::SweptEarly => "sweep_goes_by_the_time_it_is_told",
            Fault::ClaimTwice => "nothing_is_claimed_twice",
            Fault::ClaimChangesVersion => "a_claim_leaves_the_version_alone",
            Fault::UnavailableAsAbsent => "an_outage_is_not_absence",
            Fault::TombstoneListed => "a_tombstone_is_in_no_list_but_two",
            Fault::PagedByOffset => "paging_is_steady_while_others_come_and_go",
        }
    }
}

/// An honest store, made dishonest in one way.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    fault: Fault,
    first_labels: Mutex<BTreeMap<RecordKey, Vec<(LabelName, String)>>>,
    /// How many calls are between two steps that should have been one.
    between: AtomicUsize,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl Faulty {
    /// `inner` with `fault`.
    pub fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        Self { inner, fault, first_labels: Mutex::default(), between: AtomicUsize::new(0) }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// `absent` instead of an outage, if that is the fault.
    fn hide<T>(&self, result: Result<T, StoreError>, absent: T) -> Result<T, StoreError> {
        match result {
            Err(StoreError::Unavailable { .. }) if self.has(Fault::UnavailableAsAbsent) => Ok(absent),
            result => result,
        }
    }

    /// The version to expect in place of `version`, so that the fault comes to pass.
    async fn twist(&self, key: &RecordKey, version: &Version) -> Result<Version, StoreError> {
        let there = || async { self.inner.get(key).await };
        Ok(match (self.fault, version) {
            (Fault::VersionIgnored, _) => there().await?.map_or_else(|| version.clone(), |r| r.version),
            (Fault::CheckedThenWritten, _) => match there().await? {
                Some(record) if record.version == *version => {
                    self.let_another_in().await;
                    there().await?.map_or_else(|| version.clone(), |r| r.version)
                }
                _ => version.clone(),
            },
            (Fault::VersionReused, _) => match there().await? {
                Some(record) if fingerprint(&record) == *version => record.version,
                _ => version.clone(),
            },
            _ => version.clone(),
        })
    }

    /// Waits between two steps that should have been one until another is there, too, or none seems to come.
    async fn let_another_in(&self) {
        self.between.fetch_add(1, Ordering::SeqCst);
        for _ in 0..10_000 {
            if self.between.load(Ordering::SeqCst) > 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.between.fetch_sub(1, Ordering::SeqCst);
    }

    fn as_told(&self, mut record: Record) -> Record {
        if self.has(Fault::VersionReused) {
            record.version = fingerprint(&record);
        }
        record
    }

    fn remember_labels(&self, record: &Record) {
        let mut first = self.first_labels.lock().unwrap_or_else(PoisonError::into_inner);
        first.entry(record.key.clone()).or_insert_with(|| record.labels.clone());
    }

    fn had_first(&self, record: &Record, name: LabelName, value: &str) -> bool {
        let first = self.first_labels.lock().unwrap_or_else(PoisonError::into_inner);
        first.get(&record.key).is_some_and(|labels| labels.iter().any(|(n, v)| *n == name && v == value))
    }

    async fn list_faultily(&self, query: &Query) -> Result<Page, StoreError> {
        let mut asked = query.clone();
        match (self.fault, &query.filter) {
            (Fault::TenantIgnored, _) => asked.scope = Scope::Every,
            (Fault::TombstoneListed, Filter::All) => asked.filter = Filter::ChangedSince(Timestamp::MIN),
            (Fault::LabelNotMoved, Filter::Label(name, value)) => {
                asked.filter = Filter::All;
                let mut page = self.inner.list(&asked).await?;
                page.records.retain(|record| self.had_first(record, *name, value));
                return Ok(page);
            }
            (Fault::PagedByOffset, _) => return self.list_by_offset(query).await,
            _ => {}
        }
        self.inner.list(&asked).await
    }

    async fn list_by_offset(&self, query: &Query) -> Result<Page, StoreError> {
        let Ok(offset) = query.cursor.as_ref().map_or(Ok(0), |cursor| cursor.0.parse::<usize>()) else {
            return Ok(Page::default());
        };
        let everything = Query { cursor: None, limit: u32::MAX, ..query.clone() };
        let mut records = self.inner.list(&everything).await?.records.split_off(offset);
        let size = query.limit.max(1) as usize;
        let next = (records.len() > size).then(|| Cursor((offset + size).to_string()));
        records.truncate(size);
        Ok(Page { records, next })
    }

    async fn claim_twice(
        &self,
        kind: Kind,
        due: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> Result<Vec<Record>, StoreError> {
        let filter = Filter::DueBefore(due);
        let query = Query { scope: Scope::Every, kind, filter, limit: u32::MAX, cursor: None };
        let mut found = self.inner.list(&query).await?.records;
        found.sort_by_key(|record| record.due_at);
        found.truncate(limit as usize);
        self.let_another_in().await;
        self.inner.claim(kind, due, limit, until).await?;
        Ok(found.into_iter().map(|record| Record { due_at: Some(until), ..record }).collect())
    }
}

/// A version that the same content always gets.
fn fingerprint(record: &Record) -> Version {
    let mut hasher = DefaultHasher::new();
    record.sealed.hash(&mut hasher);
    Version(format!("{:x}{}", hasher.finish(), record.deleted))
}

impl Store for Faulty {
    fn describe(&self) -> StoreDescription {
        self.inner.describe()
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> Answer<'a, Option<Record>> {
        Box::pin(async move {
            let found = self.hide(self.inner.get(key).await, None)?;
            Ok(found.map(|record| self.as_told(record)))
        })
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> Answer<'a, Put> {
        Box::pin(async move {
            let put = match expect {
                Expect::Absent => self.inner.put(record, expect).await?,
                Expect::Version(version) => {
                    let version = self.twist(&record.key, version).await?;
                    self.inner.put(record, Expect::Version(&version)).await?
                }
            };
            self.remember_labels(record);
            Ok(match put {
                Put::Committed(version) => {
                    Put::Committed(self.as_told(Record { version, deleted: false, ..record.clone() }).version)
                }
                other => other,
            })
        })
    }

    fn delete<'a>(&'a self, tombstone: &'a Record, version: &'a Version, keep_until: Timestamp) -> Answer<'a, Put> {
        Box::pin(async move {
            let version = self.twist(&tombstone.key, version).await?;
            Ok(match self.inner.delete(tombstone, &version, keep_until).await? {
                Put::Committed(version) => {
                    Put::Committed(self.as_told(Record { version, deleted: true, ..tombstone.clone() }).version)
                }
                other => other,
            })
        })
    }

    fn list<'a>(&'a self, query: &'a Query) -> Answer<'a, Page> {
        Box::pin(async move {
            let mut page = self.hide(self.list_faultily(query).await, Page::default())?;
            page.records = page.records.into_iter().map(|record| self.as_told(record)).collect();
            Ok(page)
        })
    }

    fn claim(&self, kind: Kind, due_before: Timestamp, limit: u32, until: Timestamp) -> Answer<'_, Vec<Record>> {
        Box::pin(async move {
            if self.has(Fault::ClaimTwice) {
                return self.claim_twice(kind, due_before, limit, until).await;
            }
            let claimed = self.hide(self.inner.claim(kind, due_before, limit, until).await, Vec::new())?;
            if self.has(Fault::ClaimChangesVersion) {
                for record in &claimed {
                    self.inner.put(record, Expect::Version(&record.version)).await?;
                }
            }
            Ok(claimed.into_iter().map(|record| self.as_told(record)).collect())
        })
    }

    fn count<'a>(&'a self, query: &'a Query) -> Answer<'a, Count> {
        Box::pin(async move {
            let scope = if self.has(Fault::TenantIgnored) { Scope::Every } else { query.scope.clone() };
            let counted = self.inner.count(&Query { scope, ..query.clone() }).await;
            self.hide(counted, Count::Exact(0))
        })
    }

    fn sweep(&self, now: Timestamp) -> Answer<'_, u64> {
        Box::pin(async move {
            match self.fault {
                Fault::SweptEarly => self.inner.sweep(Timestamp::MAX).await,
                Fault::ExpiredServed => {
                    let mut expired = 0;
                    let end = after(now, Duration::from_micros(1));
                    for kind in Kind::ALL {
                        let filter = Filter::ExpiresBetween(Timestamp::MIN, end);
                        let query = Query { scope: Scope::Every, kind, filter, limit: 1, cursor: None };
                        if let Count::Exact(count) = self.inner.count(&query).await? {
                            expired += count;
                        }
                    }
                    Ok(expired)
                }
                _ => self.hide(self.inner.sweep(now).await, 0),
            }
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        self.inner.ping()
    }
}
