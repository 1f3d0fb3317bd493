//! Malformed, oversized, unknown and unauthorised requests get the documented error, and change nothing.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::json;
use tokenkeep_core::Role;

use crate::app::{TestApp, json_request};

const ALICE: &str = "/v1/connections/fake/_default/alice";

#[tokio::test]
async fn no_key_no_answer() {
    let app = TestApp::start().await;
    for path in ["/v1/connections", "/v1/keys", "/v1/stats", "/v1/integrations/fake", &format!("{ALICE}/token")] {
        let answer = app.send(Request::get(path).body(Body::empty()).unwrap()).await;
        answer.problem(401, "invalid_api_key");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tokenkeep\""));
        let unknown = Request::get(path).header("x-api-key", "tk_unknown").body(Body::empty()).unwrap();
        app.send(unknown).await.problem(401, "invalid_api_key");
    }
    let binary = Request::get("/v1/keys").header("x-api-key", &b"tk_\xff"[..]).body(Body::empty()).unwrap();
    app.send(binary).await.problem(401, "invalid_api_key");
    let two = app.request("GET", "/v1/keys").header("x-api-key", "tk_other").body(Body::empty()).unwrap();
    app.send(two).await.problem(400, "invalid_request");
}

#[tokio::test]
async fn a_key_does_what_it_may_and_nothing_else() {
    let app = TestApp::start().await;
    app.hold("alice", 3600).await;
    let reader = app.key(Role::Reader, &["_default"]).await;
    let as_reader = |method: &str, path: &str| Request::builder().method(method).uri(path).header("x-api-key", &reader);
    let token = as_reader("GET", &format!("{ALICE}/token")).body(Body::empty()).unwrap();
    assert_eq!(app.send(token).await.status, 200);
    for (method, path) in [
        ("DELETE", ALICE),
        ("GET", "/v1/connections/fake/acme/alice/token"),
        ("GET", "/v1/connections/fake/acme/alice"),
        ("POST", "/v1/cleanup"),
        ("GET", "/v1/stats"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/providers"),
        ("GET", "/v1/integrations"),
        ("DELETE", "/v1/subjects/_default/alice"),
    ] {
        let request = as_reader(method, path).body(Body::empty()).unwrap();
        app.send(request).await.problem(403, "forbidden");
    }
    let put = json_request(as_reader("PUT", ALICE), &json!({"access_token": "x"}));
    app.send(put).await.problem(403, "forbidden");
    assert_eq!(app.get(ALICE).await.json()["generation"], 1);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    let app = TestApp::start().await;
    for path in ["/nowhere", "/v1", "/v1/nothing", "/token", "/v1/connections/fake/_default/alice/x"] {
        app.get(path).await.problem(404, "route_not_found");
    }
    app.get("/v1/connections/fake//alice").await.problem(400, "invalid_identifier");
    let answer = app.send(app.request("PATCH", ALICE).body(Body::empty()).unwrap()).await;
    answer.problem(405, "method_not_allowed");
    let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let app = TestApp::start().await;
    for name in ["%2e%2e", "..", "%", "%g1", "%c3%a9", "%00", "_system", &"x".repeat(256)] {
        app.get(&format!("/v1/connections/fake/{name}/alice/token")).await.problem(400, "invalid_identifier");
        app.get(&format!("/v1/connections/fake/_default/{name}")).await.problem(400, "invalid_identifier");
        app.delete(&format!("/v1/subjects/{name}/alice")).await.problem(400, "invalid_identifier");
    }
    app.get("/v1/connections/FAKE/_default/alice").await.problem(400, "invalid_identifier");
    app.delete("/v1/keys/1").await.problem(400, "invalid_identifier");
    app.get("/v1/connections?tenant=%00").await.problem(400, "invalid_identifier");
}

#[tokio::test]
async fn queries_say_what_they_must_be() {
    let app = TestApp::start().await;
    app.hold("alice", 3600).await;
    for query in ["min_ttl=x", "min_ttl=-1", "min_ttl=86401", "min_ttl=1.5", "min_ttl=1&min_ttl=2"] {
        app.get(&format!("{ALICE}/token?{query}")).await.problem(400, "invalid_request");
    }
    assert_eq!(app.get(&format!("{ALICE}/token?utm=1&min_ttl=5")).await.status, 200);
    for query in ["limit=0", "limit=1001", "limit=x", "status=happy", "provder=fake"] {
        app.get(&format!("/v1/connections?{query}")).await.problem(400, "invalid_request");
    }
    app.delete(&format!("{ALICE}?revoke=yes")).await.problem(400, "invalid_request");
    assert_eq!(app.get(ALICE).await.status, 200);
}

#[tokio::test]
async fn bodies_are_refused_without_being_repeated() {
    let app = TestApp::start().await;
    let put = |body: &str| {
        app.request("PUT", ALICE).header("content-type", "application/json").body(Body::from(body.to_owned()))
    };
    for (body, about) in [
        (r#"{"access_token": "s3cret""#, "no JSON"),
        (r#"{"acces_token": "s3cret"}"#, "`acces_token`"),
        (r#"{"access_token": ["s3cret"]}"#, "`access_token`"),
        (r#"{"access_token": "a", "expires_in": "s3cret"}"#, "`expires_in`"),
        (r#"{"access_token": "a", "expires_at": "s3cret"}"#, "`expires_at`"),
        (r#"{"access_token": "a", "expires_in": 1, "expires_at": "2026-01-01T00:00:00Z"}"#, "`expires_in`"),
        (r#"{"access_token": "a", "access_token": "s3cret"}"#, "`access_token`"),
        (r#"["s3cret"]"#, "body"),
        ("{}", "`access_token`"),
        ("", "no JSON"),
    ] {
        let answer = app.send(put(body).unwrap()).await;
        let problem = answer.problem(400, "invalid_request");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(about), "{body}: {detail}");
        assert!(!answer.text().contains("s3cret"), "{body}: {detail}");
    }
    app.get(ALICE).await.problem(404, "connection_not_found");
}

#[tokio::test]
async fn bodies_are_json_and_not_endless() {
    let app = TestApp::start().await;
    let plain = app.request("PUT", ALICE).header("content-type", "text/plain");
    app.send(plain.body(Body::from("{}")).unwrap()).await.problem(415, "unsupported_media_type");
    let none = app.request("PUT", ALICE).body(Body::from("{}")).unwrap();
    app.send(none).await.problem(415, "unsupported_media_type");
    let report = app.request("POST", &format!("{ALICE}/token/refresh")).body(Body::from("if_generation=1")).unwrap();
    app.send(report).await.problem(415, "unsupported_media_type");

    let large = json!({"access_token": "x".repeat(64 * 1024)});
    app.put(ALICE, large).await.problem(413, "payload_too_large");
    let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(&[b' '; 1024][..]));
    let endless = app.request("PUT", ALICE).header("content-type", "application/json").body(Body::from_stream(chunks));
    app.send(endless.unwrap()).await.problem(413, "payload_too_large");
    let fits = json!({"access_token": "x".repeat(60 * 1024)});
    assert_eq!(app.put(ALICE, fits).await.status, 201);
}

#[tokio::test]
async fn unknown_providers_and_integrations_are_named() {
    let app = TestApp::start().await;
    let body = json!({"access_token": "a"});
    app.put("/v1/connections/nobody/_default/alice", body).await.problem(404, "provider_not_found");
    app.get("/v1/integrations/nobody").await.problem(404, "integration_not_found");
    let body = json!({"provider": "nobody", "client_id": "x"});
    app.put("/v1/integrations/nobody", body).await.problem(404, "provider_not_found");
    app.get("/v1/integrations/No").await.problem(400, "invalid_identifier");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let app = TestApp::start().await;
    let never = futures_util::stream::pending::<Result<&[u8], std::io::Error>>();
    let request = app.request("PUT", ALICE).header("content-type", "application/json");
    let passing = async {
        loop {
            app.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = app.send(request.body(Body::from_stream(never)).unwrap()) => {
            answer.problem(408, "request_timeout");
        }
        () = passing => {}
    }
}
