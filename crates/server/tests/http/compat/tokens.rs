//! How the tokens stand, and how they go.

use std::time::Duration;

use serde_json::{Value, json};
use tokenkeep_server::Compat;

use super::{call, start, store};
use crate::app::TestApp;

async fn stats(app: &TestApp) -> Value {
    let answer = call(app, "GET", "/tokens/stats").await;
    assert_eq!(answer.status, 200);
    let said = answer.json();
    assert_eq!(said["success"], true);
    assert_eq!(said.as_object().unwrap().len(), 2, "{said}");
    said["stats"].clone()
}

fn counts(valid: u64, soon: u64, expired: u64) -> Value {
    json!({
        "total_cached": valid + soon + expired, "valid_tokens": valid, "expired_tokens": expired,
        "expiring_soon": soon,
    })
}

async fn is_valid(app: &TestApp, company: u64) -> bool {
    let answer = call(app, "GET", &format!("/tokens/{company}/status")).await;
    let valid = answer.json()["has_valid_token"].as_bool().unwrap();
    let expected = json!({"success": true, "company_id": company, "has_valid_token": valid});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    valid
}

#[tokio::test]
async fn the_counts_are_disjoint_and_follow_the_clock() {
    let app = start(Compat::default()).await;
    assert_eq!(
        call(&app, "GET", "/tokens/stats").await.text(),
        "{\"success\":true,\"stats\":{\"total_cached\":0,\"valid_tokens\":0,\"expired_tokens\":0,\"expiring_soon\":0}}",
    );
    store(&app, "1").await;
    app.clock.advance(Duration::from_mins(30));
    store(&app, "2").await;
    assert_eq!(stats(&app).await, counts(2, 0, 0));
    app.clock.advance(Duration::from_secs(20 * 60 - 1));
    assert_eq!(stats(&app).await, counts(2, 0, 0));
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(stats(&app).await, counts(1, 1, 0), "one has ten minutes left");
    app.clock.advance(Duration::from_mins(10));
    assert_eq!(stats(&app).await, counts(1, 0, 1));
    app.clock.advance(Duration::from_mins(25));
    assert_eq!(stats(&app).await, counts(0, 1, 1));
    app.clock.advance(Duration::from_mins(5));
    assert_eq!(stats(&app).await, counts(0, 0, 2));
    assert_eq!(app.stakes.logins().len(), 2, "looking never logs in");

    // Neither other providers nor other subjects are companies.
    app.hold("alice", 3600).await;
    assert_eq!(app.put("/v1/connections/bluestakes/1/alice", json!({"access_token": "x"})).await.status, 201);
    assert_eq!(stats(&app).await, counts(0, 0, 2));
}

#[tokio::test]
async fn a_token_is_valid_until_its_refresh_is_due() {
    let app = start(Compat::default()).await;
    assert!(!is_valid(&app, 123).await, "nobody knows this company");
    store(&app, "123").await;
    assert!(is_valid(&app, 123).await);
    app.clock.advance(Duration::from_secs(55 * 60 - 1));
    assert!(is_valid(&app, 123).await);
    app.clock.advance(Duration::from_secs(1));
    assert!(!is_valid(&app, 123).await, "five minutes before its end");
    app.clock.advance(Duration::from_hours(1));
    assert!(!is_valid(&app, 123).await);
    assert_eq!(app.stakes.logins().len(), 1, "looking never logs in");
}

#[tokio::test]
async fn clearing_drops_the_token_and_keeps_the_credentials() {
    let app = start(Compat::default()).await;
    store(&app, "123").await;
    let answer = call(&app, "DELETE", "/tokens/123").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "{\"success\":true,\"message\":\"Token cleared for company 123\",\"company_id\":123}");
    assert!(!is_valid(&app, 123).await);
    assert_eq!(stats(&app).await, counts(0, 0, 0));
    assert_eq!(app.stakes.logins().len(), 1);
    assert_eq!(call(&app, "DELETE", "/tokens/123").await.status, 200, "the company is there");

    let token = app.get("/v1/connections/bluestakes/123/_default/token").await;
    assert_eq!((token.status.as_u16(), token.json()["access_token"].as_str()), (200, Some("stakes-ann-2")));
    assert!(is_valid(&app, 123).await);

    let problem = call(&app, "DELETE", "/tokens/124").await.problem(404, "connection_not_found");
    assert_eq!(problem["detail"], "No token found for company 124");
}

#[tokio::test]
async fn cleaning_up_drops_what_has_been_dead_for_over_five_minutes() {
    let app = start(Compat::default()).await;
    store(&app, "1").await;
    // A token without anything that could bring the next one.
    let alone = json!({"access_token": "t", "expires_in": 3600});
    assert_eq!(app.put("/v1/connections/bluestakes/2/_default", alone).await.status, 201);
    app.clock.advance(Duration::from_mins(30));
    store(&app, "3").await;

    app.clock.advance(Duration::from_secs(35 * 60 - 1));
    let cleaned =
        |n: u64| json!({"success": true, "message": format!("Cleaned up {n} expired tokens"), "tokens_cleaned": n});
    assert_eq!(call(&app, "POST", "/tokens/cleanup").await.json(), cleaned(0), "not dead for long enough");
    assert_eq!(stats(&app).await, counts(1, 0, 2));
    app.clock.advance(Duration::from_secs(1));
    let answer = call(&app, "POST", "/tokens/cleanup").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, cleaned(2)));
    assert_eq!(answer.text(), "{\"success\":true,\"message\":\"Cleaned up 2 expired tokens\",\"tokens_cleaned\":2}");
    assert_eq!(stats(&app).await, counts(1, 0, 0));
    assert_eq!(call(&app, "POST", "/tokens/cleanup").await.json(), cleaned(0));

    assert_eq!(app.get("/v1/connections/bluestakes/1/_default").await.json()["has_refresh_token"], true);
    app.get("/v1/connections/bluestakes/2/_default").await.problem(404, "connection_not_found");
    assert_eq!(app.stakes.logins().len(), 2, "cleaning up never logs in");
}
