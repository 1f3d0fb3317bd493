//! An application answers for its user, and what the user allowed is seen and ended.

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use tokenkeep_core::Role;
use tokenkeep_engine::issuer::Authorization;
use tokenkeep_oauth::Secret;
use url::Url;

use crate::{
    app::{Answered, TestApp, json_request},
    clients::{RESOURCE, issuing},
};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1/cb";

/// With the public client `app`.
async fn with_app() -> TestApp {
    let app = issuing().await;
    let client = json!({
        "client_id": "app", "client_name": "An app", "token_endpoint_auth_method": "none",
        "redirect_uris": [REDIRECT], "grant_types": ["authorization_code", "refresh_token"],
    });
    assert_eq!(app.post("/v1/clients", client).await.status, 201);
    app
}

/// The client sends its user; answers the interaction's id.
async fn ask(app: &TestApp) -> String {
    let raw = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", "app"),
            ("redirect_uri", REDIRECT),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("state", "xyz"),
            ("scope", "mcp files"),
            ("resource", RESOURCE),
        ])
        .finish();
    match app.engine.issuer().unwrap().authorize(raw.as_bytes()).await.unwrap() {
        Authorization::Elsewhere(url) => {
            assert_eq!(url.host_str(), Some("app.example.com"));
            value(&url, "interaction")
        }
        other => panic!("{other:?}"),
    }
}

fn value(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}: {url}")).1.into_owned()
}

async fn token(app: &TestApp, fields: &[(&str, &str)]) -> Answered {
    let body =
        form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).append_pair("client_id", "app").finish();
    let request = Request::post("/token").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    app.send(request.body(Body::from(body)).unwrap()).await
}

/// Somebody signs in and allows `scope`; answers the client's tokens.
async fn grant(app: &TestApp, subject: &str) -> Value {
    let id = ask(app).await;
    let said = json!({"subject": subject, "name": "Alice", "email": "alice@example.com", "scope": "mcp"});
    let answer = app.post(&format!("/v1/interactions/{id}/accept"), said).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let back = Url::parse(answer.json()["redirect_to"].as_str().unwrap()).unwrap();
    assert!(back.as_str().starts_with(REDIRECT) && value(&back, "state") == "xyz", "{back}");
    assert_eq!(value(&back, "iss"), "http://localhost:7420");
    let code = value(&back, "code");
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let tokens = token(app, &fields).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    tokens.json()
}

async fn counts(app: &TestApp, tokens: &Value) -> bool {
    let token = Secret::from(tokens["access_token"].as_str().unwrap());
    app.engine.issuer().unwrap().verify(&token).await.is_ok()
}

#[tokio::test]
async fn an_application_answers_for_its_user() {
    let app = with_app().await;
    let id = ask(&app).await;
    let path = format!("/v1/interactions/{id}");
    let shown = app.get(&path).await.json();
    assert_eq!((&shown["status"], &shown["client_name"]), (&json!("pending"), &json!("An app")));
    assert_eq!((&shown["redirect_host"], &shown["scope"]), (&json!("127.0.0.1"), &json!("files mcp")));
    assert_eq!(shown["resource_name"], "Example MCP");

    let answer = format!("{path}/accept");
    let accept = |said: Value| app.post(&answer, said);
    accept(json!({"subject": "acme|1", "scope": "admin"})).await.problem(400, "invalid_request");
    accept(json!({"subject": "acme|1", "scope": "a\"b"})).await.problem(400, "invalid_request");
    accept(json!({"subject": ".."})).await.problem(400, "invalid_identifier");
    accept(json!({"subject": "acme|1", "connection": "fake/_default/nobody"}))
        .await
        .problem(404, "connection_not_found");
    app.hold("alice", 3600).await;
    let answered = accept(json!({"subject": "acme|1", "connection": "fake/_default/alice"})).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    assert_eq!(answered.header("cache-control"), Some("no-store"));
    assert_eq!(app.get(&path).await.json()["status"], "granted");
    accept(json!({"subject": "mallory|1"})).await.problem(404, "interaction_not_found");
    let listed = app.get("/v1/grants?connection=fake%2F_default%2Falice").await.json();
    assert_eq!((&listed["items"][0]["subject"], &listed["items"][0]["status"]), (&json!("acme|1"), &json!("coded")));
}

#[tokio::test]
async fn an_application_says_no() {
    let app = with_app().await;
    let path = format!("/v1/interactions/{}", ask(&app).await);
    let answer = format!("{path}/reject");
    let reject = |said: Value| app.post(&answer, said);
    reject(json!({"error": "nonsense"})).await.problem(400, "invalid_request");
    let answered = reject(json!({"error_description": "not on Sundays"})).await;
    let back = Url::parse(answered.json()["redirect_to"].as_str().unwrap()).unwrap();
    assert_eq!(value(&back, "error"), "access_denied");
    assert_eq!(value(&back, "error_description"), "not on Sundays");
    app.post(&format!("{path}/accept"), json!({"subject": "acme|1"})).await.problem(404, "interaction_not_found");
    assert_eq!(app.get(&path).await.json()["status"], "denied");
}

