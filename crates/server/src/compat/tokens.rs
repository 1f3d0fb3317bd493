//! `/tokens/...`: how the tokens stand, and how they go. Nothing here logs in anywhere.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use tokenkeep_core::Subject;
use tokenkeep_engine::TokenCounts;
use utoipa::ToSchema;

use super::company::{Company, CompanyId};
use crate::{AppState, auth::Auth, problem::Problem};

/// A token that dies within this is about to.
const SOON: Duration = Duration::from_mins(10);

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
