//! Instances are listed, and forgotten by those who may.

use axum::body::Body;
use http::Request;
use serde_json::json;
use tokenkeep_core::Role;

use crate::app::TestApp;

#[tokio::test]
async fn the_one_that_answers_is_listed() {
    let app = TestApp::start().await;
    let list = app.get("/v1/instances").await;
    assert_eq!(list.status, 200);
    let list = list.json();
    let [only] = list["items"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(only["id"], app.engine.instance().to_string());
    assert_eq!((&only["state"], &only["is_this"]), (&json!("serving"), &json!(true)));
    assert_eq!((&only["uncommitted"], &only["journal"]), (&json!(0), &json!(null)));
    assert_eq!(only["process_id"], std::process::id());
}

#[tokio::test]
async fn one_that_is_alive_is_forgotten_only_by_force_and_is_not_ready_then() {
    let app = TestApp::start().await;
    let own = format!("/v1/instances/{}", app.engine.instance());
    let refused = app.delete(&own).await.problem(409, "instance_alive");
    assert!(refused["detail"].as_str().unwrap().contains("30 s"), "{refused}");
    app.delete(&format!("{own}?force=maybe")).await.problem(400, "invalid_request");
    app.delete(&format!("{own}?sure=true")).await.problem(400, "invalid_request");
    app.delete("/v1/instances/nonsense").await.problem(400, "invalid_identifier");
    app.delete("/v1/instances/01JD7ZC0000000000000000000").await.problem(404, "instance_not_found");
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(app.delete(&format!("{own}?force=true")).await.status, 204);
    assert_eq!(app.get("/readyz").await.status, 503);
    assert_eq!(app.get("/v1/instances").await.json()["items"], json!([]));
}

#[tokio::test]
async fn only_operators_of_the_whole_installation_look_and_forget() {
    let app = TestApp::start().await;
    let own = format!("/v1/instances/{}?force=true", app.engine.instance());
    let ask = async |key: &str, method: &str, path: &str| {
        app.send(Request::builder().method(method).uri(path).header("x-api-key", key).body(Body::empty()).unwrap())
            .await
    };
    for (role, tenants) in [(Role::Application, &[][..]), (Role::Reader, &[]), (Role::Operator, &["acme"])] {
        let key = app.key(role, tenants).await;
        ask(&key, "GET", "/v1/instances").await.problem(403, "forbidden");
        ask(&key, "DELETE", &own).await.problem(403, "forbidden");
    }
    let key = app.key(Role::Operator, &[]).await;
    assert_eq!(ask(&key, "GET", "/v1/instances").await.status, 200);
    assert_eq!(ask(&key, "DELETE", &own).await.status, 204);
}