#[tokio::test]
async fn only_an_application_or_an_admin_says_who_signed_in() {
    let app = with_app().await;
    let id = ask(&app).await;
    for (role, allowed) in [(Role::Operator, false), (Role::Reader, false), (Role::Application, true)] {
        let key = app.key(role, &[]).await;
        let request = Request::post(format!("/v1/interactions/{id}/accept")).header("x-api-key", key);
        let answer = app.send(json_request(request, &json!({"subject": "acme|1"}))).await;
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{role:?} {answer:?}");
    }
}

#[tokio::test]
async fn what_was_allowed_is_seen_and_ended() {
    let app = with_app().await;
    let (first, second) = (grant(&app, "acme|1").await, grant(&app, "acme|1").await);
    let other = grant(&app, "acme|2").await;
    assert!(counts(&app, &first).await && counts(&app, &second).await && counts(&app, &other).await);

    let listed = app.get("/v1/grants?subject=acme%7C1").await;
    let items = listed.json()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 2);
    for secret in ["access_token", "refresh_token"] {
        assert!(!listed.text().contains(first[secret].as_str().unwrap()), "no secrets");
    }
    assert_eq!((&items[0]["status"], &items[0]["scope"]), (&json!("active"), &json!("mcp")));
    assert_eq!((&items[0]["name"], &items[0]["refreshable"]), (&json!("Alice"), &json!(true)));
    assert_eq!(app.get("/v1/grants?client=app&limit=1000").await.json()["items"].as_array().unwrap().len(), 3);
    assert_eq!(app.get("/v1/grants?client=configured").await.json()["items"], json!([]));
    let stats = app.get("/v1/issuer/stats").await.json();
    assert_eq!((&stats["grants"], &stats["subjects"], &stats["access_tokens"]), (&json!(3), &json!(2), &json!(3)));

    // One token by its name: the grant goes on.
    let verified = app.engine.issuer().unwrap().verify(&first["access_token"].as_str().unwrap().into()).await.unwrap();
    let jti = verified.claims.jti.clone();
    let by_token = format!("/v1/grants/by-token/{jti}");
    let id = app.get(&by_token).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(app.delete(&by_token).await.status, 204);
    assert!(!counts(&app, &first).await && counts(&app, &second).await);
    app.get(&by_token).await.problem(404, "access_token_not_found");
    let refresh = |tokens: &Value| tokens["refresh_token"].as_str().unwrap().to_owned();
    let refresh_token = refresh(&first);
    let renewed = token(&app, &[("grant_type", "refresh_token"), ("refresh_token", &refresh_token)]).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");

    // The whole grant, and twice is no error.
    for _ in 0..2 {
        assert_eq!(app.delete(&format!("/v1/grants/{id}")).await.status, 204);
    }
    assert!(!counts(&app, &renewed.json()).await && counts(&app, &second).await);
    let shown = app.get(&format!("/v1/grants/{id}")).await.json();
    assert_eq!((&shown["status"], &shown["revoked_reason"]), (&json!("revoked"), &json!("asked")));
    let refresh_token = refresh(&renewed.json());
    let dead = token(&app, &[("grant_type", "refresh_token"), ("refresh_token", &refresh_token)]).await;
    assert_eq!(dead.json()["error"], "invalid_grant");

    // A person, then a client; never everybody by mistake.
    app.delete("/v1/grants").await.problem(400, "invalid_request");
    app.delete("/v1/grants?subject=x&client=app").await.problem(400, "invalid_request");
    assert_eq!(app.delete("/v1/grants?subject=acme%7C1").await.json(), json!({"revoked": 1}));
    assert!(!counts(&app, &second).await && counts(&app, &other).await);
    assert_eq!(app.delete("/v1/grants?client=app").await.json(), json!({"revoked": 1}));
    assert!(!counts(&app, &other).await);
    assert_eq!(app.delete("/v1/clients/app").await.json(), json!({"grants_revoked": 0}));
}

#[tokio::test]
async fn a_client_takes_its_grants_with_it() {
    let app = with_app().await;
    let tokens = grant(&app, "acme|1").await;
    assert_eq!(app.delete("/v1/clients/app").await.json(), json!({"grants_revoked": 1}));
    assert!(!counts(&app, &tokens).await);
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    let dead = token(&app, &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await;
    assert_eq!(dead.status, 401, "{dead:?}");
}
