//! Lists and counts.
//!
//! Records are listed shard by shard, and in a shard in the order of their places. Indexes are hints: what a list
//! shows is what the record itself says.

use redis::Cmd;
use tokenkeep_core::ports::{Cursor, Filter, Page, Query, Record, RecordKey, Scope, StoreError};

use super::{error::Failure, keys, link::Link, value};
use crate::page;

/// How many records are read at once.
const BITE: usize = 200;

/// How many records a list by time sorts at most; with more, it goes through all records of the kind.
const SORTED: usize = 10_000;

/// Where a page starts.
struct Start {
    shard: usize,
    after: Option<String>,
}

impl Start {
    fn of(query: &Query, shards: usize) -> Option<Self> {
        let Some(Cursor(text)) = &query.cursor else { return Some(Self { shard: 0, after: None }) };
        let (shard, place) = text.split_once(' ')?;
        let shard: usize = shard.parse().ok().filter(|shard| *shard < shards)?;
        let key = keys::parse_place(place)?;
        let in_scope = match &query.scope {
            Scope::Every => true,
            Scope::Tenant(tenant) => key.tenant == *tenant,
        };
        (key.kind == query.kind && in_scope).then(|| Self { shard, after: Some(place.to_owned()) })
    }
}

pub(super) async fn list(link: &Link, query: &Query) -> Result<Page, StoreError> {
    let Some(Start { shard: first, mut after }) = Start::of(query, link.shards()) else { return Ok(Page::default()) };
    let size = page::size(query);
    let mut found: Vec<(usize, Record)> = Vec::new();
    for shard in first..link.shards() {
        let mut walk = Walk::begin(link, query, shard, after.take()).await?;
        while let Some(records) = walk.next(size.saturating_add(1) - found.len()).await? {
            found.extend(records.into_iter().map(|record| (shard, record)));
            if found.len() > size {
                found.truncate(size);
                let next = found.last().map(|(shard, last)| Cursor(format!("{shard} {}", keys::place(&last.key))));
                return Ok(Page { records: found.into_iter().map(|(_, record)| record).collect(), next });
            }
        }
    }
    Ok(Page { records: found.into_iter().map(|(_, record)| record).collect(), next: None })
}

pub(super) async fn count(link: &Link, query: &Query) -> Result<u64, StoreError> {
    let mut total = 0;
    for shard in 0..link.shards() {
        let prefix = link.prefix(shard);
        total += match (source(&prefix, query), &query.scope) {
            (Source::Places(set), _) => {
                let living_and_dead = lex_count(link, shard, &set, query).await?;
                // The dead are in the index of all, and in that of their key, and are counted with the latter.
                let dead = match query.filter {
                    Filter::All => lex_count(link, shard, &format!("{prefix}dead:{}", kind(query)), query).await?,
                    _ => 0,
                };
                living_and_dead.saturating_sub(dead)
            }
            (Source::Times { set, from, to }, Scope::Every) => {
                let mut command = redis::cmd("ZCOUNT");
                command.arg(set).arg(from).arg(to);
                parse(link.read(shard, &command).await?)?
            }
            (Source::Times { .. }, Scope::Tenant(_)) => {
                let mut walk = Walk::begin(link, query, shard, None).await?;
                let mut counted = 0;
                while let Some(records) = walk.next(BITE).await? {
                    counted += records.len() as u64;
                }
                counted
            }
        };
    }
    Ok(total)
}

async fn lex_count(link: &Link, shard: usize, set: &str, query: &Query) -> Result<u64, StoreError> {
    let (first, end) = keys::range(query.kind, &query.scope);
    let mut command = redis::cmd("ZLEXCOUNT");
    command.arg(set).arg(format!("[{first}")).arg(format!("({end}"));
    parse(link.read(shard, &command).await?)
}

fn kind(query: &Query) -> &'static str {
    keys::kind_name(query.kind)
}

/// Which set knows the records that a query lets through.
enum Source {
    /// One that is ordered by place.
    Places(String),
    /// One that is ordered by time, and which times, both included unless they say otherwise.
    Times { set: String, from: String, to: String },
}

fn source(prefix: &str, query: &Query) -> Source {
    let kind = kind(query);
    let micros = |at: &jiff::Timestamp| at.as_microsecond();
    match &query.filter {
        Filter::All => Source::Places(format!("{prefix}index:{kind}")),
        Filter::Label(name, value) => Source::Places(format!("{prefix}{}:{value}", keys::label_name(*name))),
        Filter::SealedBy(key) => Source::Places(format!("{prefix}sealed_by:{}", key.0)),
        Filter::DueBefore(limit) => {
            Source::Times { set: format!("{prefix}due:{kind}"), from: "-inf".into(), to: micros(limit).to_string() }
        }
        Filter::ExpiresBetween(from, to) => Source::Times {
            set: format!("{prefix}expires:{kind}"),
            from: micros(from).to_string(),
            to: format!("({}", micros(to)),
        },
        Filter::ChangedSince(since) => {
            Source::Times { set: format!("{prefix}changed:{kind}"), from: micros(since).to_string(), to: "+inf".into() }
        }
    }
}

