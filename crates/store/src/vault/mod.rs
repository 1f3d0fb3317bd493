//! A HashiCorp Vault or OpenBao server, by its KV engine.
//!
//! For installations that have Vault and want nothing else to keep: some thousands of records. Reading one is one
//! request, writing one is one or two. But Vault can only list the names in a folder, so that a list, a claim or a sweep
//! reads every record of its kind; whoever has more keeps them in a database.
//!
//! # The secrets
//! A record stands at `{mount}/{path}/{kind}/{tenant}/{id}` (see `place.rs` for what a path cannot hold) as one JSON
//! object: `state` (`record`, or a mark that a sweep left), `kind`, `tenant`, `id`, `version` (32 random hexadecimal
//! digits), the times in microseconds since 1970, `labels`, `sealed_by`, `sealed` (base64), `deleted`.
//!
//! # The two engines
//! - **Version 2** compares and swaps, so that any number of instances may write. A write reads first, to compare the
//!   record's own version, and then swaps by Vault's number: that one starts again when a secret is removed, and moves on
//!   when a claim moves `due_at`, so it cannot be the record's version. Old versions are not kept (`max_versions` of the
//!   secret is set to 1 with its second write, and Vault honours it unless the mount demands more). What expires is
//!   removed in steps, see `change.rs`.
//! - **Version 1** overwrites whatever is there, so that only one instance may write: it takes turns with itself. After a
//!   write whose answer was lost it leaves that record alone for two minutes, because the write may still arrive.
//!
//! # What it needs
//! Reads must come from the active node: an Enterprise performance standby, or any other node that answers from a copy,
//! may answer with the past. The token's policy, for the default places on version 2:
//!
//! ```hcl
//! path "secret/data/tokenkeep/*"     { capabilities = ["create", "read", "update"] }
//! path "secret/metadata/tokenkeep/*" { capabilities = ["update", "delete", "list"] }
//! path "secret/metadata/tokenkeep"   { capabilities = ["list"] }
//! ```
//!
//! Version 1 needs all five on `secret/tokenkeep/*`, and to list `secret/tokenkeep`.

mod change;
mod error;
mod http;
mod kv;
mod login;
mod open;
mod options;
mod place;
mod scan;
mod secret;
mod transit;

use std::{fmt, fmt::Write as _, sync::Arc};

pub use error::OpenError;
use jiff::Timestamp;
pub use options::{KvVersion, VaultAuth, VaultOptions, VaultServer};
use tokenkeep_core::ports::{
    BoxFuture, Count, Entropy, Expect, Filter, Kind, Page, Put, Query, Reach, Record, RecordKey, Scope, Store,
    StoreDescription, StoreError, Version,
};
pub use transit::{Transit, TransitError, TransitOptions};

use self::{
    change::{Change, change, put_failed},
    error::{Failure, unavailable},
    kv::{Found, Kv},
    scan::{After, Hit, scan},
    secret::Secret,
};
use crate::{
    page::{self, Start},
    records,
};

/// A store in Vault's KV engine, version 1 or 2.
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    kv: Kv,
    /// The path of all records.
    root: String,
    entropy: Arc<dyn Entropy>,
}

impl Vault {
    /// Finds the server, lets itself in, finds the engine and sees whether it may do what it must.
    pub async fn connect(options: VaultOptions) -> Result<Self, OpenError> {
        let (kv, root) = open::open(&options).await?;
        Ok(Self { inner: Arc::new(Inner { kv, root, entropy: options.entropy }) })
    }

    /// Which of the two engines it is.
    pub fn engine(&self) -> KvVersion {
        self.inner.kv.version
    }

    /// Puts `record` where `expect` holds, as a task of its own: a write that has begun must end, or the next could
    /// overtake it.
    async fn replace(&self, record: Record, expect: Expect<'_>) -> Result<Put, StoreError> {
        let expect = match expect {
            Expect::Absent => None,
            Expect::Version(version) => Some(version.clone()),
        };
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.replace(record, expect).await });
        task.await.unwrap_or_else(|_| put_failed(Failure::in_doubt("the task that was writing has ended")))
    }
}

impl Inner {
    async fn replace(&self, record: Record, expect: Option<Version>) -> Result<Put, StoreError> {
        let path = place::of_record(&self.root, &record.key);
        let expect = expect.as_ref().map_or(Expect::Absent, Expect::Version);
        let version = record.version.clone();
        let secret = Secret::Record(record);
        // A new record is mostly put where nothing ever was.
        let known = (expect == Expect::Absent).then(|| Found::nothing(self.kv.session.now()));
        let changed = change(&self.kv, &path, known, |there| {
            let may_write = !matches!(there, Some(Secret::Doomed(_)));
            let matches = records::matches(there.and_then(Secret::record), expect);
            (may_write && matches).then(|| secret.clone())
        });
        match changed.await {
            Ok(Change::Written(_)) => Ok(Put::Committed(version)),
            Ok(Change::Left(Found { secret: Some(Secret::Doomed(_)), .. })) if expect == Expect::Absent => {
                Err(unavailable("what was here is just being removed for good; try again later"))
            }
            Ok(Change::Left(_)) => Ok(Put::Conflict),
            Err(failure) => put_failed(failure),
        }
    }

