//! What PostgreSQL's errors mean to who uses a store.

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokenkeep_core::ports::StoreError;

/// SQLSTATEs, as far as they matter here.
pub(super) mod code {
    pub(in crate::postgres) const SERIALIZATION_FAILURE: &str = "40001";
    pub(in crate::postgres) const DEADLOCK: &str = "40P01";
    pub(in crate::postgres) const COMPLETION_UNKNOWN: &str = "40003";
    pub(in crate::postgres) const READ_ONLY: &str = "25006";
    pub(in crate::postgres) const DISK_FULL: &str = "53100";
    pub(in crate::postgres) const TOO_MANY_CONNECTIONS: &str = "53300";
    pub(in crate::postgres) const QUERY_CANCELED: &str = "57014";
    pub(in crate::postgres) const ADMIN_SHUTDOWN: &str = "57P01";
    pub(in crate::postgres) const CANNOT_CONNECT_NOW: &str = "57P03";
    pub(in crate::postgres) const NO_SUCH_STATEMENT: &str = "26000";
    pub(in crate::postgres) const STATEMENT_EXISTS: &str = "42P05";
    pub(in crate::postgres) const DATA_CORRUPTED: &str = "XX001";
    pub(in crate::postgres) const INDEX_CORRUPTED: &str = "XX002";
}

/// What pgbouncer says when it has not handed a statement to any server.
const NOT_FORWARDED: [&str; 6] = [
    "query_wait_timeout",
    "pgbouncer cannot connect to server",
    "server login has been failing",
    "database does not allow connections",
    "no more connections allowed",
    "pgbouncer is shutting down",
];

/// Why a statement has no answer, as far as one can tell.
#[derive(Debug)]
pub(super) enum Failure {
    /// It changed nothing.
    NothingDone(StoreError),
    /// It may have been committed.
    InDoubt(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NothingDone(error) | Failure::InDoubt(error) => error,
        }
    }
}

/// What a statement that failed leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing; the connection is as good as before.
    Nothing,
    /// Nothing, and others were in its way: the same again may succeed.
    NothingYet,
    /// Nothing, not even the connection.
    NoConnection,
    /// Perhaps what it was to do.
    Doubt,
}

/// Judges an error that came after a statement was sent.
pub(super) fn left_by(error: &sqlx::Error) -> Left {
    let Some((severity, code, message)) = said(error) else { return Left::Doubt };
    match code {
        code::SERIALIZATION_FAILURE | code::DEADLOCK => Left::NothingYet,
        code::COMPLETION_UNKNOWN => Left::Doubt,
        // The connection between a pooler and the server broke, unless there was none yet.
        _ if code.starts_with("08") => {
            if NOT_FORWARDED.iter().any(|text| message.contains(text)) {
                Left::NoConnection
            } else {
                Left::Doubt
            }
        }
        // It ends every session at once, whatever it has just written to its log.
        _ if severity == PgSeverity::Panic => Left::Doubt,
        // Answered before the commit or not at all: a server that is told to end says so between statements, or rolls
        // back the one it is at.
        _ if severity == PgSeverity::Fatal => Left::NoConnection,
        // What was the primary may be so no more, and the next connection lead to the one that is.
        code::READ_ONLY => Left::NoConnection,
        _ => Left::Nothing,
    }
}

fn said(error: &sqlx::Error) -> Option<(PgSeverity, &str, &str)> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    Some((error.severity(), error.code(), error.message()))
}

/// The SQLSTATE, if it was the server that refused.
pub(super) fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    Some(said(error)?.1)
}

/// In words; the server's own are escaped.
pub(super) fn reason(error: &sqlx::Error) -> String {
    let Some((_, code, message)) = said(error) else {
        return match error {
            sqlx::Error::Io(error) => format!("the connection to the server fails ({})", error.kind()),
            sqlx::Error::PoolTimedOut => "no connection to the server became free or could be made in time".into(),
            sqlx::Error::PoolClosed => "the store was closed".into(),
            other => other.to_string().escape_debug().to_string(),
        };
    };
    let known = match code {
        code::READ_ONLY => "the server takes no writes",
        code::DISK_FULL => "the server's disk is full",
        code::TOO_MANY_CONNECTIONS => "the server has too many connections",
        code::QUERY_CANCELED => "the server took too long",
        code::ADMIN_SHUTDOWN | code::CANNOT_CONNECT_NOW => "the server is starting or stopping",
        code::NO_SUCH_STATEMENT | code::STATEMENT_EXISTS => {
            "a pooler in transaction mode stands before the server, \
            which was not noticed; say so with `pooled = true`"
        }
        _ => "the server refused",
    };
    format!("{known} ({}, SQLSTATE {code})", message.escape_debug())
}

/// The error of a call in which nothing was written.
pub(super) fn store_error(error: &sqlx::Error) -> StoreError {
    let damaged = matches!(sqlstate(error), Some(code::DATA_CORRUPTED | code::INDEX_CORRUPTED));
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            StoreError::Corrupt { reason: error.to_string().escape_debug().to_string() }
        }
        _ if damaged => StoreError::Corrupt { reason: reason(error) },
        _ => unavailable(reason(error)),
    }
}

pub(super) fn unavailable(reason: impl Into<String>) -> StoreError {
    StoreError::Unavailable { reason: reason.into(), retry_after: None }
}
