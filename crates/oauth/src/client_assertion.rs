//! Signed assertions in place of secrets (RFC 7521, RFC 7523): who we are, or on whose behalf we ask.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::json;

use crate::{
    BuildError, Secret,
    client::{Client, KeyError, SigningKey},
};

/// `client_assertion_type` (RFC 7523 2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long a client assertion is good: long enough for clocks that differ, too short to be worth stealing.
pub const ASSERTION_LIFETIME: Duration = Duration::from_mins(5);

/// The longest life of a bearer assertion that Google and others take.
pub const MAX_BEARER_LIFETIME: Duration = Duration::from_hours(1);

/// Whom Apple's client secret is addressed to.
pub const APPLE_AUDIENCE: &str = "https://appleid.apple.com";

/// Builds a `client_assertion` (RFC 7523 3): issuer and subject are the client, `audience` is the token endpoint or
/// the issuer, `entropy` becomes the `jti` and must be fresh each time.
pub fn build_client_assertion(
    client: &Client,
    audience: &str,
    entropy: &[u8; 16],
    now: Timestamp,
) -> Result<Secret, BuildError> {
    let iat = now.as_second();
    client.key()?.sign(&json!({
        "iss": client.id,
        "sub": client.id,
        "aud": audience,
        "jti": BASE64_URL_SAFE_NO_PAD.encode(entropy),
        "iat": iat,
        "exp": iat.saturating_add(seconds(ASSERTION_LIFETIME)),
    }))
}

/// Builds the `client_secret` that Apple wants: signed with the team's ES256 key, which must have a `kid`, for the
/// client (the Services ID). Apple takes six months; this one is made for one request.
pub fn build_apple_secret(client: &Client, team_id: &str, now: Timestamp) -> Result<Secret, BuildError> {
    let key = client.key()?;
    if key.algorithm() != "ES256" || key.kid().is_none() {
        return Err(BuildError::WrongKey);
    }
    let iat = now.as_second();
    key.sign(&json!({
        "iss": team_id,
        "sub": client.id,
        "aud": APPLE_AUDIENCE,
        "iat": iat,
        "exp": iat.saturating_add(seconds(ASSERTION_LIFETIME)),
    }))
}

/// What a bearer assertion says (RFC 7523 3).
#[derive(Clone, Copy, Debug)]
pub struct BearerClaims<'a> {
    /// Who asks: a service account's address, a client id.
    pub issuer: &'a str,
    /// On whose behalf, where that is another (Google's domain-wide delegation).
    pub subject: Option<&'a str>,
    /// The token endpoint.
    pub audience: &'a str,
    /// Scopes, where the provider reads them from the assertion (Google).
    pub scope: Option<&'a str>,
    /// How long it is good; at most [`MAX_BEARER_LIFETIME`].
    pub lifetime: Duration,
}

/// Builds the `assertion` of a JWT bearer grant (RFC 7523 2.1).
pub fn build_bearer_assertion(
    key: &SigningKey,
    claims: BearerClaims<'_>,
    now: Timestamp,
) -> Result<Secret, BuildError> {
    let iat = now.as_second();
    let mut body = json!({
        "iss": claims.issuer,
        "aud": claims.audience,
        "iat": iat,
        "exp": iat.saturating_add(seconds(claims.lifetime.min(MAX_BEARER_LIFETIME))),
    });
    if let Some(scope) = claims.scope {
        body["scope"] = scope.into();
    }
    if let Some(subject) = claims.subject {
        body["sub"] = subject.into();
    }
    key.sign(&body)
}

fn seconds(d: Duration) -> i64 {
    i64::try_from(d.as_secs()).unwrap_or(i64::MAX)
}

/// What a Google service account's key file holds.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    /// The account's address: the issuer of its assertions.
    pub client_email: String,
    /// Its key, named by `private_key_id`.
    pub key: SigningKey,
    /// Where its assertions are exchanged, and whom they are addressed to.
    pub token_uri: String,
}

/// Why a text is no service account's key file. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceAccountError {
    /// Not JSON of that shape.
    #[error("this is no service account key file: `type`, `client_email` and `private_key` must be there")]
    Malformed,
    /// The key in it cannot be used.
    #[error("the key file's `private_key` cannot be used")]
    Key(#[source] KeyError),
}

/// Parses a Google service account's JSON key file.
pub fn parse_service_account(file: &Secret) -> Result<ServiceAccount, ServiceAccountError> {
    #[derive(Deserialize)]
    struct Wire {
        r#type: String,
        client_email: String,
        private_key: Secret,
        private_key_id: Option<String>,
        token_uri: Option<String>,
    }
    let wire: Wire = serde_json::from_str(file.expose_secret()).map_err(|_| ServiceAccountError::Malformed)?;
    if wire.r#type != "service_account" || wire.client_email.is_empty() {
        return Err(ServiceAccountError::Malformed);
    }
    let key = SigningKey::from_pem(&wire.private_key, wire.private_key_id).map_err(ServiceAccountError::Key)?;
    let token_uri = wire.token_uri.unwrap_or_else(|| "https://oauth2.googleapis.com/token".to_owned());
    Ok(ServiceAccount { client_email: wire.client_email, key, token_uri })
}
