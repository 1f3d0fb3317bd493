//! What a connection logs in with, where its provider knows no OAuth.

use std::time::Duration;

pub use tokenkeep_oauth::{CredentialKind, Credentials};

/// Credentials that are stored beside a connection, and spent for each of its tokens.
#[derive(Clone, Debug)]
pub struct LoginGrant {
    /// The credentials.
    pub credentials: Credentials,
    /// How long a token of this connection lives, where whoever stored the credentials says so. A reply that says less is
    /// believed.
    pub ttl: Option<Duration>,
}
