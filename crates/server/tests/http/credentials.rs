//! Providers without OAuth: credentials in, tokens out.

use std::time::Duration;

use serde_json::{Value, json};
use tokenkeep_core::Role;
use tokenkeep_testkit::Fault;

use crate::app::{TestApp, json_request};

const ACME: &str = "/v1/connections/logins/acme/_default";

async fn app() -> TestApp {
    let app = TestApp::start().await;
    app.provider.configure(|config| config.accounts = [("acme".to_owned(), "s3cret".to_owned())].into());
    app
}

fn right() -> Value {
    json!({"username": "acme", "password": "s3cret"})
}

fn wrong() -> Value {
    json!({"username": "acme", "password": "CANARY-wrong"})
}

#[tokio::test]
async fn credentials_are_stored_and_bring_tokens() {
    let app = app().await;
    let body = json!({"credentials": right(), "ttl": 1200, "display_name": "Acme Corp"});
    let created = app.put(ACME, body.clone()).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(!created.text().contains("s3cret"));
    let view = created.json();
    assert_eq!((&view["has_credentials"], &view["has_refresh_token"]), (&json!(true), &json!(true)));
    assert_eq!((&view["status"], &view["display_name"]), (&json!("expired"), &json!("Acme Corp")));
    assert_eq!(app.provider.calls(), 0);

    let token = app.get(&format!("{ACME}/token")).await;
    assert_eq!(token.status, 200, "{token:?}");
    assert_eq!(
        (&token.json()["token_type"], &token.json()["expires_at"]),
        (&json!("Bearer"), &json!("2026-01-01T00:20:00Z"))
    );
    assert!(app.provider.is_access_live(token.json()["access_token"].as_str().unwrap()));
    assert_eq!(app.put(ACME, body).await.status, 200);

    let key = json!({"credentials": {"api_key": "sk-1"}});
    assert_eq!(app.put("/v1/connections/keyed/_default/_default", key).await.json()["status"], "active");
    let token = app.get("/v1/connections/keyed/_default/_default/token").await.json();
    assert_eq!(token, json!({"access_token": "sk-1", "token_type": "Bearer", "generation": 1}));
}

#[tokio::test]
async fn with_a_login_first_nothing_is_stored_that_fails() {
    let app = app().await;
    let path = format!("{ACME}?login=true");
    let problem = app.put(&path, json!({"credentials": wrong()})).await;
    problem.problem(422, "invalid_credentials");
    assert!(!problem.text().contains("CANARY"));
    app.get(ACME).await.problem(404, "connection_not_found");
    app.provider.fault(Fault::server_error());
    let down = app.put(&path, json!({"credentials": right()})).await;
    down.problem(503, "provider_unavailable");
    assert!(down.header("retry-after").is_some());
    app.get(ACME).await.problem(404, "connection_not_found");
    let stored = app.put(&path, json!({"credentials": right()})).await;
    assert_eq!((stored.status.as_u16(), &stored.json()["status"]), (201, &json!("active")));
}

#[tokio::test]
async fn a_refused_login_needs_other_credentials_and_offers_no_consent() {
    let app = app().await;
    app.put(ACME, json!({"credentials": wrong()})).await;
    for _ in 0..100 {
        let problem = app.get(&format!("{ACME}/token")).await.problem(424, "reauth_required");
        assert_eq!(problem["reason"], "invalid_credentials");
        assert_eq!(problem.get("connect"), None);
        app.clock.advance(Duration::from_mins(10));
    }
    assert_eq!(app.provider.calls(), 1);
    let view = app.get(ACME).await.json();
    assert_eq!(
        (&view["status"], &view["last_error"]["code"]),
        (&json!("reauth_required"), &json!("invalid_credentials"))
    );
    let metrics = app.get("/metrics").await;
    assert!(
        metrics.text().contains("tokenkeep_logins_total{integration=\"logins\",outcome=\"refused\"} 1"),
        "{}",
        metrics.text()
    );
    app.put(ACME, json!({"credentials": right()})).await;
    assert_eq!(app.get(&format!("{ACME}/token")).await.status, 200);
}

#[tokio::test]
async fn credentials_are_tried_and_logged_in_with_without_being_stored() {
    let app = app().await;
    let body = |credentials: Value| json!({"provider": "logins", "tenant": "acme", "credentials": credentials});
    let valid = app.post("/v1/credentials/test", body(right())).await;
    assert_eq!((valid.status.as_u16(), valid.json()), (200, json!({"valid": true})));
    app.post("/v1/credentials/test", body(wrong())).await.problem(422, "invalid_credentials");
    let login = app.post("/v1/credentials/login", body(right())).await;
    assert_eq!(login.status, 200, "{login:?}");
    assert_eq!(login.header("cache-control"), Some("no-store"));
    assert_eq!(login.json()["expires_at"], "2026-01-01T01:00:00Z");
    assert!(app.provider.is_access_live(login.json()["access_token"].as_str().unwrap()));
    app.post("/v1/credentials/login", body(wrong())).await.problem(422, "invalid_credentials");
    app.get(ACME).await.problem(404, "connection_not_found");
    assert_eq!(app.provider.calls(), 4);
}

#[tokio::test]
async fn what_makes_no_sense_is_said_without_a_login() {
    let app = app().await;
    for body in [
        json!({"credentials": {}}),
        json!({"credentials": {"username": "acme"}}),
        json!({"credentials": {"username": "acme", "password": "x", "api_key": "y"}}),
        json!({"credentials": {"username": "acme", "passwort": "x"}}),
        json!({"credentials": {"api_key": "y"}}),
        json!({"credentials": right(), "access_token": "a"}),
        json!({"credentials": right(), "refresh_token": null}),
        json!({"credentials": right(), "ttl": 5}),
        json!({"access_token": "a", "ttl": 600}),
    ] {
        app.put(ACME, body).await.problem(400, "invalid_request");
    }
    app.put(&format!("{ACME}?login=true"), json!({"access_token": "a"})).await.problem(400, "invalid_request");
    app.put("/v1/connections/fake/_default/alice", json!({"credentials": right()}))
        .await
        .problem(400, "invalid_request");
    let nobody = json!({"provider": "nobody", "credentials": right()});
    app.post("/v1/credentials/test", nobody).await.problem(404, "provider_not_found");
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test]
async fn a_key_tries_credentials_within_its_bounds() {
    let app = app().await;
    let body = json!({"provider": "logins", "tenant": "acme", "credentials": right()});
    for (role, tenants, test, login) in [
        (Role::Application, &["acme"][..], 200, 200),
        (Role::Application, &["other"], 403, 403),
        (Role::Operator, &["acme"], 200, 403),
        (Role::Reader, &["acme"], 403, 403),
    ] {
        let key = app.key(role, tenants).await;
        for (path, status) in [("/v1/credentials/test", test), ("/v1/credentials/login", login)] {
            let request = http::Request::post(path).header("x-api-key", &key);
            assert_eq!(app.send(json_request(request, &body)).await.status, status, "{role:?} {tenants:?} {path}");
        }
    }
    let request = http::Request::post("/v1/credentials/login");
    app.send(json_request(request, &body)).await.problem(401, "invalid_api_key");
}
