//! Health, metrics, statistics, the description, and what surrounds every answer.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::Request;
use serde_json::Value;
use tokenkeep_server::{Door, Settings};
use tracing_subscriber::fmt::MakeWriter;

use crate::app::{TestApp, json_request};

#[tokio::test]
async fn health_needs_no_key() {
    let app = TestApp::start().await;
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(app.send(get("/healthz")).await.json()["status"], "live");
    let ready = app.send(get("/readyz")).await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["status"], "ready");
    assert_eq!(app.send(get("/openapi.json")).await.json()["openapi"], "3.1.0");
    app.engine.shutdown(std::time::Duration::ZERO).await;
    assert_eq!(app.send(get("/readyz")).await.status, 503);
}

#[tokio::test]
async fn metrics_are_open_only_where_that_was_said() {
    let app = TestApp::start().await;
    app.get("/v1/connections/fake/_default/alice").await;
    let metrics = app.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(metrics.status, 200);
    let line =
        "tokenkeep_http_requests_total{route=\"/v1/connections/{provider}/{tenant}/{subject}\",status=\"4xx\"} 1";
    assert!(metrics.text().contains(line), "{}", metrics.text());
    assert!(!metrics.text().contains("alice"));

    let closed = TestApp::with(|_| {}, Settings::default()).await;
    let get = || Request::get("/metrics").body(Body::empty()).unwrap();
    closed.send(get()).await.problem(401, "invalid_api_key");
    assert_eq!(closed.get("/metrics").await.status, 200);
    assert_eq!(closed.send_at(Door::Local, get()).await.status, 200);
}

#[tokio::test]
async fn the_local_door_needs_no_key_and_respects_one() {
    let app = TestApp::start().await;
    let get = || Request::get("/v1/keys");
    assert_eq!(app.send_at(Door::Local, get().body(Body::empty()).unwrap()).await.status, 200);
    let with_key = get().header("x-api-key", "tk_unknown").body(Body::empty()).unwrap();
    app.send_at(Door::Local, with_key).await.problem(401, "invalid_api_key");
}

#[tokio::test]
async fn every_answer_is_named_and_kept_from_caches() {
    let app = TestApp::start().await;
    for path in ["/healthz", "/v1/connections", "/nowhere"] {
        let answer = app.get(path).await;
        assert_eq!(answer.header("x-request-id").unwrap().len(), 26, "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let named = app.request("GET", path).header("x-request-id", "mine.1").body(Body::empty()).unwrap();
        assert_eq!(app.send(named).await.header("x-request-id"), Some("mine.1"), "{path}");
    }
}

#[tokio::test]
async fn statistics_and_clean_up_answer() {
    let app = TestApp::start().await;
    app.hold("alice", 3600).await;
    let stats = app.get("/v1/stats").await.json();
    assert_eq!(stats["connections"], 1);
    assert_eq!(stats["by_status"]["active"], 1);
    assert_eq!(stats["by_provider"]["fake"], 1);
    assert!(stats["cache"]["hit_rate"].is_number());
    let cleaned = app.post("/v1/cleanup", serde_json::json!({})).await;
    assert_eq!(cleaned.status, 200);
    assert_eq!(cleaned.json()["removed"], 0);
    let providers = app.get("/v1/providers").await.json();
    assert!(providers["items"].as_array().unwrap().iter().any(|p| p["id"] == "fake"));
}

/// Every documented route exists, and every route for programs is documented.
#[tokio::test]
async fn the_description_and_the_router_agree() {
    let app = crate::clients::issuing().await;
    let document: Value = serde_json::from_str(&tokenkeep_server::openapi_json()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        let concrete = path
            .replace("{provider}", "fake")
            .replace("{tenant}", "acme")
            .replace("{subject}", "nobody")
            .replace("{jti}", "nobody")
            .replace("{id}", if path.contains("integrations") { "nobody" } else { "01ARZ3NDEKTSV4RRFFQ69G5FAV" });
        for (method, operation) in operations.as_object().unwrap() {
            let request = app.request(&method.to_uppercase(), &concrete).body(Body::empty()).unwrap();
            let answer = app.send(request).await;
            assert_ne!(answer.status, 405, "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_described = response.get("$ref").is_some() || response["description"].is_string();
                assert!(is_described, "{method} {path}: {status} has no description");
            }
            assert!(!answer.text().contains("route_not_found"), "{method} {path}");
            let status = answer.status.as_u16().to_string();
            let described = &operation["responses"];
            let known = described.get(&status).is_some() || described.get("default").is_some();
            assert!(known, "{method} {path} answers {status}, undocumented");
        }
    }
    let routes = include_str!("../../src/router.rs").split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
    let for_people =
        |route: &str| route.contains("callback") || route.starts_with("/connect/") || route == "/oauth/return";
    // A call of the provider's root is one of the calls below it.
    let is_root = |route: &str| route.trim_end_matches('/') == "/proxy/{provider}/{tenant}/{subject}";
    for route in routes.filter(|route| !for_people(route) && !is_root(route) && *route != "/v1/") {
        assert!(paths.contains_key(route), "{route} is not documented");
    }
}

/// One line per request on the slow path, which names the request and never a person or a secret.
#[tokio::test]
async fn the_log_has_a_line_for_each_request_and_no_secrets() {
    let app = TestApp::start().await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let tokens = serde_json::json!({"access_token": "canary-access", "refresh_token": "canary-refresh"});
    let request = app.request("PUT", "/v1/connections/fake/_default/zoe").header("x-request-id", "named-1");
    app.send(json_request(request, &tokens)).await;
    app.get("/v1/connections/fake/_default/zoe/token?hint=canary-query").await;
    app.get("/v1/connections/fake/_default/nobody-else/token").await.problem(404, "connection_not_found");
    app.get("/connect/canary-ticket").await;
    app.get("/callback?code=canary-code&state=canary-state").await;

    let log = log.text();
    let answered: Vec<&str> = log.lines().filter(|line| line.contains("answered")).collect();
    assert_eq!(answered.len(), 5, "{log}");
    let put = answered[0];
    for part in ["id=\"named-1\"", "method=\"PUT\"", "{provider}/{tenant}/{subject}", "status=201"] {
        assert!(put.contains(part), "{part}: {put}");
    }
    assert!(answered.iter().all(|line| !line.contains("zoe") && !line.contains("nobody-else")), "{log}");
    assert!(!log.contains("canary") && !log.contains(&app.key), "{log}");
}

/// What is logged, kept in memory.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
