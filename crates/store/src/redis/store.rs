//! The store.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use tokenkeep_core::ports::{
    BoxFuture, Count, Expect, Kind, Page, Put, Query, Reach, Record, RecordKey, Store, StoreDescription, StoreError,
    Version,
};

use super::{
    error::Failure,
    keys,
    link::{Call, Link},
    lists::{self, parse},
    metrics::RedisMetrics,
    open::{self, Keeping, OpenError},
    options::RedisOptions,
    scripts,
    value::{self, Life},
};
use crate::page::from_microseconds;

/// A store in a Redis or Valkey server, in the primary that sentinels watch, or in a cluster.
pub struct Redis {
    link: Link,
    keeping: Keeping,
    versions: Versions,
}

impl Redis {
    /// Connects, and refuses servers that would lose what they are given; see [`OpenError`].
    ///
    /// The store works for as long as the runtime that it was opened in.
    pub async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        let link = open::connect(options).await?;
        let keeping = open::check(&link).await?;
        open::agree_on_layout(&link).await?;
        if keeping.unknown {
            tracing::warn!(
                location = %link.options.location(),
                "Redis does not tell whether it throws keys away or keeps an append-only file: see to it yourself"
            );
        }
        Ok(Self { link, keeping, versions: Versions::new() })
    }

    /// What it counts from now on.
    pub fn metrics(&self) -> RedisMetrics {
        self.link.metrics.clone()
    }

    async fn write(&self, record: &Record, life: Life, expect: Expect<'_>) -> Result<Put, StoreError> {
        let version = self.versions.next();
        let place = keys::place(&record.key);
        let shard = self.link.shard_of(&place);
        let prefix = self.link.prefix(shard);
        let expected = match expect {
            Expect::Absent => "A".into(),
            Expect::Version(version) => format!("V{}", version.0),
        };
        let call = Call::default()
            .key(format!("{prefix}{place}"))
            .arg(prefix)
            .arg(keys::kind_name(record.key.kind))
            .arg(place)
            .arg(expected)
            .arg(value::pack(record, &version, life));
        match self.link.write(shard, &scripts::PUT, &call, true).await {
            Ok(done) => match parse::<i64>(done) {
                Ok(1) => Ok(Put::Committed(Version(version))),
                Ok(0) => Ok(Put::Conflict),
                // It was sent, and whatever this answer is, it denies nothing.
                Ok(_) | Err(_) => Ok(Put::Unknown),
            },
            Err(Failure::InDoubt(reason)) => {
                tracing::warn!(reason, "a write may or may not have been committed");
                Ok(Put::Unknown)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Claims in one shard, the earliest first.
    async fn claim_in(
        &self,
        shard: usize,
        kind: Kind,
        due_before: Timestamp,
        limit: usize,
        until: Timestamp,
    ) -> Result<Vec<(i64, Record)>, StoreError> {
        let prefix = self.link.prefix(shard);
        let kind = keys::kind_name(kind);
        let call = Call::default()
            .key(format!("{prefix}due:{kind}"))
            .arg(prefix)
            .arg(kind)
            .arg(due_before.as_microsecond().to_string())
            .arg(limit.to_string())
            .arg(until.as_microsecond().to_string());
        let claimed: Vec<Vec<u8>> = parse(self.link.write(shard, &scripts::CLAIM, &call, false).await?)?;
        let record = |claim: &[Vec<u8>]| {
            let [place, due_at, packed] = claim else { return None };
            let key = keys::parse_place(std::str::from_utf8(place).ok()?)?;
            let due_at = std::str::from_utf8(due_at).ok()?.parse().ok()?;
            Some(value::unpack(key, packed).map(|record| (due_at, record)))
        };
        let no_claim = || StoreError::Corrupt { reason: "a claim of no known form".into() };
        claimed.chunks(3).map(|claim| record(claim).ok_or_else(no_claim)?).collect()
    }

    /// How many of the `limit` that are due first each shard has.
    async fn due_in_shards(&self, kind: Kind, due_before: Timestamp, limit: usize) -> Result<Vec<usize>, StoreError> {
        let mut due = Vec::new();
        for shard in 0..self.link.shards() {
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(format!("{}due:{}", self.link.prefix(shard), keys::kind_name(kind)));
            command.arg("-inf").arg(due_before.as_microsecond()).arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
            let places: Vec<(String, f64)> = parse(self.link.read(shard, &command).await?)?;
            due.extend(places.into_iter().map(|(_, due_at)| (due_at, shard)));
        }
        due.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut shares = vec![0; self.link.shards()];
        for (_, shard) in due.into_iter().take(limit) {
            shares[shard] += 1;
        }
        Ok(shares)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Store for Redis {
    fn describe(&self) -> StoreDescription {
        StoreDescription {
            name: "redis",
            location: format!("{} ({}*)", self.link.options.location(), self.link.options.prefix),
            durable: self.keeping.durable,
            reach: Reach::Network,
            may_roll_back: !self.keeping.durable || !matches!(self.link.kind, super::link::Kind::Single),
        }
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(lists::get(&self.link, key))
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(self.write(record, Life::Living, expect))
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(self.write(tombstone, Life::Dead(keep_until), Expect::Version(version)))
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(lists::list(&self.link, query))
    }

    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MOST_CLAIMED);
            let until_as_kept = from_microseconds(until.as_microsecond()).unwrap_or(until);
            let mut claimed = Vec::new();
            while claimed.is_empty() {
                let shares = match self.link.shards() {
                    1 => vec![limit],
                    _ => self.due_in_shards(kind, due_before, limit).await?,
                };
                if shares.iter().all(|share| *share == 0) {
                    break;
                }
                for (shard, share) in shares.into_iter().enumerate().filter(|(_, share)| *share > 0) {
                    claimed.extend(self.claim_in(shard, kind, due_before, share, until_as_kept).await?);
                }
                // In a cluster others may have come between the look and the claim: there may be more.
                if self.link.shards() == 1 {
                    break;
                }
            }
            claimed.sort_by_key(|(due_at, _)| *due_at);
            Ok(claimed.into_iter().map(|(_, record)| record).collect())
        })
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move { Ok(Count::Exact(lists::count(&self.link, query).await?)) })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut swept = 0;
            for shard in 0..self.link.shards() {
                let prefix = self.link.prefix(shard);
                let mut call = Call::default();
                for kind in Kind::ALL.map(keys::kind_name) {
                    call = call.key(format!("{prefix}expires:{kind}")).key(format!("{prefix}buried:{kind}"));
                }
                call = call.arg(prefix).arg(now.as_microsecond().to_string()).arg(BITE.to_string());
                for kind in Kind::ALL.map(keys::kind_name) {
                    call = call.arg(kind);
                }
                // In bites, so that others get in between.
                loop {
                    let answer = self.link.write(shard, &scripts::SWEEP, &call, false).await?;
                    let (seen, removed): (u64, u64) = parse(answer)?;
                    swept += removed;
                    if seen < BITE {
                        break;
                    }
                }
            }
            Ok(swept)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            for shard in 0..self.link.shards() {
                let mut command = redis::cmd("EXISTS");
                command.arg(format!("{}probe", self.link.prefix(shard)));
                self.link.read(shard, &command).await?;
            }
            Ok(())
        })
    }
}

/// How many records one script sweeps.
const BITE: u64 = 200;

/// How many records are claimed at once.
const MOST_CLAIMED: usize = 1000;

/// Makes versions that nobody else makes: not another process, and not this one after a failover took some back.
struct Versions {
    writer: String,
    next: AtomicU64,
}

impl Versions {
    fn new() -> Self {
        // Its keys are the 128 random bits that the standard library draws for maps; they are not secret, only unique.
        let random = RandomState::new();
        Self { writer: format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1)), next: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        format!("{}-{:x}", self.writer, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
