//! `/token` (RFC 6749 3.2).

use axum::{extract::State, response::Response};
use bytes::Bytes;
use http::StatusCode;
use secrecy::ExposeSecret;
use tokenkeep_oauth::issuer::token::parse_token_request;

use super::{
    client::authenticate,
    errors::{Failure, json},
    form::Posted,
    issuing::Issuing,
};
use crate::AppState;

pub(crate) async fn token(
    State(state): State<AppState>,
    issuing: Issuing,
    posted: Posted,
) -> Result<Response, Failure> {
    let client = authenticate(&state, &issuing, &posted).await?;
    let request = parse_token_request(&posted.form)?;
    let reply = issuing.issuer.token(&client, request).await?;
    Ok(json(StatusCode::OK, Bytes::copy_from_slice(reply.to_json().expose_secret().as_bytes())))
}