/// Goes through one shard.
struct Walk<'a> {
    link: &'a Link,
    query: &'a Query,
    shard: usize,
    prefix: String,
    places: Places,
}

/// Where the next places come from.
enum Places {
    /// From a set that is ordered by place.
    Set { set: String, after: Option<String>, done: bool },
    /// Here they are, the last first.
    Sorted(Vec<String>),
}

impl<'a> Walk<'a> {
    async fn begin(link: &'a Link, query: &'a Query, shard: usize, after: Option<String>) -> Result<Self, StoreError> {
        let prefix = link.prefix(shard);
        let places = match source(&prefix, query) {
            Source::Places(set) => Places::Set { set, after, done: false },
            Source::Times { set, from, to } => {
                let mut command = redis::cmd("ZRANGEBYSCORE");
                command.arg(set).arg(from).arg(to).arg("LIMIT").arg(0).arg(SORTED + 1);
                let mut places: Vec<String> = parse(link.read(shard, &command).await?)?;
                if places.len() > SORTED {
                    Places::Set { set: format!("{prefix}index:{}", kind(query)), after, done: false }
                } else {
                    let (first, end) = keys::range(query.kind, &query.scope);
                    places.retain(|place| {
                        *place >= first && *place < end && after.as_ref().is_none_or(|after| place > after)
                    });
                    places.sort_unstable_by(|a, b| b.cmp(a));
                    Places::Sorted(places)
                }
            }
        };
        Ok(Self { link, query, shard, prefix, places })
    }

    /// Some more records, at most `wanted`, perhaps none yet; `None` when there are no more.
    async fn next(&mut self, wanted: usize) -> Result<Option<Vec<Record>>, StoreError> {
        let places = self.next_places(wanted.clamp(8, BITE)).await?;
        if places.is_empty() {
            return Ok(None);
        }
        let mut command = redis::cmd("MGET");
        for place in &places {
            command.arg(format!("{}{place}", self.prefix));
        }
        let values: Vec<Option<Vec<u8>>> = parse(self.link.read(self.shard, &command).await?)?;
        let mut records = Vec::with_capacity(places.len());
        for (place, value) in places.into_iter().zip(values) {
            if let (Some(key), Some(value)) = (keys::parse_place(&place), value) {
                records.push(value::unpack(key, &value)?);
            }
        }
        records.retain(|record| is_listed(record, &self.query.filter));
        Ok(Some(records))
    }

    async fn next_places(&mut self, count: usize) -> Result<Vec<String>, StoreError> {
        match &mut self.places {
            Places::Sorted(places) => {
                let rest = places.len().saturating_sub(count);
                Ok(places.split_off(rest).into_iter().rev().collect())
            }
            Places::Set { done: true, .. } => Ok(Vec::new()),
            Places::Set { set, after, done } => {
                let (first, end) = keys::range(self.query.kind, &self.query.scope);
                let from = after.as_ref().map_or_else(|| format!("[{first}"), |after| format!("({after}"));
                let mut command = redis::cmd("ZRANGEBYLEX");
                command.arg(&*set).arg(from).arg(format!("({end}")).arg("LIMIT").arg(0).arg(count);
                let places: Vec<String> = parse(self.link.read(self.shard, &command).await?)?;
                *done = places.len() < count;
                *after = places.last().cloned().or(after.take());
                Ok(places)
            }
        }
    }
}

/// Whether the record is what was asked for; its place is.
fn is_listed(record: &Record, filter: &Filter) -> bool {
    let micros = |at: &jiff::Timestamp| at.as_microsecond();
    let living = !record.deleted;
    match filter {
        Filter::All => living,
        Filter::Label(name, value) => record.labels.iter().any(|(n, v)| n == name && v == value),
        Filter::DueBefore(limit) => record.due_at.is_some_and(|at| micros(&at) <= micros(limit)),
        Filter::ExpiresBetween(from, to) => {
            living && record.expires_at.is_some_and(|at| micros(from) <= micros(&at) && micros(&at) < micros(to))
        }
        Filter::ChangedSince(since) => micros(&record.changed_at) >= micros(since),
        Filter::SealedBy(key) => record.sealed_by == *key,
    }
}

/// The record at `key`, in one round trip.
pub(super) async fn get(link: &Link, key: &RecordKey) -> Result<Option<Record>, StoreError> {
    let place = keys::place(key);
    let shard = link.shard_of(&place);
    let mut command = Cmd::new();
    command.arg("GET").arg(format!("{}{place}", link.prefix(shard)));
    let value: Option<Vec<u8>> = parse(link.read(shard, &command).await?)?;
    value.map(|value| value::unpack(key.clone(), &value)).transpose()
}

pub(super) fn parse<T: redis::FromRedisValue>(value: redis::Value) -> Result<T, StoreError> {
    redis::from_redis_value(value)
        .map_err(|_| Failure::Corrupt("an answer of another type than asked for".into()).into())
}
