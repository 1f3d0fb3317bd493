//! `/introspect` (RFC 7662).

use axum::{extract::State, response::Response};
use http::StatusCode;
use tokenkeep_oauth::issuer::token::parse_token_parameter;

use super::{
    client::authenticate,
    errors::{Failure, json},
    form::Posted,
    issuing::Issuing,
};
use crate::AppState;

pub(crate) async fn introspect(
    State(state): State<AppState>,
    issuing: Issuing,
    posted: Posted,
) -> Result<Response, Failure> {
    let client = authenticate(&state, &issuing, &posted).await?;
    let token = parse_token_parameter(&posted.form)?;
    Ok(json(StatusCode::OK, issuing.issuer.introspect(&client, &token).await?))
}
