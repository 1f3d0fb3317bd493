//! `/v1/subjects`: everything that belongs to one person.

use axum::extract::State;
use http::StatusCode;

use crate::{
    AppState,
    auth::Auth,
    extract::{Params, SubjectPath},
    openapi::ProblemBody,
    problem::Problem,
};

/// Forgets a person: all connections they have, and all that was granted on them: sessions, tokens of clients.
#[utoipa::path(
    delete,
    path = "/v1/subjects/{tenant}/{subject}",
    tag = "subjects",
    operation_id = "forget_subject",
    params(
        ("tenant" = String, Path, example = "_default"),
        ("subject" = String, Path, example = "alice"),
        ("revoke" = Option<bool>, Query, description = "tell the providers as well"),
    ),
    responses(
        (status = 204, description = "forgotten"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "nobody of that name has anything here"),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn forget(
    State(state): State<AppState>,
    Auth(caller): Auth,
    SubjectPath(tenant, subject): SubjectPath,
    params: Params,
) -> Result<StatusCode, Problem> {
    let revoke = params.only(&["revoke"])?.flag("revoke")?;
    state.engine.forget(&caller, &tenant, &subject, revoke).await?;
    Ok(StatusCode::NO_CONTENT)
}
