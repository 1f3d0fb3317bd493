//! A Redis or Valkey server, its sentinels, or its cluster.
//!
//! [`Redis`] is a store of its own for those who have nothing else; [`RedisCache`], [`RedisBus`] and [`RedisCounter`]
//! stand in front of any store. They share what a [`RedisOptions`] says and nothing else; nothing here needs a module
//! that Redis or Valkey does not come with.
//!
//! # Keys
//! Below, `P` is the prefix, by default `oauth:`. In a cluster it is `P{sNN}:`, with these braces and the number of the
//! shard, so that a shard is in one slot: a record is in the shard that its place hashes to, its indexes with it.
//!
//! | key | what |
//! |---|---|
//! | `P{kind}:{id}` | a record of the tenant `_default`; the kind of a pending connect reads `state` |
//! | `P{kind}@{tenant}:{id}` | a record of another tenant, `%` and `:` in its name as `%25` and `%3A` |
//! | `P{label}:{value}` | sorted set: who has the label; `provider`, `subject` or `of_connection` |
//! | `Pindex:{kind}`, `Pdead:{kind}`, `Psealed_by:{key}` | sorted sets: all of a kind, its tombstones, whom a key sealed |
//! | `Pdue:{kind}`, `Pchanged:{kind}`, `Pexpires:{kind}`, `Pburied:{kind}` | sorted sets by time; the last: until when tombstones are kept |
//! | `Pl2:{key}`, `Pfloor:{key}` | the cache: a copy, and the rank below which none is let in |
//! | `Plimit:{bucket}` | the counter |
//! | `{prefix}layout` | how all this is laid out, so that nobody opens it otherwise |
//! | `{prefix}bus` | the channel of the bus |
//!
//! Members of the sorted sets are places: keys without `P`. What a record's string holds is in `value.rs`. Only copies,
//! floors and limits have a time to live; records have none, and go when they are deleted and swept.
//!
//! # Reading and writing
//! A record is read by one `GET`, over a few connections that all reads share. It is written by one script, which looks
//! at the version, at the indexes and then writes the record: if it fails, the record was not written. Its connection is
//! its own for that time, since `WAIT` follows where the server has replicas: it blocks. A write that no replica took
//! over in time is answered as committed all the same, because it is there for every reader; that it may be lost with
//! the primary is what [`may_roll_back`](tokenkeep_core::ports::StoreDescription::may_roll_back) says, and the log,
//! once. What is lost is a write that was sent and not answered: only that is
//! [`Put::Unknown`](tokenkeep_core::ports::Put::Unknown).
//!
//! While a cluster moves the slot of a shard to another server, that shard is unavailable.

mod bus;
mod cache;
mod connection;
mod counter;
mod discovery;
mod error;
mod keys;
mod link;
mod lists;
mod metrics;
mod open;
mod operations;
mod options;
mod scripts;
mod store;
mod value;

pub use bus::RedisBus;
pub use cache::RedisCache;
pub use counter::RedisCounter;
pub use metrics::RedisMetrics;
pub use open::OpenError;
pub use operations::{ClientLine, KeyCount, RedisOperations, ServerInfo, SlowCall};
pub use options::{RedisOptions, RedisUrl};
pub use store::Redis;
