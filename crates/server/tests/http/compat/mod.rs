//! The routes of the service for BlueStakes tickets, as its callers use them: bodies compared as a whole.

mod calls;
mod credentials;
mod refusals;
mod secrets;
mod tokens;

use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use tokenkeep_server::{Compat, Settings};

use crate::app::{Answered, TestApp, json_request};

const USER: &str = "ann";
const PASSWORD: &str = "canary-password-8f1c";
const STORE: &str = "/tokens/credentials/123";
const TEST: &str = "/tokens/credentials/test";
const NEVER: Duration = Duration::from_hours(24 * 365);

/// An application at which `ann` has an account, with these settings.
async fn start(compat: Compat) -> TestApp {
    // What the engine does by itself stays away: these tests are about what callers bring about.
    let alone = |settings: &mut tokenkeep_engine::Settings| {
        settings.preload_interval = NEVER;
        settings.cleanup_interval = NEVER;
    };
    let app = TestApp::with(alone, Settings { open_metrics: true, compat, ..Settings::default() }).await;
    app.stakes.account(USER, PASSWORD);
    app
}

/// As that service's callers show their key.
fn request(app: &TestApp, method: &str, path: &str) -> http::request::Builder {
    with_key(&app.key, method, path)
}

fn with_key(key: &str, method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("X-API-Key", key)
}

/// A call without a body.
async fn call(app: &TestApp, method: &str, path: &str) -> Answered {
    app.send(request(app, method, path).body(Body::empty()).unwrap()).await
}

/// The same with another key.
async fn call_as(app: &TestApp, key: &str, method: &str, path: &str) -> Answered {
    app.send(with_key(key, method, path).body(Body::empty()).unwrap()).await
}

async fn post_json(app: &TestApp, path: &str, body: Value) -> Answered {
    app.send(json_request(request(app, "POST", path), &body)).await
}

async fn post_json_as(app: &TestApp, key: &str, path: &str, body: Value) -> Answered {
    app.send(json_request(with_key(key, "POST", path), &body)).await
}

async fn post_form(app: &TestApp, path: &str, body: &str) -> Answered {
    let form = request(app, "POST", path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    app.send(form.body(Body::from(body.to_owned())).unwrap()).await
}

fn ann() -> Value {
    json!({"username": USER, "password": PASSWORD})
}

/// Stores `ann`'s credentials for `company`.
async fn store(app: &TestApp, company: &str) {
    let answer = post_json(app, &format!("/tokens/credentials/{company}"), ann()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// What is said of company 123 before anything is known of its credentials; `changed` goes over it, and over its data.
fn outcome(message: &str, error: Option<&str>, changed: &Value) -> Value {
    let mut data = json!({
        "company_id": 123, "username": USER, "credentials_tested": false, "credentials_valid": false,
        "credentials_stored": false, "test_error": null, "storage_error": null, "company_name": null,
    });
    data.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    json!({"success": error.is_none(), "message": message, "data": data, "error": error})
}
