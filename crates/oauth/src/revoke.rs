//! Taking a token back: RFC 7009, and the ways of those who have their own.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    BuildError, ErrorCode, Secret,
    client::Client,
    dialect::Dialect,
    params::Params,
    quiet::parse_retry_after,
    reply::{Document, text},
    token::{RequestContext, TokenRequest, basic, client_request, set_headers},
};

/// Which token is revoked (`token_type_hint`, RFC 7009 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An access token.
    Access,
    /// A refresh token; a good server ends the whole grant with it.
    Refresh,
}

/// Builds an RFC 7009 revocation request.
pub fn build_revocation_request(
    dialect: &Dialect,
    url: &Url,
    client: &Client,
    token: &Secret,
    kind: TokenKind,
    context: &RequestContext<'_>,
) -> Result<TokenRequest, BuildError> {
    let mut params = Params::new();
    params.set("token", token.expose_secret());
    let hint = match kind {
        TokenKind::Access => "access_token",
        TokenKind::Refresh => "refresh_token",
    };
    params.set("token_type_hint", hint);
    client_request(dialect, url, client, context, params)
}

/// Builds a revocation whose proof is the access token itself, as the bearer: Dropbox (POST), Heroku (DELETE).
pub fn build_bearer_revocation(
    dialect: &Dialect,
    method: Method,
    url: &Url,
    client: &Client,
    access_token: &Secret,
    context: &RequestContext<'_>,
) -> Result<TokenRequest, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let text = Zeroizing::new(format!("Bearer {}", access_token.expose_secret()));
    let mut bearer = HeaderValue::from_str(&text)
        .map_err(|_| BuildError::InvalidHeader { name: AUTHORIZATION.as_str().to_owned() })?;
    bearer.set_sensitive(true);
    headers.insert(AUTHORIZATION, bearer);
    set_headers(dialect, client, context, &mut headers)?;
    Ok(TokenRequest { method, url: url.clone(), headers, body: Zeroizing::default() })
}

/// Builds a revocation by DELETE with the client's Basic credentials and `{"access_token": ...}` (GitHub).
pub fn build_basic_delete(
    dialect: &Dialect,
    url: &Url,
    client: &Client,
    access_token: &Secret,
    context: &RequestContext<'_>,
) -> Result<TokenRequest, BuildError> {
    let secret = client.secret.as_ref().ok_or(BuildError::MissingSecret)?;
    let mut params = Params::new();
    params.set("access_token", access_token.expose_secret());
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(AUTHORIZATION, basic(&client.id, secret));
    set_headers(dialect, client, context, &mut headers)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(TokenRequest { method: Method::DELETE, url: url.clone(), headers, body: params.to_json() })
}

/// Why a token may still be good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationFailure {
    /// The provider refused; asking again will not help.
    #[error("the provider refused to revoke ({code})")]
    Refused {
        /// The provider's word for it.
        code: ErrorCode,
    },
    /// The provider failed or is busy: try again (RFC 7009 2.2.1).
    #[error("the provider could not revoke now (status {status})")]
    Unavailable {
        /// The HTTP status.
        status: StatusCode,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
}

/// Judges the reply to any of the requests above. A token that the provider no longer knows is revoked, by whatever
/// name it says so (200, 404, 410, `invalid_token`, `invalid_grant`).
pub fn parse_revocation_response(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), RevocationFailure> {
    let document = Document::parse(body);
    let code = document.as_ref().and_then(|d| text(d.value(), "error")).map(ErrorCode::from_wire);
    // Slack answers a refusal with 200.
    let denied = document.as_ref().is_some_and(|d| d.value().get("ok") == Some(&false.into()));
    let gone = |code: &ErrorCode| {
        matches!(code.as_str(), "invalid_token" | "invalid_grant" | "token_revoked" | "token_expired" | "invalid_auth")
    };
    if code.as_ref().is_some_and(gone) && !status.is_server_error() {
        return Ok(());
    }
    match status {
        _ if status.is_success() && !denied => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Ok(()),
        _ if status.is_success() || (status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS) => {
            Err(RevocationFailure::Refused { code: code.unwrap_or(ErrorCode::UNRECOGNISED) })
        }
        _ => Err(RevocationFailure::Unavailable { status, retry_after: parse_retry_after(headers, now) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, body: &str) -> Result<(), RevocationFailure> {
        let status = StatusCode::from_u16(status).unwrap();
        parse_revocation_response(status, &HeaderMap::new(), body.as_bytes(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn gone_is_revoked_and_a_failure_is_not() {
        for (status, body) in [
            (200, ""),
            (204, ""),
            (404, "<html>"),
            (400, r#"{"error":"invalid_token"}"#),
            (200, r#"{"ok":true,"revoked":true}"#),
            (200, r#"{"ok":false,"error":"token_revoked"}"#),
        ] {
            assert_eq!(judge(status, body), Ok(()), "{status} {body}");
        }
        let refused = |code| Err(RevocationFailure::Refused { code });
        assert_eq!(judge(400, r#"{"error":"unsupported_token_type"}"#), refused(ErrorCode::UNSUPPORTED_TOKEN_TYPE));
        assert_eq!(judge(200, r#"{"ok":false,"error":"not_authed"}"#), refused(ErrorCode::from_wire("not_authed")));
        assert_eq!(judge(403, "no"), refused(ErrorCode::UNRECOGNISED));
        for status in [302, 429, 500, 503] {
            assert!(matches!(
                judge(status, r#"{"error":"invalid_request"}"#),
                Err(RevocationFailure::Unavailable { .. })
            ));
        }
        assert!(matches!(judge(500, r#"{"error":"invalid_token"}"#), Err(RevocationFailure::Unavailable { .. })));
    }
}
