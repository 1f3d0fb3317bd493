//! Parsing a token response.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::failure::{NoOutcome, TokenFailure, classify, withings};
use crate::{
    Secret,
    dialect::{ClientAuth, Dialect, ErrorShape, Expiry, ReplyShape},
    errors::ErrorCode,
    quiet::parse_retry_after,
    reply::{Document, number, text},
};

/// What a provider issued (RFC 6749 5.1).
#[derive(Clone, Debug)]
pub struct TokenReply {
    /// The access token.
    pub access_token: Secret,
    /// `Bearer`, mostly; also where the reply does not say.
    pub token_type: String,
    /// When the access token dies, by our clock; `None` = never, or nobody knows.
    pub expires_at: Option<Timestamp>,
    /// The refresh token; `None` means that the old one is kept.
    pub refresh_token: Option<Secret>,
    /// What was granted, separated by spaces; `None` means what was asked for.
    pub scope: Option<String>,
    /// OIDC's identity token, unverified: see [`crate::id_token`].
    pub id_token: Option<Secret>,
}

/// The longest life of an access token that is believed: a century.
const MAX_LIFETIME: Duration = Duration::from_hours(100 * 365 * 24);

/// Reads the token endpoint's reply, received at `now`.
///
/// `default_lifetime` stands in where the reply does not say when the access token expires; `None` then means that
/// it does not. An expiry that is not in the future says nothing useful either (some providers send 0 for "never"):
/// taken at its word, every read would refresh.
///
/// How a reply is judged, in this order:
///
/// | reply | is |
/// |---|---|
/// | 429 | [`TokenFailure::Throttled`] |
/// | 1xx, 3xx, 5xx, whatever the body says | [`TokenFailure::NoOutcome`] |
/// | 2xx with a usable access token, unless the dialect's own mark of failure is on it | success |
/// | 2xx or 4xx with an error code | what the code means |
/// | 2xx without either | [`TokenFailure::NoOutcome`] |
/// | 401 without a code, client authenticates by Basic | [`TokenFailure::ClientRejected`] |
/// | 4xx without a code that HTTP defines as refused before it was acted upon | [`TokenFailure::Rejected`] |
/// | any other 4xx (408, 409, 499, ...) | [`TokenFailure::NoOutcome`] |
///
/// An access token next to an `error` member is a success: dropping what may be the only copy of a rotated refresh
/// token would be worse.
pub fn parse_token_response(
    dialect: &Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    default_lifetime: Option<Duration>,
) -> Result<TokenReply, TokenFailure> {
    judge(dialect, status, headers, body, now, |top| tokens(dialect, top, now, default_lifetime))
}

/// What a code brought, where one consent may bring two sets of tokens ([`Dialect::companion`]).
#[derive(Clone, Debug)]
pub struct CodeReply {
    /// The tokens where [`Dialect::reply`] says; with a companion, they may be absent.
    pub tokens: Option<TokenReply>,
    /// The companion's. At least one of the two is there.
    pub companion: Option<TokenReply>,
}

/// Reads the reply to an authorization code: like [`parse_token_response`], and with the companion in it.
pub fn parse_code_response(
    dialect: &Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    default_lifetime: Option<Duration>,
) -> Result<CodeReply, TokenFailure> {
    judge(dialect, status, headers, body, now, |top| {
        let beside = dialect.companion.as_ref().and_then(|c| top.get(c.under.as_str()));
        let reply = CodeReply {
            tokens: tokens(dialect, top, now, default_lifetime),
            companion: beside.and_then(|place| tokens_at(dialect, place, now, default_lifetime)),
        };
        (reply.tokens.is_some() || reply.companion.is_some()).then_some(reply)
    })
}

