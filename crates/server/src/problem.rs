//! Errors as RFC 9457 problem details: the one place that knows which HTTP status an error of the engine has.
//!
//! A problem never repeats what the caller sent, except identifiers: a value may be a secret in the wrong place.

use std::{borrow::Cow, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tokenkeep_core::{InvalidIdentifier, refresh::INVALID_CREDENTIALS};
use tokenkeep_engine::{Blame, Error};
use tokenkeep_oauth::issuer::challenge::BearerChallenge;

/// What kind of problem: its stable code, its status, and its title for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) code: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
}

const fn kind(status: StatusCode, code: &'static str, title: &'static str) -> Kind {
    Kind { code, status, title }
}

pub(crate) const INVALID_REQUEST: Kind =
    kind(StatusCode::BAD_REQUEST, "invalid_request", "The request makes no sense as it is");
pub(crate) const INVALID_IDENTIFIER: Kind =
    kind(StatusCode::BAD_REQUEST, "invalid_identifier", "An identifier breaks the rules");
pub(crate) const INVALID_API_KEY: Kind =
    kind(StatusCode::UNAUTHORIZED, "invalid_api_key", "The API key is missing or unknown");
pub(crate) const FORBIDDEN: Kind = kind(StatusCode::FORBIDDEN, "forbidden", "This key does not allow that");
pub(crate) const ROUTE_NOT_FOUND: Kind = kind(StatusCode::NOT_FOUND, "route_not_found", "There is no such route");
pub(crate) const NO_ISSUER: Kind = kind(StatusCode::NOT_FOUND, "no_issuer", "This server issues no tokens");
pub(crate) const NO_SESSIONS: Kind = kind(StatusCode::NOT_FOUND, "no_sessions", "This server has no backend sessions");
pub(crate) const INVALID_SESSION: Kind = kind(StatusCode::UNAUTHORIZED, "invalid_session", "The session is over");
pub(crate) const METHOD_NOT_ALLOWED: Kind =
    kind(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This route has no such method");
pub(crate) const REQUEST_TIMEOUT: Kind =
    kind(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body took too long to arrive");
pub(crate) const PAYLOAD_TOO_LARGE: Kind =
    kind(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The body is too large");
pub(crate) const UNSUPPORTED_MEDIA_TYPE: Kind =
    kind(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be JSON");
pub(crate) const INVALID_PATH: Kind = kind(StatusCode::BAD_REQUEST, "invalid_path", "The path is not plain");
pub(crate) const SESSION_NOT_FOUND: Kind = kind(StatusCode::NOT_FOUND, "session_not_found", "There is no such session");
pub(crate) const UPSTREAM_UNREACHABLE: Kind =
    kind(StatusCode::BAD_GATEWAY, "upstream_unreachable", "The server behind cannot be reached");
pub(crate) const UPSTREAM_CUT: Kind = kind(StatusCode::BAD_GATEWAY, "upstream_cut", "The server behind broke off");
pub(crate) const UPSTREAM_TIMEOUT: Kind =
    kind(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "The server behind did not answer in time");
pub(crate) const UPSTREAM_UNAUTHORIZED: Kind =
    kind(StatusCode::BAD_GATEWAY, "upstream_unauthorized", "The server behind does not let us in");
pub(crate) const INTERNAL_ERROR: Kind =
    kind(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "This is a defect of tokenkeep");

/// An error on its way to the caller.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, more: Map::new() }
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(INVALID_REQUEST, detail)
    }

    /// The error for people: a page shows it instead of the JSON.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn code(&self) -> &'static str {
        self.kind.code
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind.status
    }

    /// The same for somebody to whom it means something else.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.kind.status = status;
        self
    }

    /// Adds a member (RFC 9457 3.2).
    fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }
}

