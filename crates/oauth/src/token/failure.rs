//! What a failed token request means.

use std::time::Duration;

use http::StatusCode;

use crate::{
    dialect::{Dialect, ErrorShape},
    errors::ErrorCode,
};

/// What a failed token request means to whoever sent it.
///
/// It never holds text of the reply, only a code that was checked by [`ErrorCode::from_wire`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFailure {
    /// Definitive: the code, refresh token or assertion is dead. Retrying cannot help.
    #[error("the provider refused the grant ({code})")]
    InvalidGrant {
        /// The provider's word for it.
        code: ErrorCode,
    },
    /// Definitive, and about the client, not the grant: its secret or key is wrong, or it may not do this. Nothing
    /// was spent.
    ///
    /// `invalid_client` and `unauthorized_client` say so with any status. A 401 without a readable code counts only
    /// where the client authenticates by HTTP Basic, for that is what a 401 answers (RFC 6749 5.2); elsewhere it is
    /// [`TokenFailure::Rejected`].
    #[error("the provider refused the client ({code})")]
    ClientRejected {
        /// The provider's word for it.
        code: ErrorCode,
    },
    /// Definitive: too many requests (429, or the provider's code for it). Nothing was spent; try later.
    #[error("the provider asks for fewer requests")]
    Throttled {
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// Definitive: refused for another reason (`invalid_scope`, `access_denied`, ...). Nothing was spent.
    #[error("the provider refused the request ({code})")]
    Rejected {
        /// The provider's word for it.
        code: ErrorCode,
    },
    /// RFC 8628: the user has not decided yet.
    #[error("the user has not decided yet")]
    DevicePending,
    /// RFC 8628: not decided yet; poll five seconds slower from now on.
    #[error("the user has not decided yet, and we asked too often")]
    SlowDown,
    /// RFC 8628: the device code is dead; start over. Where something else was exchanged, it is that which is dead.
    #[error("the device code expired")]
    DeviceExpired,
    /// One cannot tell whether the provider acted: what was sent may be spent.
    #[error("the provider gave no outcome (status {status}: {why})")]
    NoOutcome {
        /// The HTTP status.
        status: StatusCode,
        /// Why the reply settles nothing.
        why: NoOutcome,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
}

/// Why a reply settles nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOutcome {
    /// A 5xx, or an error code that says the server failed.
    #[error("the server failed")]
    ServerError,
    /// A redirect, or another status that answers no token request.
    #[error("not an answer to a token request")]
    UnexpectedStatus,
    /// A success whose body is neither JSON nor a form.
    #[error("the body cannot be read")]
    Unreadable,
    /// A success without what a success must hold: a usable access token.
    #[error("it lacks what was asked for")]
    Incomplete,
}

impl TokenFailure {
    /// Whether the provider's answer is certain: whatever was sent is either dead or not spent.
    pub fn is_definitive(&self) -> bool {
        !matches!(self, Self::NoOutcome { .. })
    }

    /// How long the provider asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::NoOutcome { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A stable word for `last_error` and metrics: the provider's code, or ours.
    pub fn code(&self) -> &str {
        match self {
            Self::InvalidGrant { code } | Self::ClientRejected { code } | Self::Rejected { code } => code.as_str(),
            Self::Throttled { .. } => "throttled",
            Self::DevicePending => "authorization_pending",
            Self::SlowDown => "slow_down",
            Self::DeviceExpired => "expired_token",
            Self::NoOutcome { .. } => "no_outcome",
        }
    }
}

/// What `code` means in this dialect.
pub(super) fn classify(
    dialect: &Dialect,
    code: ErrorCode,
    status: StatusCode,
    retry_after: Option<Duration>,
) -> TokenFailure {
    let server_error = || TokenFailure::NoOutcome { status, why: NoOutcome::ServerError, retry_after };
    if let ErrorShape::DeadRefreshToken(dead) = &dialect.errors
        && dead.split_whitespace().any(|word| word == code.as_str())
    {
        return TokenFailure::InvalidGrant { code };
    }
    match code.as_str() {
        // The words outside the registry are GitHub's; no other provider uses them for anything else.
        "invalid_grant" | "bad_refresh_token" | "bad_verification_code" => TokenFailure::InvalidGrant { code },
        "invalid_client" | "unauthorized_client" | "incorrect_client_credentials" => {
            TokenFailure::ClientRejected { code }
        }
        "server_error" | "temporarily_unavailable" => server_error(),
        "authorization_pending" => TokenFailure::DevicePending,
        "slow_down" => TokenFailure::SlowDown,
        "expired_token" => TokenFailure::DeviceExpired,
        "rate_limited" | "ratelimited" | "rate_limit_exceeded" | "too_many_requests" => {
            TokenFailure::Throttled { retry_after }
        }
        word if dialect.errors == ErrorShape::OkFalse => match slack(word) {
            Slack::Dead => TokenFailure::InvalidGrant { code },
            Slack::Client => TokenFailure::ClientRejected { code },
            Slack::Failed => server_error(),
            Slack::Other => TokenFailure::Rejected { code },
        },
        _ => TokenFailure::Rejected { code },
    }
}

enum Slack {
    Dead,
    Client,
    Failed,
    Other,
}

/// Slack's own words for the registry's meanings.
fn slack(word: &str) -> Slack {
    match word {
        "invalid_refresh_token"
        | "invalid_code"
        | "code_already_used"
        | "token_revoked"
        | "token_expired"
        | "account_inactive" => Slack::Dead,
        "invalid_client_id" | "bad_client_secret" => Slack::Client,
        "fatal_error" | "internal_error" | "service_unavailable" | "request_timeout" => Slack::Failed,
        _ => Slack::Other,
    }
}

/// What a Withings `status` other than 0 means. Their numbers are many and the groups overlap, so only what they
/// document plainly is definitive.
pub(super) fn withings(
    number: Option<i64>,
    text: &str,
    status: StatusCode,
    retry_after: Option<Duration>,
) -> TokenFailure {
    match number {
        Some(601) => TokenFailure::Throttled { retry_after },
        // "Invalid Params": the text says which one.
        Some(503) if text.contains("refresh_token") || text.contains("code") => {
            TokenFailure::InvalidGrant { code: ErrorCode::INVALID_GRANT }
        }
        Some(503) => TokenFailure::Rejected { code: ErrorCode::INVALID_REQUEST },
        Some(100..=102 | 200 | 401 | 2554) => TokenFailure::Rejected { code: ErrorCode::UNRECOGNISED },
        _ => TokenFailure::NoOutcome { status, why: NoOutcome::ServerError, retry_after },
    }
}
