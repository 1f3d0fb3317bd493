//! What an issuer says of itself (OIDC Discovery 1.0, RFC 8414).

use http::StatusCode;
use serde::Deserialize;
use url::Url;

use crate::{BuildError, endpoint};

/// Builds the URLs under which an issuer's metadata may stand, in the order to try them: OIDC's (appended
/// to the issuer), then RFC 8414's (inserted before its path).
///
/// ```
/// let urls = tokenkeep_oauth::discovery::build_metadata_urls("https://id.example.com/acme").unwrap();
/// assert_eq!(urls[0].as_str(), "https://id.example.com/acme/.well-known/openid-configuration");
/// assert_eq!(urls[1].as_str(), "https://id.example.com/.well-known/oauth-authorization-server/acme");
/// ```
pub fn build_metadata_urls(issuer: &str) -> Result<[Url; 2], BuildError> {
    let url = endpoint::parse(issuer).map_err(|problem| BuildError::InvalidUrl { problem })?;
    if url.query().is_some() {
        return Err(BuildError::InvalidUrl { problem: "an issuer has no query" });
    }
    let path = url.path().trim_end_matches('/');
    let at = |path: &str| {
        let mut url = url.clone();
        url.set_path(path);
        url
    };
    Ok([
        at(&format!("{path}/.well-known/openid-configuration")),
        at(&format!("/.well-known/oauth-authorization-server{path}")),
    ])
}

/// The parts of an issuer's metadata that we use. Every endpoint in it may be sent secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The issuer, as it was asked for.
    pub issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: Option<Url>,
    /// Where codes and refresh tokens are exchanged.
    pub token_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<Url>,
    /// Where the signed-in user is described.
    pub userinfo_endpoint: Option<Url>,
    /// Its public keys.
    pub jwks_uri: Option<Url>,
    /// How clients may prove themselves; `client_secret_basic` where it does not say (RFC 8414 2).
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// PKCE methods; empty means that nobody knows.
    pub code_challenge_methods_supported: Vec<String>,
    /// RFC 9207: whether every callback carries `iss`.
    pub authorization_response_iss_parameter_supported: bool,
    /// Scopes.
    pub scopes_supported: Vec<String>,
    /// `query`, `form_post`, ...
    pub response_modes_supported: Vec<String>,
}

/// Why metadata is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Nothing stands under this URL (404, 410): try the next one.
    #[error("there is no metadata (status {0})")]
    Absent(StatusCode),
    /// The issuer could not answer: try again later.
    #[error("the issuer could not answer (status {0})")]
    Unavailable(StatusCode),
    /// The reply is no metadata.
    #[error("the metadata cannot be read")]
    Malformed,
    /// It is another issuer's (RFC 8414 3.3).
    #[error("the metadata names another issuer")]
    IssuerMismatch,
    /// An endpoint may not be sent secrets.
    #[error("the metadata's `{member}` cannot be used: {problem}")]
    Endpoint {
        /// Which.
        member: &'static str,
        /// Why not.
        problem: &'static str,
    },
}

/// Reads the metadata of `issuer`. Its `issuer` must be the same byte for byte, so that nobody speaks for another,
/// and every endpoint must be `https` (or `http` on loopback).
pub fn parse_metadata(issuer: &str, status: StatusCode, body: &[u8]) -> Result<Metadata, DiscoveryError> {
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(DiscoveryError::Absent(status)),
        _ => return Err(DiscoveryError::Unavailable(status)),
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|_| DiscoveryError::Malformed)?;
    if wire.issuer != issuer {
        return Err(DiscoveryError::IssuerMismatch);
    }
    let url = |member, text: Option<String>| {
        text.map(|text| endpoint::parse(&text).map_err(|problem| DiscoveryError::Endpoint { member, problem }))
            .transpose()
    };
    Ok(Metadata {
        issuer: wire.issuer,
        authorization_endpoint: url("authorization_endpoint", wire.authorization_endpoint)?,
        token_endpoint: url("token_endpoint", wire.token_endpoint)?,
        revocation_endpoint: url("revocation_endpoint", wire.revocation_endpoint)?,
        device_authorization_endpoint: url("device_authorization_endpoint", wire.device_authorization_endpoint)?,
        userinfo_endpoint: url("userinfo_endpoint", wire.userinfo_endpoint)?,
        jwks_uri: url("jwks_uri", wire.jwks_uri)?,
        token_endpoint_auth_methods_supported: wire
            .token_endpoint_auth_methods_supported
            .unwrap_or_else(|| vec!["client_secret_basic".to_owned()]),
        code_challenge_methods_supported: wire.code_challenge_methods_supported.unwrap_or_default(),
        authorization_response_iss_parameter_supported: wire
            .authorization_response_iss_parameter_supported
            .unwrap_or_default(),
        scopes_supported: wire.scopes_supported.unwrap_or_default(),
        response_modes_supported: wire.response_modes_supported.unwrap_or_default(),
    })
}

/// The document; servers write `null` for what they lack.
#[derive(Deserialize)]
struct Wire {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    authorization_response_iss_parameter_supported: Option<bool>,
    scopes_supported: Option<Vec<String>>,
    response_modes_supported: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.example.com";

    fn parse(document: &serde_json::Value) -> Result<Metadata, DiscoveryError> {
        parse_metadata(ISSUER, StatusCode::OK, document.to_string().as_bytes())
    }

    #[test]
    fn an_issuer_without_a_path() {
        for issuer in [ISSUER, "https://id.example.com/"] {
            let [oidc, oauth] = build_metadata_urls(issuer).unwrap();
            assert_eq!(oidc.as_str(), "https://id.example.com/.well-known/openid-configuration");
            assert_eq!(oauth.as_str(), "https://id.example.com/.well-known/oauth-authorization-server");
        }
        for bad in ["http://id.example.com", "https://id.example.com?x=1", "id.example.com", "https://a@id.example.com"]
        {
            assert!(build_metadata_urls(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_members_we_use() {
        let metadata = parse(&json!({
            "issuer": ISSUER,
            "token_endpoint": "https://id.example.com/token",
            "revocation_endpoint": null,
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "claims_supported": ["sub"],
        }))
        .unwrap();
        assert_eq!(metadata.token_endpoint.unwrap().as_str(), "https://id.example.com/token");
        assert_eq!(metadata.revocation_endpoint, None);
        assert_eq!(metadata.token_endpoint_auth_methods_supported, ["client_secret_basic"]);
        assert_eq!(metadata.code_challenge_methods_supported, ["S256"]);
        assert!(metadata.authorization_response_iss_parameter_supported);
    }

    #[test]
    fn what_is_not_believed() {
        assert_eq!(parse(&json!({"issuer": "https://id.example.com/"})), Err(DiscoveryError::IssuerMismatch));
        assert_eq!(parse(&json!({})), Err(DiscoveryError::Malformed));
        assert_eq!(parse(&json!({"issuer": ISSUER, "jwks_uri": 7})), Err(DiscoveryError::Malformed));
        let plain = parse(&json!({"issuer": ISSUER, "token_endpoint": "http://id.example.com/token"}));
        assert!(matches!(plain, Err(DiscoveryError::Endpoint { member: "token_endpoint", .. })));
        let at = |status| parse_metadata(ISSUER, status, b"");
        assert!(matches!(at(StatusCode::NOT_FOUND), Err(DiscoveryError::Absent(_))));
        assert!(matches!(at(StatusCode::BAD_GATEWAY), Err(DiscoveryError::Unavailable(_))));
        assert!(matches!(at(StatusCode::FOUND), Err(DiscoveryError::Unavailable(_))));
    }
}
