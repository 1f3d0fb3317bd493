//! What goes wrong: at the provider, in the store, with the key.

use serde_json::{Value, json};
use tokenkeep_core::{
    Role,
    ports::{Expect, RecordKey},
};
use tokenkeep_server::Compat;
use tokenkeep_testkit::LoginManner;

use super::{STORE, TEST, ann, call, call_as, outcome, post_json, post_json_as, start, store};
use crate::app::{Answered, TestApp};

/// The sentence at `member` of the data; it may be any that repeats no secret.
fn sentence(answer: &Answered, member: &str) -> Value {
    let said = answer.json()["data"][member].clone();
    assert!(said.as_str().is_some_and(|text| text.len() > 10), "{member}: {said}");
    said
}

#[tokio::test]
async fn a_wrong_password_is_the_callers_and_changes_nothing() {
    let app = start(Compat::default()).await;
    store(&app, "123").await;
    let before = app.get("/v1/connections/bluestakes/123/_default").await.json();
    let answer = post_json(&app, STORE, json!({"username": "ann", "password": "wrong"})).await;
    let said = json!({"credentials_tested": true, "test_error": sentence(&answer, "test_error")});
    let message = "BlueStakes credentials are invalid - please check username and password";
    assert_eq!((answer.status.as_u16(), answer.json()), (401, outcome(message, Some("INVALID_CREDENTIALS"), &said)));
    assert!(answer.header("www-authenticate").is_none(), "our key was right");
    assert_eq!(app.get("/v1/connections/bluestakes/123/_default").await.json(), before);
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_no_wrong_password() {
    let app = start(Compat::default()).await;
    for manner in [LoginManner::Status(500), LoginManner::Status(429), LoginManner::Garbage, LoginManner::Cut] {
        app.stakes.answer(manner);
        for (path, company) in [(STORE, 123), (TEST, 0)] {
            let answer = post_json(&app, path, ann()).await;
            let said = json!({
                "company_id": company, "credentials_tested": true, "test_error": sentence(&answer, "test_error"),
            });
            let message = "Unable to test credentials - BlueStakes API may be unavailable";
            let expected = outcome(message, Some("AUTHENTICATION_ERROR"), &said);
            assert_eq!((answer.status.as_u16(), answer.json()), (503, expected), "{manner:?}");
        }
    }
    app.get("/v1/connections/bluestakes/123/_default").await.problem(404, "connection_not_found");
}

#[tokio::test]
async fn a_store_that_does_not_answer_costs_no_login() {
    let app = start(Compat::default()).await;
    app.break_store(true);
    let answer = post_json(&app, STORE, ann()).await;
    let said = json!({"storage_error": "the store does not answer at present"});
    let expected = outcome("Failed to store credentials in database", Some("STORAGE_ERROR"), &said);
    assert_eq!((answer.status.as_u16(), answer.json()), (500, expected));
    assert!(app.stakes.logins().is_empty());
    for (method, path) in [
        ("GET", "/tokens/stats"),
        ("GET", "/tokens/123/status"),
        ("POST", "/tokens/cleanup"),
        ("DELETE", "/tokens/123"),
    ] {
        call(&app, method, path).await.problem(503, "store_unavailable");
    }
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_known_after_the_login() {
    let app = start(Compat::default()).await;
    app.break_writes(true);
    let answer = post_json(&app, STORE, ann()).await;
    let said = json!({
        "credentials_tested": true, "credentials_valid": true, "storage_error": sentence(&answer, "storage_error"),
    });
    let expected = outcome("Failed to store credentials in database", Some("STORAGE_ERROR"), &said);
    assert_eq!((answer.status.as_u16(), answer.json()), (500, expected));
    app.break_writes(false);
    store(&app, "123").await;
}

#[tokio::test]
async fn a_record_that_does_not_open_is_said_and_left_alone() {
    let app = start(Compat::default()).await;
    store(&app, "123").await;
    let key = spoil(&app).await;
    let answer = post_json(&app, STORE, ann()).await;
    let said = json!({"storage_error": sentence(&answer, "storage_error")});
    let message = "Failed to encrypt password - server configuration issue";
    assert_eq!((answer.status.as_u16(), answer.json()), (500, outcome(message, Some("ENCRYPTION_ERROR"), &said)));
    assert_eq!(app.store.get(&key).await.unwrap().unwrap().sealed, b"noise".to_vec());
    assert_eq!(call(&app, "GET", "/tokens/stats").await.json()["stats"]["total_cached"], 0);
}

/// Puts noise where company 123's record is.
async fn spoil(app: &TestApp) -> RecordKey {
    use tokenkeep_core::{
        Connection,
        ports::{Cursor, Filter, Query, Scope},
    };
    use tokenkeep_engine::records::Aggregate;
    let query =
        Query { scope: Scope::Every, kind: Connection::KIND, filter: Filter::All, limit: 10, cursor: None::<Cursor> };
    let mut record = app.store.list(&query).await.unwrap().records.remove(0);
    record.sealed = b"noise".to_vec();
    let version = record.version.clone();
    app.store.put(&record, Expect::Version(&version)).await.unwrap();
    record.key
}

#[tokio::test]
async fn keys_are_this_services_keys() {
    let app = start(Compat::default()).await;
    let routes = [
        ("GET", "/tokens/stats"),
        ("POST", "/tokens/cleanup"),
        ("GET", "/tokens/123/status"),
        ("DELETE", "/tokens/123"),
        ("POST", STORE),
        ("POST", TEST),
        ("POST", "/tickets/store-credentials/123"),
    ];
    for (method, path) in routes {
        call_as(&app, "tk_unknown", method, path).await.problem(401, "invalid_api_key");
        let bare = http::Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
        app.send(bare).await.problem(401, "invalid_api_key");
    }
    // As a bearer, too.
    assert_eq!(app.get("/tokens/stats").await.status, 200);

    let reader = app.key(Role::Reader, &[]).await;
    for (method, path) in routes {
        let answer = call_as(&app, &reader, method, path).await;
        if method == "GET" {
            assert_eq!(answer.status, 200, "{path}");
        } else {
            answer.problem(403, "forbidden");
        }
    }
    let application = app.key(Role::Application, &[]).await;
    assert_eq!(post_json_as(&app, &application, STORE, ann()).await.status, 200);
    assert_eq!(post_json_as(&app, &application, TEST, ann()).await.status, 200);
    for (method, path) in &routes[..4] {
        assert_eq!(call_as(&app, &application, method, path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_key_for_one_company_reaches_no_other() {
    let app = start(Compat::default()).await;
    store(&app, "123").await;
    store(&app, "124").await;
    let mine = app.key(Role::Application, &["123"]).await;
    let stats = call_as(&app, &mine, "GET", "/tokens/stats").await.json();
    assert_eq!(stats["stats"], json!({"total_cached": 1, "valid_tokens": 1, "expired_tokens": 0, "expiring_soon": 0}));
    for (method, path) in
        [("GET", "/tokens/124/status"), ("DELETE", "/tokens/124"), ("POST", "/tokens/credentials/124")]
    {
        call_as(&app, &mine, method, path).await.problem(403, "forbidden");
    }
    post_json_as(&app, &mine, "/tokens/credentials/124", ann()).await.problem(403, "forbidden");
    assert_eq!(post_json_as(&app, &mine, STORE, ann()).await.status, 200);
    assert_eq!(post_json_as(&app, &mine, TEST, ann()).await.status, 200, "whoever may store may try");

    app.clock.advance(std::time::Duration::from_hours(2));
    assert_eq!(call_as(&app, &mine, "POST", "/tokens/cleanup").await.json()["tokens_cleaned"], 1);
    let stats = call(&app, "GET", "/tokens/stats").await.json();
    assert_eq!(stats["stats"]["expired_tokens"], 1, "the other's is there");
}

#[tokio::test]
async fn what_is_no_company_is_no_company() {
    let app = start(Compat::default()).await;
    for path in ["/tokens/%2e%2e/status", "/tokens/%00/status", "/tokens//status"] {
        call(&app, "GET", path).await.problem(400, "invalid_identifier");
    }
    call(&app, "DELETE", "/tokens/_system").await.problem(400, "invalid_identifier");
    call(&app, "GET", STORE).await.problem(405, "method_not_allowed");
    let text = super::request(&app, "POST", STORE).header("content-type", "text/plain");
    app.send(text.body("username=ann".into()).unwrap()).await.problem(415, "unsupported_media_type");
    let long = json!({"username": "a".repeat(70_000), "password": "b"});
    post_json(&app, STORE, long).await.problem(413, "payload_too_large");
}
