use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use tokenkeep_core::{
    ClientId, ConnectionId, Subject, Tenant,
    ports::{Kind, LabelName, RecordKey},
};
use zeroize::Zeroizing;

use crate::barrier::Hashes;

/// A value that is one record: how it is named, found, and turned into the bytes that the barrier seals.
pub trait Aggregate: Sized + Send + Sync {
    /// What its records are.
    const KIND: Kind;
    /// What names one.
    type Id: Sync;
    /// What its tombstone remembers.
    type Remembered: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync;
    /// What its due time depends on besides itself.
    type Timing: Send;

    /// Where the record of `id` stands.
    fn key_of(id: &Self::Id) -> RecordKey;
    /// What names this one.
    fn id(&self) -> &Self::Id;
    /// Its bytes, secrets included.
    fn encode(&self) -> Zeroizing<Vec<u8>>;
    /// Takes back what [`Aggregate::encode`] gave.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
    /// What it can be listed by.
    fn labels(&self, labels: &Labels<'_>) -> Vec<(LabelName, String)>;
    /// When its record becomes garbage; `None` = never.
    fn expires_at(&self) -> Option<Timestamp>;
    /// When somebody should look at it; `None` = never.
    fn due_at(&self, timing: Self::Timing) -> Option<Timestamp>;
}

/// Why opened bytes are no such value. Never shows any of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later tokenkeep.
    #[error("written in form {found}; this tokenkeep knows forms up to {known}")]
    FutureForm {
        /// Its form.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Not in the form we write.
    #[error("not in the form we write (at byte {at})")]
    Malformed {
        /// Roughly where.
        at: usize,
    },
    /// It is the value of another record.
    #[error("it is the value of another record")]
    Misplaced,
}

/// How label values are written: in the clear, or hashed where they would name a person.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    pub(super) hashes: &'a Hashes,
    pub(super) hash_subjects: bool,
}

impl Labels<'_> {
    /// The value of [`LabelName::Subject`].
    pub fn subject(&self, subject: &Subject) -> String {
        if self.hash_subjects { self.hashes.label(subject.as_str()) } else { subject.as_str().to_owned() }
    }

    /// The value of [`LabelName::Provider`] for what a client was given. An id may be longer than a label: hashed.
    pub fn client(&self, id: &ClientId) -> String {
        self.hashes.label(id.as_str())
    }

    /// A tenant where its name does not fit: always hashed.
    pub fn tenant(&self, tenant: &Tenant) -> String {
        self.hashes.label(tenant.as_str())
    }

    /// What `id` is called where instances share something beside the store. Short, and no secret.
    pub fn shared(&self, what: &str, id: &ConnectionId) -> String {
        let ConnectionId { integration, tenant, subject } = id;
        let subject = self.subject(subject);
        // An integration's id holds no slash, so with none in the tenant this reads back one way only.
        if tenant.as_str().contains(['/', '%']) {
            format!("{what}:%{}/{integration}/{subject}", self.tenant(tenant))
        } else {
            format!("{what}:{tenant}/{integration}/{subject}")
        }
    }

    /// The value of [`LabelName::Connection`]: always hashed.
    pub fn connection(&self, id: &ConnectionId) -> String {
        self.hashes.label(&id.to_string())
    }
}