/// Which status and title an error has.
fn kind_of(error: &Error) -> Kind {
    let (status, title) = match error {
        Error::InvalidIdentifier(_) => (INVALID_IDENTIFIER.status, INVALID_IDENTIFIER.title),
        Error::Invalid(_) => (INVALID_REQUEST.status, INVALID_REQUEST.title),
        Error::Forbidden(_) => (FORBIDDEN.status, FORBIDDEN.title),
        Error::NotFound { .. } => (StatusCode::NOT_FOUND, "There is no such thing"),
        Error::AlreadyThere { .. } => (StatusCode::PRECONDITION_FAILED, "It is there already"),
        Error::Conflict { .. } => (StatusCode::CONFLICT, "Somebody else changed it at the same moment"),
        Error::InstanceAlive(_) => (StatusCode::CONFLICT, "The instance may be alive"),
        Error::StaleRefreshToken(_) => (StatusCode::CONFLICT, "This refresh token was spent before"),
        Error::ManagedByConfig { .. } => (StatusCode::CONFLICT, "The configuration file decides this"),
        Error::ReauthRequired { .. } => (StatusCode::FAILED_DEPENDENCY, "The user must consent again"),
        Error::InvalidCredentials { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "The provider does not take these credentials")
        }
        Error::IntegrationMissing(_) => (StatusCode::BAD_GATEWAY, "The integration is missing"),
        Error::IntegrationRejected { .. } => (StatusCode::BAD_GATEWAY, "The provider refuses our client"),
        Error::ProviderRejected { .. } => (StatusCode::BAD_GATEWAY, "The provider refused the request"),
        Error::NoApiHost(_) => (StatusCode::CONFLICT, "It is not known where the API is"),
        Error::ApiHostNotAllowed(_) => (StatusCode::BAD_REQUEST, "A token does not go to that host"),
        Error::InvalidPath(_) => (StatusCode::BAD_REQUEST, "The path may mean something else"),
        Error::ProviderUnavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "The provider does not answer"),
        Error::BodyTimeout => (REQUEST_TIMEOUT.status, REQUEST_TIMEOUT.title),
        Error::Unresolved { .. } => (StatusCode::SERVICE_UNAVAILABLE, "A refresh has no outcome yet"),
        Error::StoreUnavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "The store does not answer"),
        Error::InvalidSession => (INVALID_SESSION.status, INVALID_SESSION.title),
        Error::ClientDocument(_) => (StatusCode::BAD_REQUEST, "The client's document cannot be used"),
        Error::ClientDocumentUnavailable { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "The client's document cannot be fetched")
        }
        Error::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "Too much was asked"),
        Error::Unreadable { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "A record cannot be read"),
    };
    kind(status, error.code(), title)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        log(&error);
        let mut problem = Problem::new(kind_of(&error), error.to_string());
        problem.retry_after = error.retry_after();
        if let Error::ReauthRequired { connection, reason } = error {
            let connect = json!({
                "provider": connection.integration.as_str(),
                "tenant": connection.tenant.as_str(),
                "subject": connection.subject.as_str(),
            });
            // No consent helps where the provider knows passwords only.
            let may_consent = reason != INVALID_CREDENTIALS;
            problem = problem.with("reason", Value::String(reason));
            if may_consent {
                problem = problem.with("connect", connect);
            }
        }
        problem
    }
}

impl From<InvalidIdentifier> for Problem {
    fn from(invalid: InvalidIdentifier) -> Self {
        Error::from(invalid).into()
    }
}

/// What went wrong behind us is told to the operator with its causes; the caller sees the first sentence only.
pub(crate) fn log(error: &Error) {
    if matches!(error.blame(), Blame::Operator | Blame::Us) {
        let mut cause = String::new();
        let mut next = std::error::Error::source(error);
        while let Some(source) = next {
            cause = if cause.is_empty() { source.to_string() } else { format!("{cause}: {source}") };
            next = source.source();
        }
        tracing::warn!(code = error.code(), cause, "request failed");
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Kind { code, status, title } = self.kind;
        let mut body = json!({
            "type": format!("urn:tokenkeep:problem:{code}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
            "code": code,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.more);
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, BearerChallenge::default().to_header());
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after(wait));
        }
        response
    }
}

/// Whole seconds (RFC 9110 10.2.3), rounded up: who comes back too early is only told to wait again.
pub(crate) fn retry_after(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}
