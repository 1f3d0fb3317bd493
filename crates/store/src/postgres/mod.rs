//! A PostgreSQL database, shared by instances anywhere.
//!
//! # The schema
//! Everything is in the schema `tokenkeep`, which makes and migrates itself. Its one big table:
//!
//! | column of `records` | what |
//! |---|---|
//! | `kind`, `tenant`, `id` | where the record stands; the primary key |
//! | `version` | a random UUID, drawn by the server at each write |
//! | `changed_at`, `expires_at`, `due_at` | microseconds since 1970-01-01 UTC; the last two may be null |
//! | `label_provider`, `label_subject`, `label_connection` | the labels; null where there is none |
//! | `sealed_by` | which data key sealed it |
//! | `sealed` | the sealed bytes |
//! | `deleted` | whether this is a tombstone |
//!
//! Texts are compared byte by byte (`COLLATE "C"`). `records` may be hashed into partitions when it is made. `counters`
//! is [`PostgresCounter`]'s, and the row of `schema` says which version all this has.
//!
//! # Statements
//! Each call is one statement, and each statement its own transaction: nothing is held between two round trips, so any
//! connection will do for any statement, a pooler's as well. Writes are compare-and-swap; claims take what nobody else
//! has locked. A write whose connection breaks before it is answered is [`Put::Unknown`]; whatever the server itself
//! refuses has changed nothing.
//!
//! # Not only PostgreSQL
//! It needs `ON CONFLICT`, `SKIP LOCKED`, `gen_random_uuid` and data-modifying `WITH`; serialization failures are
//! retried; advisory locks only make the migration quieter. CockroachDB and YugabyteDB have these, but were not tried.
//! [`PostgresBus`] needs `LISTEN`, which they lack: use another bus there, or none.

mod bus;
mod counter;
mod error;
mod open;
mod options;
mod records;
mod schema;
mod session;
mod statement;

use std::{fmt, sync::Arc};

pub use bus::PostgresBus;
pub use counter::PostgresCounter;
use jiff::Timestamp;
pub use open::OpenError;
pub use options::PostgresOptions;
pub use schema::SCHEMA_VERSION;
use sqlx::postgres::PgRow;
use tokenkeep_core::ports::{
    BoxFuture, Count, Expect, Kind, Page, Put, Query, Reach, Record, RecordKey, Store, StoreDescription, StoreError,
    Version,
};

use self::{
    error::{Failure, store_error},
    session::{Access, Session},
    statement::Statement,
};
use crate::page::{self, Start};

/// A store in a PostgreSQL database.
pub struct Postgres {
    session: Arc<Session>,
    bus: PostgresBus,
    description: StoreDescription,
    pooled: bool,
}

impl Postgres {
    /// Connects, checks what it finds, and makes or migrates the schema. Any number of instances may do so at once.
    ///
    /// The store works for as long as the runtime that it was opened in.
    pub async fn connect(options: PostgresOptions) -> Result<Self, OpenError> {
        let listen = options.listen_url.as_ref().map(|url| open::parse(url, &options.application_name)).transpose()?;
        let open::Opened { plain, connect, pooled, place, durable, may_roll_back } = open::open(&options).await?;
        let listen = listen.or_else(|| (!pooled).then_some(plain));
        let session = Arc::new(Session::new(connect, pooled, &options));
        let bus = PostgresBus::new(session.clone(), listen, place.clone(), options.acquire_timeout);
        let description =
            StoreDescription { name: "postgres", location: place, durable, reach: Reach::Network, may_roll_back };
        Ok(Self { session, bus, description, pooled })
    }

    /// A bus through the same database.
    pub fn bus(&self) -> PostgresBus {
        self.bus.clone()
    }

    /// A counter in the same database.
    pub fn counter(&self) -> PostgresCounter {
        PostgresCounter::new(self.session.clone())
    }

    /// Whether a pooler in transaction mode stands between, as was said or found out.
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Closes the connections, when those at work are done. A process that ends without it loses nothing.
    pub async fn close(&self) {
        self.session.close().await;
    }

    async fn read<T>(
        &self,
        statement: &Statement<'_>,
        parse: impl FnOnce(&[PgRow]) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let rows = self.session.run(statement, Access::Read).await?;
        parse(&rows).map_err(|e| store_error(&e))
    }

    async fn write(&self, statement: &Statement<'_>) -> Result<Put, StoreError> {
        let rows = self.session.run(statement, Access::Write).await;
        let version = rows.and_then(|rows| records::version(&rows).map_err(|e| Failure::InDoubt(store_error(&e))));
        match version {
            Ok(Some(version)) => Ok(Put::Committed(version)),
            Ok(None) => Ok(Put::Conflict),
            Err(Failure::InDoubt(error)) => {
                tracing::warn!(error = %error, "a write may or may not have been committed");
                Ok(Put::Unknown)
            }
            Err(Failure::NothingDone(error)) => Err(error),
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("location", &self.description.location).finish_non_exhaustive()
    }
}

impl Store for Postgres {
    fn describe(&self) -> StoreDescription {
        self.description.clone()
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(
            async move { self.read(&records::get(key), |rows| rows.first().map(records::record).transpose()).await },
        )
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        let expect = match expect {
            Expect::Absent => None,
            Expect::Version(version) => Some(version),
        };
        Box::pin(async move { self.write(&records::put(record, expect)).await })
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move { self.write(&records::bury(tombstone, version, keep_until)).await })
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let start = match Start::of(query) {
                Start::First => None,
                Start::After(position) => Some(position),
                Start::Nowhere => return Ok(Page::default()),
            };
            let size = page::size(query);
            let statement = records::list(query, start, size.saturating_add(1));
            let found = self.read(&statement, |rows| rows.iter().map(records::record).collect()).await?;
            Ok(page::cut(found, size))
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
            let rows = self.session.run(&records::claim(kind, due_before, limit, until), Access::Write).await?;
            records::claimed(&rows).map_err(|e| store_error(&e))
        })
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move { Ok(Count::Exact(self.read(&records::count(query), records::number).await?)) })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut swept = 0;
            // In bites, so that no other write waits for long.
            loop {
                let rows = self.session.run(&records::sweep(now), Access::Write).await?;
                let bite = records::number(&rows).map_err(|e| store_error(&e))?;
                swept += bite;
                if bite < records::BITE {
                    break;
                }
            }
            counter::sweep(&self.session).await?;
            Ok(swept)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.read(&records::ping(), |_| Ok(())).await })
    }
}
