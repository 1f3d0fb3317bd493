//! The words with which servers refuse: the registry of RFC 6749, 7009, 8628, 9207 and OIDC.

use std::{borrow::Cow, fmt};

/// An OAuth error code: one of the registry's, or another short lower-case word that a provider uses.
///
/// Whatever else stands in an `error` member (a sentence, an echoed token) becomes [`ErrorCode::UNRECOGNISED`], so a
/// code is always fit for logs, metrics and error replies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(Cow<'static, str>);

macro_rules! registry {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: ErrorCode = ErrorCode(Cow::Borrowed($code));)*
            /// Every code of the registry.
            pub const REGISTRY: &[ErrorCode] = &[$(ErrorCode::$name),*];
        }
    };
}

registry! {
    /// RFC 6749 5.2: the request lacks something or repeats it.
    INVALID_REQUEST = "invalid_request";
    /// RFC 6749 5.2: the client failed to prove itself.
    INVALID_CLIENT = "invalid_client";
    /// RFC 6749 5.2: the code or refresh token is dead, or not this client's.
    INVALID_GRANT = "invalid_grant";
    /// RFC 6749 5.2: the client may not use this grant type.
    UNAUTHORIZED_CLIENT = "unauthorized_client";
    /// RFC 6749 5.2: the server does not know this grant type.
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type";
    /// RFC 6749 5.2: the scope is unknown, or more than was granted.
    INVALID_SCOPE = "invalid_scope";
    /// RFC 6749 4.1.2.1: the user or the server said no.
    ACCESS_DENIED = "access_denied";
    /// RFC 6749 4.1.2.1: the server does not know this response type.
    UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type";
    /// RFC 6749 4.1.2.1: the server failed.
    SERVER_ERROR = "server_error";
    /// RFC 6749 4.1.2.1: the server is overloaded or under maintenance.
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable";
    /// RFC 7009 2.2.1: this kind of token cannot be revoked.
    UNSUPPORTED_TOKEN_TYPE = "unsupported_token_type";
    /// RFC 8628 3.5: the user has not decided yet.
    AUTHORIZATION_PENDING = "authorization_pending";
    /// RFC 8628 3.5: not decided yet, and polled too fast.
    SLOW_DOWN = "slow_down";
    /// RFC 8628 3.5: the device code is dead.
    EXPIRED_TOKEN = "expired_token";
    /// RFC 6750 3.1: the bearer token is dead.
    INVALID_TOKEN = "invalid_token";
    /// RFC 6750 3.1: the bearer token lacks a scope.
    INSUFFICIENT_SCOPE = "insufficient_scope";
    /// RFC 8707 2: the resource is unknown or not allowed.
    INVALID_TARGET = "invalid_target";
    /// RFC 7591 3.2.2: a redirect URI cannot be registered.
    INVALID_REDIRECT_URI = "invalid_redirect_uri";
    /// RFC 7591 3.2.2: what a client says of itself cannot be registered.
    INVALID_CLIENT_METADATA = "invalid_client_metadata";
    /// OIDC Core 3.1.2.6: request objects are not taken.
    REQUEST_NOT_SUPPORTED = "request_not_supported";
    /// OIDC Core 3.1.2.6: request objects are not fetched.
    REQUEST_URI_NOT_SUPPORTED = "request_uri_not_supported";
    /// OIDC Core 3.1.2.6: the user must do something first.
    INTERACTION_REQUIRED = "interaction_required";
    /// OIDC Core 3.1.2.6: the user must sign in.
    LOGIN_REQUIRED = "login_required";
    /// OIDC Core 3.1.2.6: the user must choose an account.
    ACCOUNT_SELECTION_REQUIRED = "account_selection_required";
    /// OIDC Core 3.1.2.6: the user must consent.
    CONSENT_REQUIRED = "consent_required";
    /// Ours: what stood there was no code.
    UNRECOGNISED = "unrecognised";
}

impl ErrorCode {
    /// The longest word taken for a code.
    pub const MAX_LEN: usize = 64;

    /// Takes what a provider sent as its error code.
    ///
    /// RFC 6749 allows any printable text but quotes and backslashes. We are narrower: a letter first, then
    /// `a-z 0-9 _ . -` with few digits, so that neither a sentence nor an echoed token passes for a code.
    ///
    /// ```
    /// use tokenkeep_oauth::errors::ErrorCode;
    /// assert_eq!(ErrorCode::from_wire("invalid_grant"), ErrorCode::INVALID_GRANT);
    /// assert_eq!(ErrorCode::from_wire("bad_refresh_token").as_str(), "bad_refresh_token");
    /// assert_eq!(ErrorCode::from_wire("Token 4/0AX4 is dead"), ErrorCode::UNRECOGNISED);
    /// ```
    pub fn from_wire(text: &str) -> Self {
        if let Some(known) = Self::REGISTRY.iter().find(|code| code.as_str() == text) {
            return known.clone();
        }
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let fits = text.len() <= Self::MAX_LEN
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(word)
            && digits <= 4;
        if fits { Self(Cow::Owned(text.to_owned())) } else { Self::UNRECOGNISED }
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the registry's.
    pub fn is_registered(&self) -> bool {
        *self != Self::UNRECOGNISED && Self::REGISTRY.contains(self)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_reads_itself() {
        for code in ErrorCode::REGISTRY {
            assert_eq!(&ErrorCode::from_wire(code.as_str()), code);
        }
        assert!(ErrorCode::INVALID_GRANT.is_registered());
        assert!(!ErrorCode::UNRECOGNISED.is_registered());
        assert!(!ErrorCode::from_wire("bad_refresh_token").is_registered());
    }

    #[test]
    fn what_is_no_code_is_not_repeated() {
        let long = "a".repeat(65);
        for text in
            ["", "Invalid Grant", "a\"b", "a\nb", "é", "1//0gAbC", "e72e16c7e42f292c6912e7710c838347ae178b4a", &long]
        {
            assert_eq!(ErrorCode::from_wire(text), ErrorCode::UNRECOGNISED, "{text}");
        }
    }
}
