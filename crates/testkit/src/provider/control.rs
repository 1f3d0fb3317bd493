//! The test's own door, for tests in another process: the methods of [`FakeProvider`](super::FakeProvider) as JSON.
//!
//! | route | does |
//! |---|---|
//! | `GET /_control/stats` | `{calls, spent_twice, max_in_flight, families, revocations}` |
//! | `GET /_control/log` | every token request |
//! | `POST /_control/live` `{refresh_token?, access_token?}` | `{refresh_token, access_token}`: whether they are good now |
//! | `POST /_control/seed` `{subject}` | tokens as if `subject` had consented |
//! | `POST /_control/config` | changes the named members of the configuration; answers all of it |
//! | `POST /_control/faults` `{fault, times?}` | scripts a fault; answers `{gate}`, the number of its gate |
//! | `DELETE /_control/faults` | forgets those that have not happened yet |
//! | `GET /_control/gates/{n}` | `{arrived}`: how many requests came to it |
//! | `POST /_control/gates/{n}/arrived` | answers once a request is held there |
//! | `POST /_control/gates/{n}/release` | lets them go |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State as Extract},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Config, Fault, Gate, Shared};

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/_control/stats", get(stats))
        .route("/_control/log", get(log))
        .route("/_control/live", post(live))
        .route("/_control/seed", post(seed))
        .route("/_control/config", post(configure))
        .route("/_control/faults", post(fault).delete(clear))
        .route("/_control/gates/{number}", get(gate))
        .route("/_control/gates/{number}/arrived", post(arrived))
        .route("/_control/gates/{number}/release", post(release))
}

async fn stats(Extract(shared): Extract<Arc<Shared>>) -> Json<Value> {
    let families = shared.families();
    let state = shared.state();
    Json(json!({
        "calls": state.log.len(),
        "spent_twice": state.ledger.spent_twice(),
        "max_in_flight": state.ledger.max_in_flight(),
        "families": families,
        "revocations": state.revocations,
    }))
}

async fn log(Extract(shared): Extract<Arc<Shared>>) -> Json<Value> {
    Json(json!(shared.state().log))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Live {
    refresh_token: Option<String>,
    access_token: Option<String>,
}

async fn live(Extract(shared): Extract<Arc<Shared>>, Json(asked): Json<Live>) -> Json<Value> {
    Json(json!({
        "refresh_token": asked.refresh_token.map(|token| shared.is_live(&token)),
        "access_token": asked.access_token.map(|token| shared.is_access_live(&token)),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    subject: String,
}

async fn seed(Extract(shared): Extract<Arc<Shared>>, Json(asked): Json<Seed>) -> Json<Value> {
    Json(json!(shared.seed(&asked.subject)))
}

async fn configure(
    Extract(shared): Extract<Arc<Shared>>,
    Json(changes): Json<serde_json::Map<String, Value>>,
) -> Response {
    let mut state = shared.state();
    let mut config = json!(state.config);
    if let Value::Object(members) = &mut config {
        members.extend(changes);
    }
    match Config::deserialize(&config) {
        Ok(new) => {
            state.config = new;
            Json(config).into_response()
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    fault: Fault,
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

async fn fault(Extract(shared): Extract<Arc<Shared>>, Json(asked): Json<Script>) -> Json<Value> {
    let mut state = shared.state();
    let door = state.script.push(asked.fault, asked.times);
    state.gates.push(Gate::new(door));
    Json(json!({ "gate": state.gates.len() - 1 }))
}

async fn clear(Extract(shared): Extract<Arc<Shared>>) -> StatusCode {
    shared.state().script.clear();
    StatusCode::NO_CONTENT
}

async fn gate(Extract(shared): Extract<Arc<Shared>>, Path(number): Path<usize>) -> Result<Json<Value>, StatusCode> {
    let state = shared.state();
    let gate = state.gates.get(number).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(json!({ "arrived": gate.arrived_so_far() })))
}

async fn arrived(Extract(shared): Extract<Arc<Shared>>, Path(number): Path<usize>) -> StatusCode {
    let Some(arrived) = shared.state().gates.get(number).map(|gate| gate.arrivals(1)) else {
        return StatusCode::NOT_FOUND;
    };
    arrived.await;
    StatusCode::NO_CONTENT
}

async fn release(Extract(shared): Extract<Arc<Shared>>, Path(number): Path<usize>) -> StatusCode {
    match shared.state().gates.get(number) {
        Some(gate) => {
            gate.release();
            StatusCode::NO_CONTENT
        }
        None => StatusCode::NOT_FOUND,
    }
}
