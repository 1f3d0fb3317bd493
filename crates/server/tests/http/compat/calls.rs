//! What that service's applications did with its tokens: calls of the API, over many tokens' lives.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::json;
use tokenkeep_core::Role;
use tokenkeep_server::Compat;

use super::{call_as, start};
use crate::app::TestApp;

/// A working day of five companies.
const CALLS: usize = 1000;
const DAY: Duration = Duration::from_hours(8);

/// Stores an account and a password for each of five companies.
async fn companies(app: &TestApp) -> Vec<String> {
    let mut companies = Vec::new();
    for company in 1..=5 {
        let username = format!("user-{company}");
        app.stakes.account(&username, "secret");
        let body = json!({"username": username, "password": "secret"});
        let answer = super::post_json(app, &format!("/tokens/credentials/{company}"), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        companies.push(company.to_string());
    }
    companies
}

/// One call of the API for `company`, which must succeed in its user's name.
async fn tickets(app: &TestApp, key: &str, company: &str) {
    let path = format!("/proxy/bluestakes/{company}/_default/api/tickets/7?open=true");
    let answer = app.send(Request::get(path).header("X-API-Key", key).body(Body::empty()).unwrap()).await;
    let expected = json!({"username": format!("user-{company}"), "path": "/api/tickets/7"});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
}

#[tokio::test]
async fn a_day_of_calls_costs_a_login_per_company_and_life_of_a_token() {
    let app = start(Compat::default()).await;
    let companies = companies(&app).await;
    let key = app.key(Role::Application, &[]).await;
    for call in 0..CALLS {
        tickets(&app, &key, &companies[call % companies.len()]).await;
        app.clock.advance(DAY / u32::try_from(CALLS).unwrap());
    }
    let logins = app.stakes.logins();
    for company in &companies {
        let of_this = logins.iter().filter(|name| **name == format!("user-{company}")).count();
        // A token of an hour is replaced five minutes before its end: eight hours take nine of them.
        assert!((8..=9).contains(&of_this), "company {company}: {of_this} logins");
    }
    assert!(logins.len() * 20 <= CALLS, "{} of {CALLS} calls were no hit: over 5 %", logins.len());
    assert_eq!(app.stakes.calls(), CALLS, "no call was made twice");
}

#[tokio::test]
async fn a_token_that_the_api_refuses_is_replaced_once_and_the_call_made_again() {
    let app = start(Compat::default()).await;
    let companies = companies(&app).await;
    let key = app.key(Role::Application, &[]).await;
    app.stakes.end_all_tokens();
    for _ in 0..3 {
        for company in &companies {
            tickets(&app, &key, company).await;
        }
    }
    assert_eq!(app.stakes.logins().len(), 10, "one to store, one to replace");
    assert_eq!(app.stakes.calls(), 20, "15 calls, of which the first of each company was made twice");
    let status = call_as(&app, &key, "GET", "/tokens/1/status").await;
    assert_eq!(status.json(), json!({"success": true, "company_id": 1, "has_valid_token": true}));
}
