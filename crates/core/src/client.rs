//! Who may ask our authorization server for tokens (RFC 6749 2).

use std::{collections::BTreeSet, fmt, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jiff::Timestamp;
use tokenkeep_oauth::issuer::{client::ClientMetadata, resource::Resource};

use crate::{ClientId, time::after};

/// A dynamically registered client that nobody used is forgotten after this.
pub const UNUSED_LIFE: Duration = Duration::from_hours(24);

/// One that is used is forgotten this long after its last use.
pub const USED_LIFE: Duration = Duration::from_hours(90 * 24);

/// A use is noted at most this often: noting each would be a write per token.
const NOTED_EVERY: Duration = Duration::from_hours(24);

/// A client of ours: a program that asks for tokens.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its `client_id`.
    pub id: ClientId,
    /// What it said of itself, or the operator of it.
    pub metadata: ClientMetadata,
    /// What it proves itself with, where it has a secret.
    pub secret: Option<ClientSecretHash>,
    /// How it came to be known.
    pub origin: ClientOrigin,
    /// The resources it may ask for; `None` = all that are protected.
    pub resources: Option<BTreeSet<Resource>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last seen to be used, to the day.
    pub used_at: Option<Timestamp>,
}

/// How a client came to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOrigin {
    /// The operator made it, over the API.
    Api,
    /// It stands in the configuration file, and is changed there.
    Config,
    /// It registered itself (RFC 7591). Expires if it is not used.
    Registered {
        /// Of the token that manages it (RFC 7592); `None` for public clients, which are immutable.
        management: Option<ManagementHash>,
    },
    /// Its id is the address of the document that describes it. It has no record.
    Document,
}

impl ClientOrigin {
    /// The stable word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Config => "config",
            Self::Registered { .. } => "registered",
            Self::Document => "document",
        }
    }
}

/// The keyed hash of a registration access token.
#[derive(Clone, Copy)]
pub struct ManagementHash(pub [u8; 32]);

impl PartialEq for ManagementHash {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for ManagementHash {}

impl fmt::Debug for ManagementHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManagementHash")
    }
}

/// What is kept of a client secret.
#[derive(Clone)]
pub enum ClientSecretHash {
    /// Of a secret that we drew: its keyed SHA-256. 256 random bits need no slow hash.
    Keyed([u8; 32]),
    /// Of a secret that somebody chose: Argon2id, in PHC form.
    Argon2id(String),
}

impl fmt::Debug for ClientSecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyed(_) => "Keyed",
            Self::Argon2id(_) => "Argon2id",
        })
    }
}

impl Client {
    /// When it is forgotten; `None` = never by itself.
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self.origin {
            ClientOrigin::Api | ClientOrigin::Config | ClientOrigin::Document => None,
            ClientOrigin::Registered { .. } => Some(match self.used_at {
                Some(used_at) => after(used_at, USED_LIFE),
                None => after(self.created_at, UNUSED_LIFE),
            }),
        }
    }

    /// Whether it is known at `now`: what has expired may be there until it is swept.
    pub fn is_known(&self, now: Timestamp) -> bool {
        self.expires_at().is_none_or(|end| now < end)
    }

    /// Whether it may ask for tokens for `resource`.
    pub fn may_reach(&self, resource: &Resource) -> bool {
        self.resources.as_ref().is_none_or(|allowed| allowed.contains(resource))
    }

    /// The client as it is after a use at `now`; `None` if nothing worth writing changes.
    pub fn used(&self, now: Timestamp) -> Option<Self> {
        let stale = self.used_at.is_none_or(|used_at| after(used_at, NOTED_EVERY) <= now);
        (stale && self.expires_at().is_some()).then(|| Self { used_at: Some(now), ..self.clone() })
    }
}
