//! Tokens in, tokens out.

use std::time::Duration;

use axum::body::Body;
use serde_json::json;
use tokenkeep_core::Role;
use tokenkeep_testkit::Fault;

use crate::app::{TestApp, json_request};

const ALICE: &str = "/v1/connections/fake/_default/alice";

#[tokio::test]
async fn tokens_are_stored_and_served() {
    let app = TestApp::start().await;
    let tokens = json!({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600, "display_name": "Alice"});
    let created = app.put(ALICE, tokens.clone()).await;
    assert_eq!(created.status, 201);
    assert!(!created.text().contains("at-1") && !created.text().contains("rt-1"));
    let view = created.json();
    assert_eq!(view["status"], "active");
    assert_eq!(view["expires_at"], "2026-01-01T01:00:00Z");
    assert_eq!(view["has_refresh_token"], true);
    assert_eq!(view["display_name"], "Alice");
    assert_eq!(app.get(ALICE).await.json(), view);

    let token = app.get(&format!("{ALICE}/token")).await;
    assert_eq!(token.status, 200);
    assert_eq!(token.header("etag"), Some("\"1\""));
    assert_eq!(token.header("cache-control"), Some("no-store"));
    assert_eq!(token.header("content-type"), Some("application/json"));
    assert_eq!(
        token.json(),
        json!({"access_token": "at-1", "token_type": "Bearer", "expires_at": "2026-01-01T01:00:00Z", "generation": 1})
    );

    let replaced = app.put(ALICE, json!({"access_token": "at-2"})).await;
    assert_eq!(replaced.status, 200);
    assert_eq!(replaced.json()["generation"], 2);
    assert_eq!(replaced.json()["has_refresh_token"], true, "left out: the stored one stays");
    let removed = app.put(ALICE, json!({"access_token": "at-3", "refresh_token": null})).await;
    assert_eq!(removed.json()["has_refresh_token"], false, "null: it goes");
    assert_eq!(app.get(&format!("{ALICE}/token")).await.json()["access_token"], "at-3");
}

#[tokio::test]
async fn a_known_generation_is_not_sent_again() {
    let app = TestApp::start().await;
    app.hold("alice", 3600).await;
    for (tag, status) in [("\"1\"", 304), ("W/\"1\"", 304), ("\"2\"", 200)] {
        let request = app.request("GET", &format!("{ALICE}/token")).header("if-none-match", tag);
        let answer = app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.body.is_empty(), status == 304);
        assert_eq!(answer.header("etag"), Some("\"1\""));
    }
}

#[tokio::test]
async fn seeding_changes_nothing_where_something_is() {
    let app = TestApp::start().await;
    let seed =
        || json_request(app.request("PUT", ALICE).header("if-none-match", "*"), &json!({"access_token": "seed"}));
    assert_eq!(app.send(seed()).await.status, 201);
    assert_eq!(app.put(ALICE, json!({"access_token": "real"})).await.status, 200);
    app.send(seed()).await.problem(412, "already_there");
    assert_eq!(app.get(&format!("{ALICE}/token")).await.json()["access_token"], "real");
    let other = json_request(app.request("PUT", ALICE).header("if-none-match", "\"1\""), &json!({"access_token": "x"}));
    app.send(other).await.problem(400, "invalid_request");
}

#[tokio::test]
async fn a_spent_refresh_token_is_refused_unless_forced() {
    let app = TestApp::start().await;
    app.integrate().await;
    let issued = app.provider.seed("alice");
    let body = json!({"access_token": issued.access_token, "refresh_token": issued.refresh_token, "expires_in": 3600});
    app.put(ALICE, body.clone()).await;
    assert_eq!(app.post(&format!("{ALICE}/token/refresh"), json!({})).await.status, 200);
    app.put(ALICE, body.clone()).await.problem(409, "stale_refresh_token");
    assert_eq!(app.put(&format!("{ALICE}?force=true"), body).await.status, 200);
}

#[tokio::test]
async fn a_report_brings_one_refresh_and_an_old_report_none() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 3600).await;
    let report = |generation: u64| {
        app.post("/v1/connections/fake/_default/alice/token/refresh", json!({"if_generation": generation}))
    };
    let first = report(1).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.json()["generation"], 2);
    assert_eq!(first.header("etag"), Some("\"2\""));
    assert_eq!(report(1).await.json()["generation"], 2);
    assert_eq!(app.provider.calls(), 1);
    let behind = report(9).await;
    behind.problem(503, "store_unavailable");
    assert!(behind.header("retry-after").is_some());
    assert_eq!(app.provider.calls(), 1);
}

#[tokio::test]
async fn a_refresh_without_a_body_is_a_refresh() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 3600).await;
    let request = app.request("POST", &format!("{ALICE}/token/refresh")).body(Body::empty()).unwrap();
    assert_eq!(app.send(request).await.json()["generation"], 2);
}

#[tokio::test]
async fn who_may_not_read_tokens_refreshes_without_seeing_one() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 3600).await;
    let operator = app.key(Role::Operator, &[]).await;
    let request = http::Request::post(format!("{ALICE}/token/refresh")).header("x-api-key", operator);
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["generation"], 2);
    assert!(answer.json().get("access_token").is_none());
}

