//! Validated identifiers: once a value has one of these types, no later code needs to look at it again.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
pub use ulid::Ulid;

/// Why a string is no identifier. The text is meant for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidIdentifier {
    /// Which identifier it should have been.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `value` and takes it as it is.
            pub fn new(value: &str) -> Result<Self, InvalidIdentifier> {
                match $check(value) {
                    None => Ok(Self(value.into())),
                    Some(problem) => Err(InvalidIdentifier { what: $what, problem }),
                }
            }
            /// The identifier as the caller wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        // Sets can be asked without making an identifier first: it compares and hashes like its text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidIdentifier;
            fn from_str(value: &str) -> Result<Self, InvalidIdentifier> {
                Self::new(value)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;
            fn try_from(value: String) -> Result<Self, InvalidIdentifier> {
                Self::new(&value)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// A workspace, company or organisation; `_default` where an application has none.
    Tenant, "tenant", opaque
}
name! {
    /// A user, actor or account within a tenant; `_default` where an application has one only.
    Subject, "subject", opaque
}
name! {
    /// A provider of the catalogue: `google`.
    ProviderId, "provider", slug
}
name! {
    /// Our client at a provider; by default named like it.
    IntegrationId, "integration", slug
}

name! {
    /// A client's `client_id` (RFC 6749 2.2): one that we drew, one that an operator chose, or the address of a document.
    ClientId, "client_id", visible
}

/// What stands where no tenant or subject is named.
pub const DEFAULT: &str = "_default";

/// The tenant of records that belong to the installation itself. No caller can name it.
const SYSTEM: &str = "_system";

impl Tenant {
    /// `_default`.
    pub fn default_tenant() -> Self {
        Self(DEFAULT.into())
    }
    /// The tenant of records that belong to the installation itself (integrations, keys).
    pub fn system() -> Self {
        Self(SYSTEM.into())
    }
    /// Takes back what [`Tenant::as_str`] gave, as a store must, the installation's own tenant included.
    pub fn from_stored(value: &str) -> Result<Self, InvalidIdentifier> {
        if value == SYSTEM { Ok(Self::system()) } else { Self::new(value) }
    }
}

impl Subject {
    /// `_default`.
    pub fn default_subject() -> Self {
        Self(DEFAULT.into())
    }
}

/// Tenants and subjects: 1-255 printable ASCII characters, but not what a path would swallow.
fn opaque(value: &str) -> Option<&'static str> {
    match value {
        "" => Some("is empty"),
        "." | ".." => Some("must not be `.` or `..`"),
        SYSTEM => Some("must not be `_system`"),
        _ if value.len() > 255 => Some("is longer than 255 characters"),
        _ if !value.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => {
            Some("holds something else than printable ASCII")
        }
        _ => None,
    }
}

/// Client ids: 1-255 printable ASCII characters without spaces. (RFC 6749 A.1 allows spaces; nobody uses them, and lists
/// are easier to read without.)
fn visible(value: &str) -> Option<&'static str> {
    match value {
        "" => Some("is empty"),
        _ if value.len() > 255 => Some("is longer than 255 characters"),
        _ if !value.bytes().all(|b| b.is_ascii_graphic()) => Some("holds something else than printable ASCII"),
        _ => None,
    }
}

/// Providers and integrations: 1-63 characters of `a-z 0-9 . _ -`, a letter or digit first.
fn slug(value: &str) -> Option<&'static str> {
    let mut bytes = value.bytes();
    match bytes.next() {
        None => Some("is empty"),
        Some(first) if !(first.is_ascii_lowercase() || first.is_ascii_digit()) => {
            Some("must start with a lower-case letter or a digit")
        }
        Some(_) if value.len() > 63 => Some("is longer than 63 characters"),
        Some(_) if !bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')) => {
            Some("may hold only a-z, 0-9, `.`, `_` and `-`")
        }
        Some(_) => None,
    }
}

/// One subject's authorization at one integration: `provider/tenant/subject`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId {
    /// Our client at the provider.
    pub integration: IntegrationId,
    /// Whose workspace.
    pub tenant: Tenant,
    /// Whose account.
    pub subject: Subject,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.integration, self.tenant, self.subject)
    }
}

impl FromStr for ConnectionId {
    type Err = InvalidIdentifier;

    /// `integration/tenant/subject`; the subject may hold slashes, the tenant may not (in this form).
    fn from_str(value: &str) -> Result<Self, InvalidIdentifier> {
        let mut parts = value.splitn(3, '/');
        let (Some(integration), Some(tenant), Some(subject)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidIdentifier {
                what: "connection",
                problem: "is not of the form provider/tenant/subject",
            });
        };
        Ok(Self { integration: integration.parse()?, tenant: tenant.parse()?, subject: subject.parse()? })
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub Ulid);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = InvalidIdentifier;
            fn from_str(value: &str) -> Result<Self, InvalidIdentifier> {
                value.parse().map(Self).map_err(|_| InvalidIdentifier { what: stringify!($name), problem: "is no ULID" })
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;
            fn try_from(value: String) -> Result<Self, InvalidIdentifier> {
                value.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.to_string()
            }
        }
    };
}

ulid_id! {
    /// One life of a connection between creation and deletion.
    Incarnation
}
ulid_id! {
    /// One intent to refresh.
    AttemptId
}
ulid_id! {
    /// One process, from start to end.
    InstanceId
}
ulid_id! {
    /// One key to the API.
    ApiKeyId
}
ulid_id! {
    /// One connect, from its link to its end.
    ConnectId
}

ulid_id! {
    /// What a subject allowed a client.
    GrantId
}
ulid_id! {
    /// One pending authorization at our own server.
    InteractionId
}

/// The number of a connection's TokenSet. Every committed reply adds one; it survives deletion and never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_take_what_providers_use() {
        for ok in ["alice", "github|42", "a@b.c", "a/b", "x:y=z+", "_default", "...", " "] {
            assert_eq!(Subject::new(ok).map(|s| s.to_string()).as_deref(), Ok(ok));
        }
        for bad in ["", ".", "..", "_system", "\n", "é", &"x".repeat(256)] {
            assert!(Subject::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn integrations_are_slugs() {
        for ok in ["google", "1c", "a.b_c-d"] {
            assert!(IntegrationId::new(ok).is_ok(), "{ok:?}");
        }
        for bad in ["", "Google", "-a", "a/b", "a b", &"x".repeat(64)] {
            assert!(IntegrationId::new(bad).is_err(), "{bad:?}");
        }
    }
}
