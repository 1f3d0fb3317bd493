//! The OAuth 2 wire, and nothing else.
//!
//! A request is *built* from plain values and a reply is *parsed* into plain values; between the two stands
//! somebody else's HTTP client. Nothing here opens a socket, reads a clock or draws a random number: whatever
//! depends on time takes `now`, whatever depends on chance takes bytes. How a provider departs from the RFCs is
//! data, a [`Dialect`].

pub mod dialect;

pub use dialect::Dialect;
/// A secret string: redacted in `Debug`, not `Serialize`, wiped when dropped. Read it with
/// [`secrecy::ExposeSecret`], compare it with [`secret_eq`].
pub use secrecy::SecretString as Secret;

use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

/// Compares two secrets in time that depends on their lengths only.
pub fn secret_eq(a: &Secret, b: &Secret) -> bool {
    a.expose_secret().as_bytes().ct_eq(b.expose_secret().as_bytes()).into()
}
