//! Refresh tokens, where they are presented.

use std::time::Duration;

use serde_json::json;

use super::{FILES, IssuerApp, SECRET, resource};
use crate::operations::Log;

async fn start() -> (IssuerApp, String) {
    let app = IssuerApp::with(|told| told.resources.push(resource("https://other.example", "read"))).await;
    let reply = app.redeem(&app.allow("native", "read write").await).await.json();
    (app, reply["refresh_token"].as_str().unwrap().to_owned())
}

fn successor(answer: &crate::app::Answered) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["refresh_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_lost_reply_is_recovered_days_later() {
    let (app, first) = start().await;
    let second = successor(&app.refresh(&first).await);
    assert_ne!(first, second);
    app.app.clock.advance(Duration::from_hours(4 * 24));
    assert_eq!(successor(&app.refresh(&first).await), second);
}

#[tokio::test]
async fn fifty_parallel_refreshes_have_one_successor() {
    let (app, first) = start().await;
    let answers = futures_util::future::join_all((0..50).map(|_| app.refresh(&first))).await;
    let second = successor(&answers[0]);
    assert!(answers.iter().all(|answer| successor(answer) == second));
}

#[tokio::test]
async fn the_predecessor_counts_for_half_a_minute_after_and_then_ends_the_family() {
    let (app, first) = start().await;
    let second = successor(&app.refresh(&first).await);
    let third = successor(&app.refresh(&second).await);
    app.app.clock.advance(Duration::from_secs(29));
    assert_eq!(successor(&app.refresh(&first).await), second);
    app.app.clock.advance(Duration::from_secs(1));
    let access_token = app.refresh(&second).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(app.introspected(&access_token).await["active"], true);
    app.refresh(&first).await.refused(400, "invalid_grant");
    app.refresh(&third).await.refused(400, "invalid_grant");
    assert_eq!(app.introspected(&access_token).await, json!({"active": false}));
}

#[tokio::test]
async fn a_replay_is_seen_in_the_log() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (app, first) = start().await;
    let second = successor(&app.refresh(&first).await);
    let _ = successor(&app.refresh(&second).await);
    app.app.clock.advance(Duration::from_secs(31));
    assert!(!log.text().contains("grant_revoked"));
    app.refresh(&first).await.refused(400, "invalid_grant");
    let text = log.text();
    let events: Vec<_> = text.lines().filter(|line| line.contains("grant_revoked")).collect();
    assert_eq!(events.len(), 1, "{text}");
    for part in ["WARN", "audit", "client=native", "reason=\"refresh_token_replayed\""] {
        assert!(events[0].contains(part), "{part}: {}", events[0]);
    }
}

#[tokio::test]
async fn a_request_narrows_for_its_access_token_only_and_never_widens() {
    let (app, first) = start().await;
    let ask = async |token: &str, name: &str, value: &str| {
        let form = [("grant_type", "refresh_token"), ("client_id", "native"), ("refresh_token", token), (name, value)];
        app.post("/token", None, &form).await
    };
    let narrow = ask(&first, "scope", "read").await;
    let second = successor(&narrow);
    assert_eq!(narrow.json()["scope"], "read");
    assert_eq!(app.introspected(narrow.json()["access_token"].as_str().unwrap()).await["scope"], "read");
    let third = app.refresh(&second).await;
    assert_eq!(third.json()["scope"], "read write", "the grant is as wide as it was");
    let third = successor(&third);
    ask(&third, "scope", "read admin").await.refused(400, "invalid_scope");
    ask(&third, "resource", "https://other.example").await.refused(400, "invalid_target");
    assert_eq!(ask(&third, "resource", FILES).await.status, 200);
}

#[tokio::test]
async fn another_client_gets_nothing_for_it_and_ends_nothing() {
    let (app, first) = start().await;
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*first)];
    app.post("/token", Some(("web", SECRET)), &form).await.refused(400, "invalid_grant");
    let forged = format!("{}{}", &first[..first.len() - 1], if first.ends_with('A') { "B" } else { "A" });
    app.refresh(&forged).await.refused(400, "invalid_grant");
    assert_eq!(app.refresh(&first).await.status, 200);
}

#[tokio::test]
async fn it_dies_when_nobody_presents_it() {
    let (app, first) = start().await;
    app.app.clock.advance(Duration::from_hours(29 * 24));
    let second = successor(&app.refresh(&first).await);
    app.app.clock.advance(Duration::from_hours(29 * 24));
    let third = successor(&app.refresh(&second).await);
    app.app.clock.advance(Duration::from_hours(30 * 24));
    app.refresh(&third).await.refused(400, "invalid_grant");
}