#[tokio::test]
async fn an_endless_reporter_is_told_to_wait() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 3600).await;
    let mut answer = None;
    for generation in 1..=7 {
        // Each report is about another token, a moment after the last.
        app.clock.advance(Duration::from_secs(1));
        let report = json!({"if_generation": generation});
        let answered = app.post(&format!("{ALICE}/token/refresh"), report).await;
        if answered.status == 429 {
            answer = Some(answered);
            break;
        }
        assert_eq!(answered.status, 200, "{answered:?}");
    }
    let answer = answer.expect("a report too many");
    answer.problem(429, "too_many_requests");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn consent_that_is_gone_says_how_to_get_it_back() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 3600).await;
    app.provider.revoke_subject("alice");
    app.clock.advance(Duration::from_secs(3601));
    let problem = app.get(&format!("{ALICE}/token")).await.problem(424, "reauth_required");
    assert_eq!(problem["reason"], "invalid_grant");
    assert_eq!(problem["connect"], json!({"provider": "fake", "tenant": "_default", "subject": "alice"}));
    assert_eq!(app.get(ALICE).await.json()["status"], "reauth_required");
}

#[tokio::test]
async fn a_token_nobody_can_renew_says_so() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.put(ALICE, json!({"access_token": "at-1", "expires_in": 60})).await;
    app.clock.advance(Duration::from_secs(61));
    let problem = app.get(&format!("{ALICE}/token")).await.problem(424, "reauth_required");
    assert_eq!(problem["reason"], "no_refresh_token");
}

#[tokio::test]
async fn the_integrations_faults_are_not_the_users() {
    let app = TestApp::start().await;
    app.hold("alice", 60).await;
    app.clock.advance(Duration::from_secs(61));
    app.get(&format!("{ALICE}/token")).await.problem(502, "integration_missing");
    app.integrate().await;
    app.provider.fault(Fault::error(401, "invalid_client"));
    app.get(&format!("{ALICE}/token")).await.problem(502, "integration_rejected");
    assert_eq!(app.get(ALICE).await.json()["status"], "expired");
}

#[tokio::test]
async fn a_provider_that_refuses_the_request_is_named() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 60).await;
    app.clock.advance(Duration::from_secs(61));
    app.provider.fault(Fault::error(400, "invalid_scope"));
    app.get(&format!("{ALICE}/token")).await.problem(502, "provider_rejected");
}

#[tokio::test]
async fn a_provider_that_is_down_is_not_a_lost_consent() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 60).await;
    app.clock.advance(Duration::from_secs(61));
    app.provider.fault(Fault::too_many_requests(7));
    let answer = app.get(&format!("{ALICE}/token")).await;
    answer.problem(503, "provider_unavailable");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

#[tokio::test]
async fn connections_are_listed_filtered_and_forgotten() {
    let app = TestApp::start().await;
    for subject in ["alice", "bob", "carol"] {
        app.hold(subject, 3600).await;
    }
    app.put("/v1/connections/google/acme/alice", json!({"access_token": "at"})).await;
    let subjects = |answer: &crate::app::Answered| {
        let mut subjects: Vec<String> =
            answer.json()["items"].as_array().unwrap().iter().map(|c| c["subject"].as_str().unwrap().into()).collect();
        subjects.sort();
        subjects
    };
    let all = app.get("/v1/connections").await;
    assert_eq!(subjects(&all), ["alice", "alice", "bob", "carol"]);
    assert!(!all.text().contains("access_token"));
    assert_eq!(subjects(&app.get("/v1/connections?provider=fake&subject=alice").await), ["alice"]);
    assert_eq!(subjects(&app.get("/v1/connections?tenant=acme&status=active").await), ["alice"]);
    let page = app.get("/v1/connections?provider=fake&limit=2").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let next = format!("/v1/connections?provider=fake&limit=2&cursor={}", encode(page["next"].as_str().unwrap()));
    assert_eq!(app.get(&next).await.json()["items"].as_array().unwrap().len(), 1);
    let bound = app.key(Role::Reader, &["acme"]).await;
    let request = http::Request::get("/v1/connections").header("x-api-key", bound).body(Body::empty()).unwrap();
    assert_eq!(app.send(request).await.json()["items"][0]["tenant"], "acme");

    assert_eq!(app.delete("/v1/connections/fake/_default/bob").await.status, 204);
    app.delete("/v1/connections/fake/_default/bob").await.problem(404, "connection_not_found");
    app.get("/v1/connections/fake/_default/bob/token").await.problem(404, "connection_not_found");
    assert_eq!(app.delete("/v1/subjects/_default/alice").await.status, 204);
    app.delete("/v1/subjects/_default/alice").await.problem(404, "not_found");
    assert_eq!(subjects(&app.get("/v1/connections").await), ["alice", "carol"]);
}

#[tokio::test]
async fn revoking_tells_the_provider() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 3600).await;
    assert_eq!(app.delete(&format!("{ALICE}?revoke=true")).await.status, 204);
    assert!(!app.provider.revocations().is_empty());
}

fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
