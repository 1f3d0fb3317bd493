//! The OAuth 2 wire, and nothing else.
//!
//! A request is *built* from plain values and a reply is *parsed* into plain values; between the two stands
//! somebody else's HTTP client. Nothing here opens a socket, reads a clock or draws a random number: whatever
//! depends on time takes `now`, whatever depends on chance takes bytes. How a provider departs from the RFCs is
//! data, a [`Dialect`].
//!
//! | room | RFC |
//! |---|---|
//! | [`authorize`], [`pkce`] | 6749 4.1.1-2, 7636, 9207: send the browser off, read what it brings back |
//! | [`token`] | 6749 4-6: exchange a grant, and learn what a failure *means* |
//! | [`client`], [`client_assertion`] | 6749 2.3, 7523: prove who we are |
//! | [`login`], [`credentials`] | none, where a provider has no OAuth: a username and a password bring a token |
//! | [`device`] | 8628: a code shown here and typed in elsewhere |
//! | [`revoke`] | 7009: take a token back |
//! | [`discovery`], [`id_token`] | 8414, OIDC: what an issuer says of itself, and who signed in |
//! | [`issuer`] | 6749, 7591, 8707, ...: the other side, where we are the server |
//! | [`errors`], [`text`], [`endpoint`] | what others wrote, made safe to keep, to show, to send secrets to |
//!
//! A refresh, from the stored token to the next one:
//!
//! ```
//! use http::{HeaderMap, StatusCode};
//! use tokenkeep_oauth::{Client, Dialect, Secret, params::Vars, token::*};
//!
//! let now = "2026-01-01T00:00:00Z".parse().unwrap();
//! let dialect = Dialect::default();
//! let client = Client::with_secret("our-client", Secret::from("our-secret"));
//! let grant = Grant::RefreshToken { refresh_token: Secret::from("r1"), scope: None };
//! let params = Vars::new();
//! let context = RequestContext::new(now, [0; 16], &params);
//! let url = "https://id.example.com/token".parse().unwrap();
//!
//! let request = build_token_request(&dialect, &url, &client, &grant, &context).unwrap();
//! assert_eq!(
//!     request.body.as_slice(),
//!     b"grant_type=refresh_token&refresh_token=r1&client_id=our-client&client_secret=our-secret",
//! );
//! assert_eq!(format!("{request:?}"), "POST https://id.example.com/token"); // never the body
//!
//! // ... somebody else's HTTP client sends it and brings back:
//! let body = br#"{"access_token": "a2", "expires_in": 3600, "refresh_token": "r2"}"#;
//! let reply = parse_token_response(&dialect, StatusCode::OK, &HeaderMap::new(), body, now, None).unwrap();
//! assert_eq!(reply.expires_at, Some("2026-01-01T01:00:00Z".parse().unwrap()));
//!
//! // A failure says first of all whether the refresh token may have been spent.
//! let reply = parse_token_response(&dialect, StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>", now, None);
//! assert!(!reply.unwrap_err().is_definitive());
//! ```

pub mod authorize;
pub mod client;
pub mod client_assertion;
pub mod credentials;
pub mod device;
pub mod dialect;
pub mod discovery;
pub mod endpoint;
pub mod errors;
pub mod id_token;
pub mod issuer;
pub mod login;
pub mod params;
pub mod pkce;
mod quiet;
mod reply;
pub mod revoke;
pub mod text;
pub mod token;

pub use client::{Client, SigningKey};
pub use credentials::{CredentialKind, Credentials};
pub use dialect::Dialect;
pub use errors::ErrorCode;
pub use quiet::{MAX_RETRY_AFTER, parse_quiet, parse_retry_after};
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
    /// The client must show its secret and has none.
    #[error("the client has no secret")]
    MissingSecret,
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
