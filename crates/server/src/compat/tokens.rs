//! `/tokens/...`: how the tokens stand, and how they go. Nothing here logs in anywhere.

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use tokenkeep_core::Subject;
use tokenkeep_engine::{Error, TokenCounts};
use utoipa::ToSchema;

use super::company::{Company, CompanyId};
use crate::{
    AppState,
    auth::Auth,
    openapi::ProblemBody,
    problem::{Kind, Problem},
};

/// A token that dies within this is about to.
const SOON: Duration = Duration::from_mins(10);

const NO_TOKEN: Kind =
    Kind { code: "connection_not_found", status: StatusCode::NOT_FOUND, title: "There is no such thing" };

/// How many tokens the companies have that the key may see. Asks the provider for nothing.
#[utoipa::path(
    get,
    path = "/tokens/stats",
    tag = "compatibility",
    operation_id = "compat_token_stats",
    responses(
        (status = 200, description = "the counts", body = StatsBody),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn stats(State(state): State<AppState>, Auth(caller): Auth) -> Result<axum::Json<StatsBody>, Problem> {
    let provider = &state.settings.compat.provider;
    let connections = state.engine.connections();
    let counts = connections.count_tokens(&caller, provider, &Subject::default_subject(), SOON).await?;
    Ok(axum::Json(StatsBody { success: true, stats: counts.into() }))
}

/// Drops access tokens that have been dead for over five minutes, of the companies that the key may see. Credentials
/// stay.
#[utoipa::path(
    post,
    path = "/tokens/cleanup",
    tag = "compatibility",
    operation_id = "compat_clean_up",
    responses(
        (status = 200, description = "how many there were", body = CleanedBody),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn cleanup(
    State(state): State<AppState>,
    Auth(caller): Auth,
) -> Result<axum::Json<CleanedBody>, Problem> {
    let provider = &state.settings.compat.provider;
    let dropped = state.engine.connections().drop_dead_tokens(&caller, provider, &Subject::default_subject()).await?;
    let message = format!("Cleaned up {dropped} expired tokens");
    Ok(axum::Json(CleanedBody { success: true, message, tokens_cleaned: dropped }))
}

/// Drops a company's access token and keeps its credentials: the next read logs in.
#[utoipa::path(
    delete,
    path = "/tokens/{company_id}",
    tag = "compatibility",
    operation_id = "compat_clear_token",
    params(("company_id" = String, Path, description = "percent-encoded", example = "123")),
    responses(
        (status = 200, description = "dropped", body = ClearedBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connection_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn clear(
    State(state): State<AppState>,
    Auth(caller): Auth,
    company: Company,
) -> Result<axum::Json<ClearedBody>, Problem> {
    match state.engine.connections().drop_token(&caller, &company.connection(&state)).await {
        Err(Error::NotFound { .. }) => {
            return Err(Problem::new(NO_TOKEN, format!("No token found for company {}", company.tenant())));
        }
        dropped => dropped?,
    }
    let message = format!("Token cleared for company {}", company.tenant());
    Ok(axum::Json(ClearedBody { success: true, message, company_id: company }))
}

/// Whether a company has a token that needs no refresh yet. Asks the provider for nothing; a company that nobody knows
/// has none.
#[utoipa::path(
    get,
    path = "/tokens/{company_id}/status",
    tag = "compatibility",
    operation_id = "compat_token_status",
    params(("company_id" = String, Path, description = "percent-encoded", example = "123")),
    responses(
        (status = 200, description = "whether it has", body = StatusBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn status(
    State(state): State<AppState>,
    Auth(caller): Auth,
    company: Company,
) -> Result<axum::Json<StatusBody>, Problem> {
    let has_valid_token = state.engine.connections().has_valid_token(&caller, &company.connection(&state)).await?;
    Ok(axum::Json(StatusBody { success: true, company_id: company, has_valid_token }))
}

/// The counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompatStats, example = json!({
    "success": true, "stats": {"total_cached": 5, "valid_tokens": 3, "expired_tokens": 1, "expiring_soon": 1},
}))]
pub(crate) struct StatsBody {
    /// `true`.
    success: bool,
    /// By how long they still live.
    stats: CountsBody,
}

/// Tokens by how long they still live; the last three add up to the first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompatCounts)]
struct CountsBody {
    /// All.
    total_cached: u64,
    /// Alive for over ten minutes.
    valid_tokens: u64,
    /// Dead, and not cleaned up yet.
    expired_tokens: u64,
    /// Alive for ten minutes at most.
    expiring_soon: u64,
}

impl From<TokenCounts> for CountsBody {
    fn from(counts: TokenCounts) -> Self {
        Self {
            total_cached: counts.total,
            valid_tokens: counts.valid,
            expired_tokens: counts.expired,
            expiring_soon: counts.expiring_soon,
        }
    }
}

/// What a clean-up did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompatCleaned, example = json!({
    "success": true, "message": "Cleaned up 2 expired tokens", "tokens_cleaned": 2,
}))]
pub(crate) struct CleanedBody {
    /// `true`.
    success: bool,
    /// For people.
    message: String,
    /// Tokens dropped.
    tokens_cleaned: u64,
}

/// That a token was dropped.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompatCleared, example = json!({
    "success": true, "message": "Token cleared for company 123", "company_id": 123,
}))]
pub(crate) struct ClearedBody {
    /// `true`.
    success: bool,
    /// For people.
    message: String,
    /// Whose; a number where it is one.
    #[schema(value_type = CompanyId)]
    company_id: Company,
}

/// How a company's token stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompatStatus, example = json!({"success": true, "company_id": 123, "has_valid_token": true}))]
pub(crate) struct StatusBody {
    /// `true`.
    success: bool,
    /// Whose; a number where it is one.
    #[schema(value_type = CompanyId)]
    company_id: Company,
    /// Whether it is there and needs no refresh yet.
    has_valid_token: bool,
}
