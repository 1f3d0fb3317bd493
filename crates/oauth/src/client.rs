//! Our client at a provider, and the ways it proves itself.

use std::fmt;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::{BuildError, Secret};

/// Our client at a provider (RFC 6749 2).
#[derive(Clone, Debug)]
pub struct Client {
    /// The client id. Empty where a provider knows no clients: then none is sent.
    pub id: String,
    /// The client secret; `None` for a public client or one that signs.
    pub secret: Option<Secret>,
    /// What assertions are signed with (`private_key_jwt`, Apple, service accounts).
    pub key: Option<SigningKey>,
}

impl Client {
    /// A public client.
    pub fn public(id: impl Into<String>) -> Self {
        Self { id: id.into(), secret: None, key: None }
    }

    /// A client with a secret.
    pub fn with_secret(id: impl Into<String>, secret: Secret) -> Self {
        Self { id: id.into(), secret: Some(secret), key: None }
    }

    /// A client that signs.
    pub fn with_key(id: impl Into<String>, key: SigningKey) -> Self {
        Self { id: id.into(), secret: None, key: Some(key) }
    }

    pub(crate) fn key(&self) -> Result<&SigningKey, BuildError> {
        self.key.as_ref().ok_or(BuildError::MissingKey)
    }
}

/// A private key that signs JWTs. It cannot be printed or serialized, and is wiped when dropped.
#[derive(Clone)]
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
    kid: Option<String>,
}

/// Why a PEM text is no key of ours. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// SEC 1, not PKCS#8.
    #[error("the key is in SEC 1 form (`EC PRIVATE KEY`); convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    Sec1,
    /// Something else.
    #[error("the text is no PEM private key of the kinds P-256, RSA (2048 bits or more) or Ed25519")]
    Unusable,
}

impl SigningKey {
    /// Reads a PEM private key: P-256 (signs ES256), Ed25519 (`EdDSA`), both PKCS#8, or RSA (RS256), PKCS#8 or PKCS#1.
    /// `kid` names it in the JWT header. The key is tried once, so that a bad one is found now.
    pub fn from_pem(pem: &Secret, kid: Option<String>) -> Result<Self, KeyError> {
        let text = pem.expose_secret();
        if text.contains("-----BEGIN EC PRIVATE KEY-----") {
            return Err(KeyError::Sec1);
        }
        let bytes = text.as_bytes();
        let (key, algorithm) = EncodingKey::from_ec_pem(bytes)
            .map(|key| (key, Algorithm::ES256))
            .or_else(|_| EncodingKey::from_ed_pem(bytes).map(|key| (key, Algorithm::EdDSA)))
            .or_else(|_| EncodingKey::from_rsa_pem(bytes).map(|key| (key, Algorithm::RS256)))
            .map_err(|_| KeyError::Unusable)?;
        let key = Self { key, algorithm, kid };
        key.sign(&Value::Null).map_err(|_| KeyError::Unusable)?;
        Ok(key)
    }

    /// The JWS algorithm it signs with: `ES256`, `RS256` or `EdDSA`.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::ES256 => "ES256",
            Algorithm::RS256 => "RS256",
            _ => "EdDSA",
        }
    }

    /// Its name in JWT headers.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Signs `claims` as a compact JWS.
    pub(crate) fn sign(&self, claims: &Value) -> Result<Secret, BuildError> {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.kid);
        jsonwebtoken::encode(&header, claims, &self.key).map(Secret::from).map_err(|_| BuildError::Signing)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}
