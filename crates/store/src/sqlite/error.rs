//! What SQLite's errors mean to who uses a store.

use tokenkeep_core::ports::StoreError;

/// SQLite's primary result codes, as far as they matter here.
pub(super) mod code {
    pub(in crate::sqlite) const BUSY: i32 = 5;
    pub(in crate::sqlite) const READONLY: i32 = 8;
    pub(in crate::sqlite) const IOERR: i32 = 10;
    pub(in crate::sqlite) const CORRUPT: i32 = 11;
    pub(in crate::sqlite) const FULL: i32 = 13;
    pub(in crate::sqlite) const CANTOPEN: i32 = 14;
    pub(in crate::sqlite) const NOTADB: i32 = 26;
}

/// The primary result code, if it was SQLite that failed.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// In words; without what was being written, which SQLite never repeats.
pub(super) fn reason(error: &sqlx::Error) -> String {
    let known = match primary_code(error) {
        Some(code::BUSY) => "another process holds the write lock for too long",
        Some(code::READONLY) => "the database file or its directory cannot be written",
        Some(code::IOERR) => "the disk fails",
        Some(code::FULL) => "the disk is full",
        Some(code::CANTOPEN) => "the database file or its directory cannot be opened",
        _ => return error.to_string(),
    };
    format!("{known} ({error})")
}

/// The error of a call in which nothing was written.
pub(super) fn store_error(error: &sqlx::Error) -> StoreError {
    let damaged = matches!(primary_code(error), Some(code::CORRUPT | code::NOTADB));
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt { reason: error.to_string() },
        _ if damaged => StoreError::Corrupt { reason: reason(error) },
        _ => StoreError::Unavailable { reason: reason(error), retry_after: None },
    }
}
