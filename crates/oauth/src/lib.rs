//! The OAuth 2 wire, and nothing else.
//!
//! A request is *built* from plain values and a reply is *parsed* into plain values; between the two stands
//! somebody else's HTTP client. Nothing here opens a socket, reads a clock or draws a random number: whatever
//! depends on time takes `now`, whatever depends on chance takes bytes. How a provider departs from the RFCs is
//! data, a [`Dialect`].

pub mod client;
pub mod client_assertion;
pub mod dialect;
pub mod errors;
pub mod params;
mod reply;
pub mod text;
pub mod token;

pub use client::{Client, SigningKey};
pub use dialect::Dialect;
pub use errors::ErrorCode;
pub use reply::{MAX_RETRY_AFTER, parse_retry_after};
/// A secret string: redacted in `Debug`, not `Serialize`, wiped when dropped. Read it with
/// [`secrecy::ExposeSecret`], compare it with [`secret_eq`].
pub use secrecy::SecretString as Secret;

use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

/// Compares two secrets in time that depends on their lengths only.
pub fn secret_eq(a: &Secret, b: &Secret) -> bool {
    a.expose_secret().as_bytes().ct_eq(b.expose_secret().as_bytes()).into()
}

/// Why a request could not be built: the configuration lacks something. Nothing was sent; retrying cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A template names a parameter that the integration does not have.
    #[error("the parameter `{name}` is missing")]
    MissingParam {
        /// Its name.
        name: String,
    },
    /// The client must sign and has no key.
    #[error("the client has no signing key")]
    MissingKey,
    /// The client's key is of the wrong kind (Apple: ES256 with a `kid`).
    #[error("the client's signing key is of the wrong kind or has no key id")]
    WrongKey,
    /// The key failed to sign.
    #[error("signing failed")]
    Signing,
    /// The dialect has no such grant.
    #[error("the provider has no such grant")]
    NoSuchGrant,
    /// A header of the catalogue cannot be sent.
    #[error("the header `{name}` cannot be sent")]
    InvalidHeader {
        /// Its name.
        name: String,
    },
    /// A URL cannot be used.
    #[error("the URL cannot be used: {problem}")]
    InvalidUrl {
        /// What is wrong with it.
        problem: &'static str,
    },
}
