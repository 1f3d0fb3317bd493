//! Keys are made, shown once, and gone when they are removed.

use axum::body::Body;
use http::Request;
use serde_json::json;
use tokenkeep_core::Role;

use crate::app::{TestApp, json_request};

#[tokio::test]
async fn a_key_works_from_its_making_to_its_end() {
    let app = TestApp::start().await;
    let made = app.post("/v1/keys", json!({"name": "mailer", "role": "reader", "tenants": ["acme"]})).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(made["role"], "reader");
    assert_eq!(made["tenants"], json!(["acme"]));
    assert_eq!(made["providers"], json!(null));
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let look = || Request::get("/v1/connections?tenant=acme").header("x-api-key", key).body(Body::empty()).unwrap();
    assert_eq!(app.send(look()).await.status, 200);

    let list = app.get("/v1/keys").await;
    assert!(list.json()["items"].as_array().unwrap().iter().any(|k| k["id"] == id));
    assert!(!list.text().contains(key), "shown once");

    assert_eq!(app.delete(&format!("/v1/keys/{id}")).await.status, 204);
    app.send(look()).await.problem(401, "invalid_api_key");
    app.delete(&format!("/v1/keys/{id}")).await.problem(404, "key_not_found");
}

#[tokio::test]
async fn a_key_is_described_completely_or_not_made() {
    let app = TestApp::start().await;
    app.post("/v1/keys", json!({"name": "x"})).await.problem(400, "invalid_request");
    let odd = app.post("/v1/keys", json!({"name": "x", "role": "king"})).await.problem(400, "invalid_request");
    assert!(odd["detail"].as_str().unwrap().starts_with("`role` must be one of"), "{odd}");
    app.post("/v1/keys", json!({"name": "x", "role": "reader", "tenants": [".."]}))
        .await
        .problem(400, "invalid_identifier");
}

#[tokio::test]
async fn only_admins_manage_keys() {
    let app = TestApp::start().await;
    for role in [Role::Operator, Role::Application, Role::Reader] {
        let key = app.key(role, &[]).await;
        let request = Request::post("/v1/keys").header("x-api-key", key);
        app.send(json_request(request, &json!({"name": "x", "role": "reader"}))).await.problem(403, "forbidden");
    }
}
