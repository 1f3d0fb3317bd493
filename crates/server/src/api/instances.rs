//! `/v1/instances`: the processes that serve from one store.

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use tokenkeep_core::InstanceId;
use tokenkeep_engine::{InstanceState, InstanceView};
use utoipa::ToSchema;

use super::time;
use crate::{
    AppState,
    auth::Auth,
    extract::{IdPath, Params},
    openapi::ProblemBody,
    problem::Problem,
};

/// Lists the instances, oldest first.
#[utoipa::path(
    get,
    path = "/v1/instances",
    tag = "operations",
    operation_id = "list_instances",
    responses(
        (status = 200, description = "all that have a record; those that ended in order and left nothing have none", body = InstanceList),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Auth(caller): Auth,
) -> Result<axum::Json<InstanceList>, Problem> {
    let views = state.engine.instances().list(&caller).await?;
    Ok(axum::Json(InstanceList { items: views.into_iter().map(Into::into).collect() }))
}

/// Forgets an instance that never comes back with its disk: what it was about to refresh is refreshed by others, and
/// replies that lie in its journal only are given up. If it is alive after all, it refreshes nothing any more and is
/// not ready until it is restarted.
#[utoipa::path(
    delete,
    path = "/v1/instances/{id}",
    tag = "operations",
    operation_id = "forget_instance",
    params(
        ("id" = String, Path, example = "01JD7ZC0000000000000000000"),
        ("force" = Option<bool>, Query, description = "also one that was seen in the last 30 s"),
    ),
    responses(
        (status = 204, description = "forgotten"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`instance_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`instance_alive`, `conflict`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn forget(
    State(state): State<AppState>,
    Auth(caller): Auth,
    IdPath(id): IdPath<InstanceId>,
    params: Params,
) -> Result<StatusCode, Problem> {
    let force = params.only(&["force"])?.flag("force")?;
    state.engine.instances().forget(&caller, id, force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All instances.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstanceList {
    items: Vec<InstanceBody>,
}

/// A process that serves, or served.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance, example = json!({
    "id": "01JD7ZC0000000000000000000", "state": "serving", "is_this": true, "host": "tokenkeep-0", "process_id": 1,
    "version": "0.1.0", "address": "10.0.0.7:7420", "journal": "01JD7Z00000000000000000000",
    "started_at": "2026-11-01T08:00:00Z", "last_seen_at": "2026-11-01T09:30:00Z", "uncommitted": 0,
}))]
pub(crate) struct InstanceBody {
    id: String,
    #[schema(value_type = InstanceStateWord)]
    state: &'static str,
    /// Whether it is the one that answers.
    is_this: bool,
    /// The name of its machine.
    host: String,
    /// The process id there.
    process_id: u32,
    /// The version of tokenkeep.
    version: String,
    /// Where it listens.
    address: Option<String>,
    /// The identity of its journal's directory, which stays with the disk: another instance that has the same can adopt
    /// its journal. `null` = it has none.
    journal: Option<String>,
    /// By its own clock.
    #[schema(format = DateTime)]
    started_at: String,
    /// By its own clock.
    #[schema(format = DateTime)]
    last_seen_at: String,
    /// How many replies of providers it holds that the store does not have.
    uncommitted: u64,
}

/// `silent` = its record has not moved for 30 s: it died, hangs, or cannot reach the store. `ended` = it ended in order
/// and left replies in its journal, which wait for an instance with the same journal directory.
#[derive(ToSchema)]
#[schema(as = InstanceState, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum InstanceStateWord {
    Serving,
    Silent,
    Ended,
}

impl From<InstanceView> for InstanceBody {
    fn from(view: InstanceView) -> Self {
        let InstanceView { instance, state, is_this } = view;
        Self {
            id: instance.id.to_string(),
            state: InstanceState::as_str(state),
            is_this,
            host: instance.process.host,
            process_id: instance.process.id,
            version: instance.process.version,
            address: instance.process.address,
            journal: instance.journal,
            started_at: time(instance.started_at),
            last_seen_at: time(instance.last_seen_at),
            uncommitted: instance.uncommitted,
        }
    }
}