    fn next_version(&self) -> Version {
        let bytes = self.entropy.bytes32();
        Version(bytes[..16].iter().fold(String::with_capacity(32), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let found = self.kv.read(&place::of_record(&self.root, key)).await?;
        match found.secret {
            Some(Secret::Record(record)) if record.key == *key => Ok(Some(record)),
            Some(Secret::Record(_)) => Err(StoreError::Corrupt { reason: "a record in the place of another".into() }),
            Some(Secret::Swept(_) | Secret::Doomed(_)) | None => Ok(None),
        }
    }

    async fn scan(
        &self,
        query: &Query,
        after: Option<&After>,
        limit: usize,
    ) -> Result<impl Iterator<Item = Record>, StoreError> {
        let is_listed = |found: &Found| found.record().is_some_and(|record| records::is_listed(record, query));
        let hits = scan(&self.kv, &self.root, (&query.scope, query.kind), after, limit, is_listed).await?;
        Ok(hits.into_iter().filter_map(|hit| match hit.found.secret {
            Some(Secret::Record(record)) => Some(record),
            _ => None,
        }))
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let after = match Start::of(query) {
            Start::First => None,
            Start::After(at) => Some(After { tenant: place::segment(at.tenant), id: place::segment(at.id) }),
            Start::Nowhere => return Ok(Page::default()),
        };
        let size = page::size(query);
        let records = self.scan(query, after.as_ref(), size.saturating_add(1)).await?;
        Ok(page::cut(records.collect(), size))
    }

    async fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> Result<Vec<Record>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let query =
            Query { scope: Scope::Every, kind, filter: Filter::DueBefore(due_before), limit: u32::MAX, cursor: None };
        let is_due = |record: &Record| records::is_listed(record, &query);
        let is_hit = |found: &Found| found.record().is_some_and(is_due);
        let mut due = scan(&self.kv, &self.root, (&query.scope, kind), None, usize::MAX, is_hit).await?;
        due.sort_by_cached_key(|hit| hit.found.record().map(|record| (record.due_at, record.key.clone())));
        let mut claimed = Vec::new();
        for Hit { path, found } in due {
            if claimed.len() >= limit {
                break;
            }
            let moved = change(&self.kv, &path, Some(found), |there| {
                let record = there.and_then(Secret::record).filter(|record| is_due(record))?;
                Some(Secret::Record(Record { due_at: Some(records::to_the_microsecond(until)), ..record.clone() }))
            });
            if let Change::Written(Secret::Record(record)) = moved.await? {
                claimed.push(record);
            }
        }
        Ok(claimed)
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let now = records::to_the_microsecond(now);
        let is_garbage = |found: &Found| change::is_garbage(found.secret.as_ref(), now);
        let mut swept = 0;
        for kind in Kind::ALL {
            let garbage = scan(&self.kv, &self.root, (&Scope::Every, kind), None, usize::MAX, is_garbage).await?;
            for Hit { path, found } in garbage {
                swept += u64::from(change::sweep(&self.kv, &path, found, now).await?);
            }
        }
        Ok(swept)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("location", &self.describe().location).finish_non_exhaustive()
    }
}

impl Store for Vault {
    fn describe(&self) -> StoreDescription {
        let Inner { kv, root, .. } = &*self.inner;
        let (version, reach) = match kv.version {
            KvVersion::V1 => (1, Reach::OneWriter),
            KvVersion::V2 => (2, Reach::Network),
        };
        StoreDescription {
            name: "vault",
            location: format!("{}, {}/{root} (KV version {version})", kv.session.http.address, kv.mount),
            durable: true,
            reach,
            may_roll_back: false,
        }
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(self.inner.get(key))
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(self.replace(records::alive(record, self.inner.next_version()), expect))
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        let tombstone = records::tombstone(tombstone, keep_until, self.inner.next_version());
        Box::pin(self.replace(tombstone, Expect::Version(version)))
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.inner.list(query))
    }

    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(self.inner.claim(kind, due_before, limit, until))
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move { Ok(Count::Exact(self.inner.scan(query, None, usize::MAX).await?.count() as u64)) })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.inner.sweep(now))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // A secret that is not there: seal, token and mount have to be in order to say so.
        Box::pin(async { self.inner.kv.read(&format!("{}/ping", self.inner.root)).await.map(drop) })
    }
}
