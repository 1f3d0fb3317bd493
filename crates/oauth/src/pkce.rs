//! Proof Key for Code Exchange (RFC 7636), S256 only.

use std::fmt;

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;

use crate::Secret;

/// `code_challenge_method`: the only one there is here.
pub const METHOD: &str = "S256";

/// A code verifier (RFC 7636 4.1): whoever holds it may redeem the code.
#[derive(Clone)]
pub struct Verifier(Secret);

impl Verifier {
    /// Makes a verifier of 43 characters from 32 random bytes, as RFC 7636 4.1 recommends.
    pub fn from_entropy(entropy: &[u8; 32]) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(entropy).into())
    }

    /// Takes a stored verifier back; `None` if it is not 43 to 128 unreserved characters.
    pub fn from_secret(text: Secret) -> Option<Self> {
        let valid = {
            let text = text.expose_secret();
            (43..=128).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
        };
        valid.then_some(Self(text))
    }

    /// The challenge that goes into the authorization URL (RFC 7636 4.2). It reveals nothing.
    pub fn challenge(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.0.expose_secret().as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(hash)
    }

    /// The text that goes into the token request.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

impl From<Verifier> for Secret {
    fn from(verifier: Verifier) -> Secret {
        verifier.0
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636 appendix B.
    #[test]
    fn the_rfc_vector() {
        let entropy = [
            116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105, 214, 191,
            240, 91, 88, 5, 88, 83, 132, 141, 121,
        ];
        let verifier = Verifier::from_entropy(&entropy);
        assert_eq!(verifier.secret().expose_secret(), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_stored_verifier_is_checked() {
        let verifier = Verifier::from_entropy(&[7; 32]);
        let again = Verifier::from_secret(verifier.secret().clone()).unwrap();
        assert_eq!(again.challenge(), verifier.challenge());
        for bad in ["", &"a".repeat(42), &"a".repeat(129), &"+".repeat(43)] {
            assert!(Verifier::from_secret(Secret::from(bad)).is_none(), "{bad}");
        }
    }
}
