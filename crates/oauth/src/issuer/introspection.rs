//! What a token is worth, told to those who may ask (RFC 7662 2.2).

use serde::Serialize;

use super::{
    access_token::{AccessTokenClaims, as_words},
    scope::ScopeSet,
};

/// The answer to an introspection request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IntrospectionReply<'a> {
    active: bool,
    #[serde(flatten)]
    token: Option<TokenDescription<'a>>,
}

/// What is said of a token that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TokenDescription<'a> {
    /// Us.
    pub iss: &'a str,
    /// On whose behalf.
    pub sub: &'a str,
    /// Where it may be used.
    pub aud: &'a str,
    /// Whom it was issued to.
    pub client_id: &'a str,
    /// What it is good for.
    #[serde(serialize_with = "as_words", skip_serializing_if = "ScopeSet::is_empty")]
    pub scope: &'a ScopeSet,
    /// When it was issued, in seconds.
    pub iat: i64,
    /// When it is dead, in seconds.
    pub exp: i64,
    /// Its own name; refresh tokens have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'a str>,
    /// How it is used (RFC 6749 5.1); refresh tokens are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<&'static str>,
    /// What to call the subject. For people, never an identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<&'a str>,
}

impl<'a> IntrospectionReply<'a> {
    /// The token does not count, or is none of the caller's business: which of the two, and why, is not said.
    pub const INACTIVE: Self = Self { active: false, token: None };

    /// The token counts.
    pub fn active(token: TokenDescription<'a>) -> Self {
        Self { active: true, token: Some(token) }
    }

    /// An access token of `issuer` counts.
    pub fn access_token(issuer: &'a str, claims: &'a AccessTokenClaims) -> Self {
        Self::active(TokenDescription {
            iss: issuer,
            sub: &claims.subject,
            aud: claims.audience.as_str(),
            client_id: &claims.client_id,
            scope: &claims.scope,
            iat: claims.issued_at.as_second(),
            exp: claims.expires_at.as_second(),
            jti: Some(&claims.jti),
            token_type: Some("Bearer"),
            username: claims.username.as_deref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{json, to_string, to_value};

    use super::*;
    use crate::issuer::resource::Resource;

    #[test]
    fn a_token_that_does_not_count_has_no_story() {
        assert_eq!(to_string(&IntrospectionReply::INACTIVE).unwrap(), r#"{"active":false}"#);
    }

    #[test]
    fn a_token_that_counts_is_described() {
        let claims = AccessTokenClaims {
            subject: "github|42".into(),
            audience: Resource::parse("https://a.example").unwrap(),
            client_id: "client_1".into(),
            scope: ScopeSet::parse("read write").unwrap(),
            jti: "j".into(),
            issued_at: Timestamp::from_second(1_000).unwrap(),
            expires_at: Timestamp::from_second(4_600).unwrap(),
            username: Some("alice".into()),
            session: None,
        };
        assert_eq!(
            to_value(IntrospectionReply::access_token("https://as.example", &claims)).unwrap(),
            json!({"active": true, "iss": "https://as.example", "sub": "github|42", "aud": "https://a.example",
                "client_id": "client_1", "scope": "read write", "iat": 1_000, "exp": 4_600, "jti": "j",
                "token_type": "Bearer", "username": "alice"})
        );
    }
}
