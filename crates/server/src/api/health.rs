//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`: for machines that watch machines. No key is needed, except for
//! the metrics where the listener is open to the network.

use axum::{extract::State, response::IntoResponse};
use http::{StatusCode, header};
use serde::Serialize;
use tokenkeep_core::Action;
use tokenkeep_engine::{HealthStatus, Part};
use utoipa::ToSchema;

use crate::{AppState, auth::Auth, openapi::openapi_json, problem::Problem};

/// Whether the process is alive.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    operation_id = "healthz",
    security(()),
    responses((status = 200, description = "alive", body = LiveBody)),
)]
pub(crate) async fn live() -> axum::Json<LiveBody> {
    axum::Json(LiveBody { status: "live" })
}

/// Whether requests should be sent here. `degraded` still is 200: an instance that serves cached tokens must not be taken
/// away.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    operation_id = "readyz",
    security(()),
    responses(
        (status = 200, description = "ready, or degraded", body = ReadyBody),
        (status = 503, body = ReadyBody, description = "starting, draining, or with a wrong key"),
    ),
)]
pub(crate) async fn ready(State(state): State<AppState>) -> impl IntoResponse {
    let health = state.engine.health().await;
    let (code, status) = match health.status {
        HealthStatus::Ready => (StatusCode::OK, "ready"),
        HealthStatus::Degraded => (StatusCode::OK, "degraded"),
        HealthStatus::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let body = ReadyBody {
        status,
        store: word(health.store),
        bus: word(health.bus),
        cache: word(health.cache),
        journal: word(health.journal),
    };
    (code, axum::Json(body))
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Ok => "ok",
        Part::Unavailable => "unavailable",
        Part::None => "none",
    }
}

/// Prometheus's text format. Needs a key that may read statistics, unless the installation says otherwise.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    operation_id = "metrics",
    security((), ("api_key" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "the metrics", body = String, content_type = "application/openmetrics-text"),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
    ),
)]
pub(crate) async fn metrics(
    State(state): State<AppState>,
    auth: Result<Auth, Problem>,
) -> Result<impl IntoResponse, Problem> {
    if !state.settings.open_metrics {
        auth?.0.may(Action::ReadStats)?;
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], state.engine.metrics().render()))
}

/// The description of this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    operation_id = "openapi",
    security(()),
    responses((status = 200, body = serde_json::Value, description = "OpenAPI 3.1")),
)]
pub(crate) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json())
}

/// That the process is alive.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Live)]
pub(crate) struct LiveBody {
    #[schema(example = "live")]
    status: &'static str,
}

/// Whether requests should be sent here.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ready, example = json!({
    "status": "ready", "store": "ok", "bus": "none", "cache": "ok", "journal": "ok",
}))]
pub(crate) struct ReadyBody {
    /// `ready`, `degraded` or `not_ready`.
    status: &'static str,
    /// `ok`, `unavailable`, or `none` where there is none; the same for the others.
    store: &'static str,
    bus: &'static str,
    cache: &'static str,
    journal: &'static str,
}
