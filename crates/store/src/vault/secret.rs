//! What a secret of ours holds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenkeep_core::ports::{Record, StoreError};

use crate::{
    document::{Document, build_document, parse_document},
    page::from_microseconds,
};

/// What a secret holds.
#[derive(Clone, Debug)]
pub(super) enum Secret {
    /// A record, or its tombstone.
    Record(Record),
    /// What a sweep left, and when: as good as nothing, but Vault goes on counting its versions.
    Swept(Timestamp),
    /// About to be removed for good, since when: nobody may write here until it is.
    Doomed(Timestamp),
}

impl Secret {
    /// The record, if it is one.
    pub(super) fn record(&self) -> Option<&Record> {
        match self {
            Secret::Record(record) => Some(record),
            Secret::Swept(_) | Secret::Doomed(_) => None,
        }
    }
}

/// The stored form. The names are stored: never rename one.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Stored {
    Record(Box<Document>),
    Swept { at: i64 },
    Doomed { at: i64 },
}

pub(super) fn build_secret(secret: &Secret) -> Result<Value, serde_json::Error> {
    serde_json::to_value(match secret {
        Secret::Record(record) => Stored::Record(Box::new(build_document(record))),
        Secret::Swept(at) => Stored::Swept { at: at.as_microsecond() },
        Secret::Doomed(at) => Stored::Doomed { at: at.as_microsecond() },
    })
}

pub(super) fn parse_secret(value: Value) -> Result<Secret, StoreError> {
    let corrupt = |reason: &str| StoreError::Corrupt { reason: reason.to_owned() };
    let time = |micros| from_microseconds(micros).ok_or_else(|| corrupt("a time out of range"));
    match serde_json::from_value(value).map_err(|_| corrupt("a secret in Vault, below our path, that is not ours"))? {
        Stored::Record(document) => Ok(Secret::Record(parse_document(*document)?)),
        Stored::Swept { at } => Ok(Secret::Swept(time(at)?)),
        Stored::Doomed { at } => Ok(Secret::Doomed(time(at)?)),
    }
}