/// Judges a reply by the table above; `read` finds in it what a success must hold.
pub(crate) fn judge<T>(
    dialect: &Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, TokenFailure> {
    let retry_after = parse_retry_after(headers, now);
    let no_outcome = |why| TokenFailure::NoOutcome { status, why, retry_after };
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(TokenFailure::Throttled { retry_after });
    }
    if status.is_server_error() {
        return Err(no_outcome(NoOutcome::ServerError));
    }
    if !status.is_success() && !status.is_client_error() {
        return Err(no_outcome(NoOutcome::UnexpectedStatus));
    }

    let document = Document::parse(body);
    let top = document.as_ref().map_or(&Value::Null, Document::value);
    if let Some(failure) = marked_failure(dialect, top, status, retry_after) {
        return Err(failure);
    }
    if status.is_success()
        && let Some(reply) = read(top)
    {
        return Ok(reply);
    }
    if let Some(code) = error_code(&dialect.errors, top) {
        return Err(classify(dialect, code, status, retry_after));
    }
    Err(match status {
        _ if status.is_success() && document.is_none() => no_outcome(NoOutcome::Unreadable),
        _ if status.is_success() => no_outcome(NoOutcome::Incomplete),
        StatusCode::UNAUTHORIZED if dialect.client_auth == ClientAuth::Basic => {
            TokenFailure::ClientRejected { code: ErrorCode::UNRECOGNISED }
        }
        _ if refused_unacted(status) => TokenFailure::Rejected { code: ErrorCode::UNRECOGNISED },
        _ => no_outcome(NoOutcome::UnexpectedStatus),
    })
}

/// The statuses by which HTTP says that a request was refused, not begun: what lies between us and the provider
/// may send others (408, 409, 425, 499) after the provider acted.
fn refused_unacted(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400..=406 | 410 | 411 | 413..=415 | 421 | 422 | 426 | 428 | 431 | 451)
}

/// The failure, where the dialect has its own mark for it and the reply bears that mark.
fn marked_failure(
    dialect: &Dialect,
    top: &Value,
    status: StatusCode,
    retry_after: Option<Duration>,
) -> Option<TokenFailure> {
    match &dialect.errors {
        ErrorShape::OkFalse if top.get("ok") == Some(&Value::Bool(false)) => {
            let code = error_code(&dialect.errors, top).unwrap_or(ErrorCode::UNRECOGNISED);
            Some(classify(dialect, code, status, retry_after))
        }
        ErrorShape::StatusNonZero => {
            let mark = top.get("status")?;
            let number = number(mark);
            let words = text(top, "error").unwrap_or_default();
            (number != Some(0)).then(|| withings(number, words, status, retry_after))
        }
        _ => None,
    }
}

/// The error code, where one stands. Beside RFC 6749's `error`, a code in the places where some providers have it
/// (`error_code`: Supabase; `errors[0].errorType`: Fitbit; `error.code`, `error.type`) is heeded.
fn error_code(shape: &ErrorShape, top: &Value) -> Option<ErrorCode> {
    if let Some(code) = text(top, "error") {
        let code = ErrorCode::from_wire(code);
        if code != ErrorCode::UNRECOGNISED {
            return Some(code);
        }
    }
    if *shape == ErrorShape::Graph {
        return graph(top.get("error")?);
    }
    let nested = top.get("error").filter(|e| e.is_object()).or_else(|| top.get("errors")?.get(0));
    let elsewhere = nested
        .and_then(|e| text(e, "errorType").or_else(|| text(e, "code")).or_else(|| text(e, "type")))
        .or_else(|| text(top, "error_code"))
        .map(ErrorCode::from_wire);
    let present = top.get("error").is_some_and(|e| !e.is_null() && e != "") || top.get("errors").is_some();
    elsewhere.or_else(|| present.then_some(ErrorCode::UNRECOGNISED))
}

