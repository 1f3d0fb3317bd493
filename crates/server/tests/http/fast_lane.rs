//! The fast lane never answers anything else than the router would.

use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use tokenkeep_core::Role;

use crate::app::{Answered, TestApp};

/// Whether the lane took the request, seen from its counter.
pub(crate) async fn hits(app: &TestApp) -> u64 {
    let metrics = app.get("/metrics").await;
    let line = metrics.text().lines().find(|line| line.starts_with("tokenkeep_http_fast_lane_hits_total"));
    line.unwrap().split(' ').next_back().unwrap().parse().unwrap()
}

pub(crate) fn without_request_id(mut answer: Answered, sent: bool) -> (u16, Vec<(String, String)>, Vec<u8>) {
    if !sent {
        answer.headers.remove("x-request-id");
    }
    answer.headers.remove(header::CONTENT_LENGTH);
    let mut headers: Vec<_> =
        answer.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (answer.status.as_u16(), headers, answer.body.to_vec())
}

/// A path, headers, and whether the lane is meant to take it.
type Case<'a> = (&'a str, Vec<(&'a str, String)>, bool);

#[tokio::test]
async fn both_lanes_answer_the_same() {
    let app = TestApp::start().await;
    let tokens = json!({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600, "scope": "a b"});
    for path in ["/v1/connections/fake/_default/alice", "/v1/connections/fake/acme%2Fx/github%7C42"] {
        assert_eq!(app.put(path, tokens.clone()).await.status, 201);
        assert_eq!(app.get(&format!("{path}/token")).await.status, 200);
    }
    let reader = app.key(Role::Reader, &["_default"]).await;
    let operator = app.key(Role::Operator, &[]).await;
    let elsewhere = app.key(Role::Reader, &["beta"]).await;

    let alice = "/v1/connections/fake/_default/alice/token";
    let other = "/v1/connections/fake/acme%2Fx/github%7C42/token";
    let admin = &*app.key;
    let cases: Vec<Case> = vec![
        (alice, vec![("authorization", format!("Bearer {admin}"))], true),
        (alice, vec![("authorization", format!("bearer {admin}"))], true),
        (alice, vec![("x-api-key", admin.to_owned())], true),
        (alice, vec![("x-api-key", reader.clone())], true),
        (other, vec![("x-api-key", admin.to_owned())], true),
        (other, vec![("x-api-key", reader.clone())], false),
        (alice, vec![("x-api-key", operator)], false),
        (alice, vec![("x-api-key", elsewhere)], false),
        (alice, vec![], false),
        (alice, vec![("x-api-key", "tk_unknown".to_owned())], false),
        (alice, vec![("authorization", "Basic dGs6".to_owned())], false),
        (alice, vec![("authorization", format!("Bearer {admin}")), ("x-api-key", admin.to_owned())], false),
        (alice, vec![("authorization", format!("Bearer {admin}")), ("x-api-key", reader)], false),
        (alice, vec![("x-api-key", admin.to_owned()), ("if-none-match", "\"1\"".to_owned())], true),
        (alice, vec![("x-api-key", admin.to_owned()), ("if-none-match", "\"0\", W/\"1\"".to_owned())], true),
        (alice, vec![("x-api-key", admin.to_owned()), ("if-none-match", "*".to_owned())], true),
        (alice, vec![("x-api-key", admin.to_owned()), ("if-none-match", "\"2\"".to_owned())], true),
        (alice, vec![("x-api-key", admin.to_owned()), ("x-request-id", "mine-1".to_owned())], true),
        ("/v1/connections/fake/_default/alice/token?min_ttl=120", vec![("x-api-key", admin.to_owned())], true),
        ("/v1/connections/fake/_default/alice/token?min_ttl=86400", vec![("x-api-key", admin.to_owned())], true),
        ("/v1/connections/fake/_default/alice/token?min_ttl=86401", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/_default/alice/token?min_ttl=-1", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/_default/alice/token?x=1", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/_default/alice/token?min_ttl=1&min_ttl=1", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/_default/%61lice/token", vec![("x-api-key", admin.to_owned())], true),
        ("/v1/connections/fake/_default/%2561lice/token", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/acme/x/github%7C42/token", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/f%61ke/_default/alice/token", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/_default/nobody/token", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/_default/alice/token/", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake//alice/token", vec![("x-api-key", admin.to_owned())], false),
        ("/v1/connections/fake/%zz/alice/token", vec![("x-api-key", admin.to_owned())], false),
    ];
    for (path, headers, taken) in cases {
        for method in ["GET", "HEAD"] {
            let request = || {
                let mut builder = Request::builder().method(method).uri(path);
                for (name, value) in &headers {
                    builder = builder.header(*name, value);
                }
                builder.body(Body::empty()).unwrap()
            };
            let named = headers.iter().any(|(name, _)| *name == "x-request-id");
            let before = hits(&app).await;
            let fast = without_request_id(app.send(request()).await, named);
            assert_eq!(hits(&app).await - before, u64::from(taken && method == "GET"), "{method} {path} {headers:?}");
            let slow = without_request_id(app.send_slowly(request()).await, named);
            assert_eq!(fast, slow, "{method} {path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_due_or_dead_is_left_to_the_router() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 3600).await;
    let path = "/v1/connections/fake/_default/alice/token";
    let first = app.get(path).await.json();
    app.clock.advance(std::time::Duration::from_secs(3601));
    let before = hits(&app).await;
    let second = app.get(path).await.json();
    assert_eq!(hits(&app).await, before);
    assert_ne!(first["access_token"], second["access_token"]);
    assert_eq!(second["generation"], 2);
    assert_eq!(app.provider.calls(), 1);
}
