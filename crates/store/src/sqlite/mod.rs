//! One file on a local disk.
//!
//! # The file
//! A SQLite database in WAL mode, made with mode 0600, beside it its `-wal` and `-shm`. `application_id` is
//! [`APPLICATION_ID`], `user_version` is [`SCHEMA_VERSION`]. It holds one table:
//!
//! | column | what |
//! |---|---|
//! | `kind`, `tenant`, `id` | where the record stands; unique together |
//! | `version` | 32 hexadecimal digits, drawn by SQLite at each write |
//! | `changed_at`, `expires_at`, `due_at` | microseconds since 1970-01-01 UTC; the last two may be null |
//! | `label_provider`, `label_subject`, `label_connection` | the labels; null where there is none |
//! | `sealed_by` | which data key sealed it |
//! | `sealed` | the sealed bytes |
//! | `deleted` | 1 for a tombstone, else 0 |
//!
//! # Writing
//! SQLite lets one write at a time, and a durable write waits for the disk. So one task owns the writing connection:
//! what queues up while the disk is busy is committed in one transaction, by one wait, and answered after it. (With 64
//! writers at once, a write takes a sixth of the time of a lone one.) Reads go through a few connections of their own,
//! which see a snapshot and wait for nobody: they go on when the disk is full or another process holds the write lock.
//! Several processes of one machine may use the file at once; a network file system will not do.

mod error;
mod open;
mod records;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
pub use open::{APPLICATION_ID, OpenError, SCHEMA_VERSION};
use sqlx::SqlitePool;
use tokenkeep_core::ports::{
    BoxFuture, Count, Expect, Kind, Page, Put, Query, Reach, Record, RecordKey, Store, StoreDescription, StoreError,
    Version,
};

use self::{
    error::store_error,
    records::{Claim, Row, Sweep, Write},
    writer::{Failure, Writer},
};
use crate::page::{self, Start};

/// A store in one file of a local disk, shared by the processes of one machine.
pub struct Sqlite {
    path: PathBuf,
    readers: SqlitePool,
    writer: Writer,
}

impl Sqlite {
    /// Opens the database at `path`, and makes it if there is none; the directory must be there. It reads the whole
    /// file once, to refuse a damaged one.
    ///
    /// The store works for as long as the runtime that it was opened in.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path.as_ref(), &open::Settings::default()).await
    }

    /// Commits what is queued, folds the log into the file and closes it. A process that ends without it loses
    /// nothing; the next one folds.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn open_with(path: &Path, settings: &open::Settings) -> Result<Self, OpenError> {
        let open::Opened { readers, writing, options } = open::open(path, settings).await?;
        Ok(Self { path: path.to_owned(), readers, writer: Writer::start(writing, options) })
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for Sqlite {
    fn describe(&self) -> StoreDescription {
        StoreDescription {
            name: "sqlite",
            location: self.path.display().to_string(),
            durable: true,
            reach: Reach::Machine,
            may_roll_back: false,
        }
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move { records::get(&self.readers, key).await.map_err(|e| store_error(&e)) })
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        let expect = match expect {
            Expect::Absent => None,
            Expect::Version(version) => Some(version.clone()),
        };
        Box::pin(self.write(Write { row: Row::alive(record), expect }))
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(self.write(Write { row: Row::tombstone(tombstone, keep_until), expect: Some(version.clone()) }))
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let start = match Start::of(query) {
                Start::First => None,
                Start::After(position) => Some(position),
                Start::Nowhere => return Ok(Page::default()),
            };
            let size = page::size(query);
            let found = records::list(&self.readers, query, start, size.saturating_add(1)).await;
            Ok(page::cut(found.map_err(|e| store_error(&e))?, size))
        })
    }

    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(async move { Ok(self.writer.run(Claim { kind, due_before, limit, until }).await?) })
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move {
            let count = records::count(&self.readers, query).await.map_err(|e| store_error(&e))?;
            Ok(Count::Exact(count))
        })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut swept = 0;
            // In bites, so that other writes get in between.
            loop {
                let bite = self.writer.run(Sweep { now }).await?;
                swept += bite;
                if bite < Sweep::BITE {
                    return Ok(swept);
                }
            }
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { records::ping(&self.readers).await.map_err(|e| store_error(&e)) })
    }
}

impl Sqlite {
    async fn write(&self, write: Write) -> Result<Put, StoreError> {
        match self.writer.run(write).await {
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
