//! How a server refuses (RFC 6749 4.1.2.1 and 5.2, RFC 6750 3.1, RFC 7591 3.2.2).

use std::{borrow::Cow, fmt};

use http::StatusCode;
use serde_json::json;

use crate::ErrorCode;

/// An OAuth error: a word of the registry, and a sentence of ours for the developer of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthError {
    /// The word.
    pub code: ErrorCode,
    /// The sentence. Never holds what somebody sent.
    pub description: Cow<'static, str>,
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:ident;)*) => {
        impl OAuthError {
            $($(#[$doc])* pub fn $name(description: impl Into<Cow<'static, str>>) -> Self {
                Self { code: ErrorCode::$code, description: description.into() }
            })*
        }
    };
}

errors! {
    /// The request lacks something, repeats it or makes no sense.
    invalid_request = INVALID_REQUEST;
    /// The client is unknown or failed to prove itself.
    invalid_client = INVALID_CLIENT;
    /// The code or refresh token leads to nothing.
    invalid_grant = INVALID_GRANT;
    /// The client may not do this.
    unauthorized_client = UNAUTHORIZED_CLIENT;
    /// There is no such grant here.
    unsupported_grant_type = UNSUPPORTED_GRANT_TYPE;
    /// There is no such response type here.
    unsupported_response_type = UNSUPPORTED_RESPONSE_TYPE;
    /// The scope is unknown, or too much.
    invalid_scope = INVALID_SCOPE;
    /// The resource is unknown, or not allowed.
    invalid_target = INVALID_TARGET;
    /// The user or a rule says no.
    access_denied = ACCESS_DENIED;
    /// The user must be asked, and must not be.
    interaction_required = INTERACTION_REQUIRED;
    /// The user was not asked for this, or did not allow it.
    consent_required = CONSENT_REQUIRED;
    /// The bearer token does not count.
    invalid_token = INVALID_TOKEN;
    /// The bearer token does not go so far.
    insufficient_scope = INSUFFICIENT_SCOPE;
    /// A redirect URI cannot be registered.
    invalid_redirect_uri = INVALID_REDIRECT_URI;
    /// What a client says of itself cannot be registered.
    invalid_client_metadata = INVALID_CLIENT_METADATA;
    /// Request objects are not taken.
    request_not_supported = REQUEST_NOT_SUPPORTED;
    /// Request objects are not fetched.
    request_uri_not_supported = REQUEST_URI_NOT_SUPPORTED;
    /// Try again later.
    temporarily_unavailable = TEMPORARILY_UNAVAILABLE;
    /// Something broke.
    server_error = SERVER_ERROR;
}

impl OAuthError {
    /// The HTTP status it goes with where it is not sent by a redirect.
    pub fn status(&self) -> StatusCode {
        match self.code.as_str() {
            "invalid_client" | "invalid_token" => StatusCode::UNAUTHORIZED,
            "insufficient_scope" | "access_denied" => StatusCode::FORBIDDEN,
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The body it goes with (RFC 6749 5.2).
    pub fn to_json(&self) -> String {
        json!({"error": self.code.as_str(), "error_description": self.description}).to_string()
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.description)
    }
}

impl std::error::Error for OAuthError {}
