//! Refusals of the OAuth endpoints: JSON (RFC 6749 5.2), made here and nowhere else.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::ExposeSecret as _;
use tokenkeep_engine::{Error, issuer::Refused};
use tokenkeep_oauth::{
    Secret,
    issuer::{challenge::basic_challenge, error::OAuthError, token_exchange::build_interaction_required},
};

use crate::problem;

/// A refusal on its way to whoever asked.
#[derive(Debug)]
pub(crate) struct Failure {
    error: OAuthError,
    status: StatusCode,
    retry_after: Option<Duration>,
    challenge: Option<HeaderValue>,
    /// Boxed: hardly any refusal has one.
    connect_url: Option<Box<Secret>>,
}

impl Failure {
    /// The refusal with another status than the RFCs have for it.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The refusal with what is wanted instead (RFC 9110 11.6.1).
    pub(crate) fn with_challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Somebody asks too often (RFC 6585 4).
    pub(crate) fn too_many(wait: Duration) -> Self {
        let error = OAuthError::temporarily_unavailable("too many requests; wait as long as Retry-After says");
        Self { retry_after: Some(wait), ..Self::from(error).with_status(StatusCode::TOO_MANY_REQUESTS) }
    }
}

impl From<OAuthError> for Failure {
    fn from(error: OAuthError) -> Self {
        let is_about_client = error.code.as_str() == "invalid_client";
        let challenge = is_about_client.then(basic_challenge);
        Self { status: error.status(), error, retry_after: None, challenge, connect_url: None }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        if let Refused::Failed(error) = &refused {
            problem::log(error);
        }
        if let Refused::Failed(Error::TooMany { retry_after, .. }) = &refused {
            return Self::too_many(*retry_after);
        }
        let (retry_after, told) = (refused.retry_after(), refused.told());
        let connect_url = match refused {
            Refused::InteractionRequired { connect_url } => connect_url.map(Box::new),
            _ => None,
        };
        Self { retry_after, connect_url, ..told.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = match &self.connect_url {
            Some(url) => {
                Bytes::copy_from_slice(build_interaction_required(&self.error, url).expose_secret().as_bytes())
            }
            None => self.error.to_json().into(),
        };
        let mut response = json(self.status, body);
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, problem::retry_after(wait));
        }
        response
    }
}

/// An answer that nobody else may see, and nobody may keep (RFC 6749 5.1).
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = (status, body.into()).into_response();
    put_headers(response.headers_mut());
    response
}

/// Its headers.
pub(crate) fn put_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
}
