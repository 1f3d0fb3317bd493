//! `/v1/stats` and `/v1/cleanup`: for whoever runs the installation.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;
use tokenkeep_engine::{CacheStats, Cleaned, Stats};
use utoipa::ToSchema;

use crate::{AppState, auth::Auth, problem::Problem};

/// Counts by status and provider, cache hits, refresh outcomes.
#[utoipa::path(
    get,
    path = "/v1/stats",
    tag = "operations",
    operation_id = "get_stats",
    responses(
        (status = 200, description = "the counts", body = StatsBody),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn stats(State(state): State<AppState>, Auth(caller): Auth) -> Result<axum::Json<StatsBody>, Problem> {
    Ok(axum::Json(state.engine.stats(&caller).await?.into()))
}

/// Removes what expired and cannot be refreshed, now instead of at the next half hour.
#[utoipa::path(
    post,
    path = "/v1/cleanup",
    tag = "operations",
    operation_id = "clean_up",
    responses(
        (status = 200, description = "what was removed", body = CleanedBody),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn cleanup(
    State(state): State<AppState>,
    Auth(caller): Auth,
) -> Result<axum::Json<CleanedBody>, Problem> {
    let Cleaned { removed, tokens_dropped } = state.engine.cleanup(&caller).await?;
    Ok(axum::Json(CleanedBody { removed, tokens_dropped }))
}

/// Statistics: connections as the caller may see them, and what this process did since it started. The latter only for
/// keys that are bound to nothing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats, example = json!({
    "connections": 12, "by_status": {"active": 11, "reauth_required": 1}, "by_provider": {"google": 12},
    "unreadable": 0, "cache": {"entries": 10, "hits": 990, "misses": 10, "hit_rate": 0.99},
    "refreshes": {"refreshed": 40}, "refreshing": 0, "journal_depth": 0,
}))]
pub(crate) struct StatsBody {
    connections: u64,
    by_status: BTreeMap<&'static str, u64>,
    by_provider: BTreeMap<String, u64>,
    /// Records that are there and cannot be read.
    unreadable: u64,
    cache: CacheBody,
    /// By outcome.
    refreshes: BTreeMap<&'static str, u64>,
    /// Under way here.
    refreshing: u64,
    /// Replies that the store does not have yet.
    journal_depth: u64,
}

/// How often the cache had what was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheStats)]
struct CacheBody {
    entries: u64,
    hits: u64,
    misses: u64,
    hit_rate: f64,
}

impl From<Stats> for StatsBody {
    fn from(stats: Stats) -> Self {
        let CacheStats { entries, hits, misses, hit_rate } = stats.cache;
        Self {
            connections: stats.connections,
            by_status: stats.by_status,
            by_provider: stats.by_provider,
            unreadable: stats.unreadable,
            cache: CacheBody { entries, hits, misses, hit_rate },
            refreshes: stats.refreshes,
            refreshing: stats.refreshing,
            journal_depth: stats.journal_depth,
        }
    }
}

/// What a clean-up did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cleaned, example = json!({"removed": 3, "tokens_dropped": 12}))]
pub(crate) struct CleanedBody {
    /// Records removed: connections expired for over 5 minutes that nothing could renew, connects nobody finished.
    removed: u64,
    /// Dead access tokens dropped from connections that stay.
    tokens_dropped: u64,
}
