//! `/revoke` (RFC 7009). What is no token, or not this client's, is answered as if it had been taken back.

use axum::extract::State;
use http::StatusCode;
use tokenkeep_oauth::issuer::token::parse_token_parameter;

use super::{client::authenticate, errors::Failure, form::Posted, issuing::Issuing};
use crate::AppState;

pub(crate) async fn revoke(
    State(state): State<AppState>,
    issuing: Issuing,
    posted: Posted,
) -> Result<StatusCode, Failure> {
    let client = authenticate(&state, &issuing, &posted).await?;
    let token = parse_token_parameter(&posted.form)?;
    issuing.issuer.revoke(&client, &token).await?;
    Ok(StatusCode::OK)
}
