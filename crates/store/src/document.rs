//! A record as JSON: for stores that keep documents rather than columns.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    Tenant,
    ports::{Kind, LabelName, Record, RecordKey, SealingKeyId, StoreError, Version},
};

use crate::page::from_microseconds;

/// The stored form. The names are stored: never rename one. (`ttl` and `lease` mean something to Vault's KV version 1.)
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    kind: String,
    tenant: String,
    id: String,
    version: String,
    /// Microseconds since 1970-01-01 UTC, as are the others.
    changed_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    sealed_by: String,
    /// Base64.
    sealed: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

pub(crate) fn build_document(record: &Record) -> Document {
    let labels = record.labels.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone()));
    Document {
        kind: record.key.kind.as_str().to_owned(),
        tenant: record.key.tenant.as_str().to_owned(),
        id: record.key.id.clone(),
        version: record.version.0.clone(),
        changed_at: record.changed_at.as_microsecond(),
        expires_at: record.expires_at.map(Timestamp::as_microsecond),
        due_at: record.due_at.map(Timestamp::as_microsecond),
        labels: labels.collect(),
        sealed_by: record.sealed_by.0.clone(),
        sealed: BASE64_STANDARD.encode(&record.sealed),
        deleted: record.deleted,
    }
}

pub(crate) fn parse_document(mut document: Document) -> Result<Record, StoreError> {
    let corrupt = |reason: &str| StoreError::Corrupt { reason: reason.to_owned() };
    let time = |micros: i64| from_microseconds(micros).ok_or_else(|| corrupt("a time out of range"));
    let labels = LabelName::ALL.into_iter().filter_map(|name| Some((name, document.labels.remove(name.as_str())?)));
    let labels: Vec<_> = labels.collect();
    if !document.labels.is_empty() {
        return Err(corrupt("an unknown label"));
    }
    Ok(Record {
        key: RecordKey {
            tenant: Tenant::from_stored(&document.tenant).map_err(|_| corrupt("a tenant that cannot be"))?,
            kind: Kind::from_stored(&document.kind).ok_or_else(|| corrupt("an unknown kind"))?,
            id: document.id,
        },
        version: Version(document.version),
        changed_at: time(document.changed_at)?,
        expires_at: document.expires_at.map(time).transpose()?,
        due_at: document.due_at.map(time).transpose()?,
        labels,
        sealed_by: SealingKeyId(document.sealed_by),
        sealed: BASE64_STANDARD.decode(document.sealed).map_err(|_| corrupt("sealed bytes that are not base64"))?,
        deleted: document.deleted,
    })
}
