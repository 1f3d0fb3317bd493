//! What counts no more, although it looks as if it did.

use jiff::Timestamp;

use crate::ClientId;

/// Something that is good once, or was taken back, and that no other record keeps. Remembered until it would be dead
/// anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voided {
    /// Which.
    pub id: VoidedId,
    /// When it may be forgotten.
    pub expires_at: Timestamp,
    /// Of all that a client has: what was issued later counts. `None` = it is one thing.
    pub issued_until: Option<Timestamp>,
}

/// Names what is voided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VoidedId(String);

impl VoidedId {
    /// An access token that belongs to no grant.
    pub fn access_token(jti: &str) -> Self {
        Self(format!("access_token:{jti}"))
    }

    /// Every access token of this client's that belongs to no grant.
    pub fn tokens_of(client: &ClientId) -> Self {
        Self(format!("client:{client}"))
    }

    /// A client's assertion (RFC 7523 3, `jti`). `jti` is the client's word: hash it.
    pub fn assertion(client: &ClientId, jti_hash: &str) -> Self {
        Self(format!("assertion:{client}:{jti_hash}"))
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes back what [`VoidedId::as_str`] gave.
    pub fn from_stored(text: &str) -> Self {
        Self(text.to_owned())
    }
}