/// The code for an error object of Meta's Graph API, which knows numbers only.
fn graph(error: &Value) -> Option<ErrorCode> {
    if !error.is_object() {
        return None;
    }
    Some(match error.get("code").and_then(number) {
        Some(190) => ErrorCode::INVALID_GRANT,
        Some(101) => ErrorCode::INVALID_CLIENT,
        Some(1 | 2) => ErrorCode::TEMPORARILY_UNAVAILABLE,
        Some(4 | 17 | 32 | 613) => ErrorCode::from_wire("rate_limited"),
        _ => ErrorCode::UNRECOGNISED,
    })
}

fn tokens(dialect: &Dialect, top: &Value, now: Timestamp, default_lifetime: Option<Duration>) -> Option<TokenReply> {
    // A missing member means the top; a member without a token means no token, never somebody else's.
    let place = match &dialect.reply {
        ReplyShape::Plain => top,
        ReplyShape::Under(member) => top.get(member.as_str()).unwrap_or(top),
    };
    tokens_at(dialect, place, now, default_lifetime)
}

fn tokens_at(
    dialect: &Dialect,
    place: &Value,
    now: Timestamp,
    default_lifetime: Option<Duration>,
) -> Option<TokenReply> {
    let secret = |name| text(place, name).filter(|s| is_token(s)).map(Secret::from);
    Some(TokenReply {
        access_token: secret("access_token")?,
        token_type: token_type(dialect, text(place, "token_type")),
        expires_at: expires_at(&dialect.expiry, place, now, default_lifetime),
        refresh_token: secret("refresh_token"),
        scope: place.get("scope").and_then(scope),
        id_token: secret("id_token"),
    })
}

/// Whether a token can travel: printable ASCII (RFC 6749 appendix A.12).
pub(crate) fn is_token(s: &str) -> bool {
    s.bytes().all(|b| (0x20..0x7f).contains(&b))
}

fn token_type(dialect: &Dialect, stated: Option<&str>) -> String {
    match stated {
        // Slack says whose token it is here, and wants it as a bearer.
        Some("bot" | "user") if dialect.errors == ErrorShape::OkFalse => "Bearer".to_owned(),
        Some(word) if word.len() <= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => {
            // The type is case-insensitive (RFC 6749 7.1), but the APIs it is sent to are not always.
            if word.eq_ignore_ascii_case("bearer") { "Bearer".to_owned() } else { word.to_owned() }
        }
        _ => "Bearer".to_owned(),
    }
}

/// The end of a life that begins `now`, a century at most.
pub(crate) fn within_reason(now: Timestamp, life: Duration) -> Timestamp {
    now.checked_add(life.min(MAX_LIFETIME)).unwrap_or(Timestamp::MAX)
}

fn expires_at(expiry: &Expiry, place: &Value, now: Timestamp, default: Option<Duration>) -> Option<Timestamp> {
    let latest = within_reason(now, MAX_LIFETIME);
    let after = |life| within_reason(now, life);
    let named = match expiry {
        Expiry::Never => return None,
        Expiry::ExpiresIn => None,
        Expiry::EpochSeconds(member) => place
            .get(member.as_str())
            .and_then(number)
            .map(|epoch| Timestamp::from_second(epoch).unwrap_or(if epoch > 0 { latest } else { Timestamp::MIN })),
        Expiry::Rfc3339(member) => text(place, member).and_then(|s| s.parse().ok()),
    };
    let stated = named.or_else(|| {
        let seconds = number(place.get("expires_in")?)?;
        u64::try_from(seconds).ok().map(|s| after(Duration::from_secs(s)))
    });
    stated.filter(|at| *at > now).map(|at| at.min(latest)).or_else(|| default.map(after))
}

/// Scopes separated by spaces, whatever separated them: a comma (GitHub), an array (Twitch).
fn scope(value: &Value) -> Option<String> {
    let texts: Vec<&str> = match value {
        Value::String(s) => vec![s],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let allowed = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let scopes: Vec<&str> =
        texts.iter().flat_map(|s| s.split(|c: char| c == ',' || c.is_whitespace())).filter(allowed).collect();
    (!scopes.is_empty()).then(|| scopes.join(" "))
}
