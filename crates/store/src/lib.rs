//! Where tokenkeep keeps its records.
//!
//! A store is an untrusted box of sealed bytes with one promise: a write happens only if what is there is what its
//! writer saw. The contract is [`tokenkeep_core::ports::Store`]; this crate holds those who fulfil it.
//!
//! - [`Memory`]: in this process, gone with it. For tests and trials.
//! - [`EnvFile`]: in this process, and in the `.env` of a developer.
//! - [`Sqlite`]: one file on a local disk, the default. A write it has confirmed survives the loss of power.
//! - [`Postgres`]: a PostgreSQL database, for instances anywhere; beside it a bus and a counter.
//! - [`Redis`]: a Redis or Valkey server, its sentinels or its cluster; with [`RedisCache`], [`RedisBus`] and
//!   [`RedisCounter`] to stand in front of any store.
//! - [`Vault`]: a HashiCorp Vault or OpenBao server's KV engine, for some thousands of records.
//! - [`layers`]: metrics and traces around any store.
//! - `conformance` (behind the feature of that name): the one suite every store passes, and the faults on purpose that
//!   prove it can fail.
//!
//! ```
//! use tokenkeep_core::ports::{Expect, Kind, Put, Record, RecordKey, SealingKeyId, Store, Version};
//! use tokenkeep_core::Tenant;
//! use tokenkeep_store::Memory;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Memory::new();
//! let mut record = Record {
//!     key: RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: "google/alice".into() },
//!     version: Version::default(), // the store decides
//!     changed_at: "2026-01-01T00:00:00Z".parse()?,
//!     expires_at: None,
//!     due_at: None,
//!     labels: vec![],
//!     sealed_by: SealingKeyId("k1".into()),
//!     sealed: b"sealed".to_vec(),
//! #   deleted: false,
//! };
//! let Put::Committed(first) = store.put(&record, Expect::Absent).await? else { unreachable!("it was empty") };
//!
//! // Whoever read the first version may replace it, once.
//! record.sealed = b"sealed anew".to_vec();
//! assert!(matches!(store.put(&record, Expect::Version(&first)).await?, Put::Committed(_)));
//! assert_eq!(store.put(&record, Expect::Version(&first)).await?, Put::Conflict);
//! # Ok(())
//! # }
//! ```

#[cfg(any(feature = "env", feature = "vault"))]
mod document;
#[cfg(any(
    feature = "memory",
    feature = "env",
    feature = "sqlite",
    feature = "postgres",
    feature = "redis",
    feature = "vault"
))]
#[cfg_attr(
    not(any(feature = "memory", feature = "sqlite", feature = "postgres", feature = "vault")),
    expect(dead_code, reason = "in Redis a cursor names a shard, too")
)]
mod page;
#[cfg(any(feature = "memory", feature = "env", feature = "vault"))]
mod records;

#[cfg(any(feature = "conformance", test))]
pub mod conformance;
#[cfg(feature = "env")]
mod env_file;
pub mod layers;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "memory")]
mod memory_counter;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "vault")]
pub mod vault;

#[cfg(feature = "env")]
pub use env_file::{EnvFile, EnvFileError};
#[cfg(feature = "memory")]
pub use memory::Memory;
#[cfg(feature = "memory")]
pub use memory_counter::MemoryCounter;
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresBus, PostgresCounter, PostgresOptions};
#[cfg(feature = "redis")]
pub use redis::{Redis, RedisBus, RedisCache, RedisCounter, RedisOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
#[cfg(feature = "vault")]
pub use vault::{KvVersion, Transit, TransitOptions, Vault, VaultAuth, VaultOptions, VaultServer};
