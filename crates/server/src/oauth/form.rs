//! Requests whose parameters stand in the body (RFC 6749 3.2): never in the address, which logs keep.

use std::net::IpAddr;

use axum::extract::{FromRequest, Request};
use http::{HeaderMap, StatusCode};
use tokenkeep_oauth::issuer::{error::OAuthError, form::Form};

use super::errors::Failure;
use crate::{
    AppState,
    body::{self, MAX_BODY, Unread},
    peer::Peer,
};

/// A request with a form as its body.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) headers: HeaderMap,
    pub(crate) form: Form,
    /// The network that it comes from; `None` on the local socket.
    pub(crate) from: Option<IpAddr>,
}

impl FromRequest<AppState> for Posted {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        if !body::is_form(request.headers()) {
            let error =
                OAuthError::invalid_request("send the body as `Content-Type: application/x-www-form-urlencoded`");
            return Err(Failure::from(error).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let (parts, body) = request.into_parts();
        let body = body::read_within(body, MAX_BODY, state).await?;
        let form = Form::parse(&body)?;
        let peer = Peer::of(&parts.extensions);
        let from = state.issuing.as_ref().and_then(|issuing| issuing.origin_of(&parts.headers, peer));
        Ok(Self { headers: parts.headers, form, from })
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        let (status, text) = match unread {
            Unread::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Unread::Cut => (StatusCode::BAD_REQUEST, "the body was cut off"),
            Unread::Late => (StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 30 s"),
        };
        Failure::from(OAuthError::invalid_request(text)).with_status(status)
    }
}
