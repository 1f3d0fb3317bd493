//! An outage is never read as absence.

use std::time::Duration;

use serde_json::json;

use crate::app::TestApp;

const ALICE: &str = "/v1/connections/fake/_default/alice";

#[tokio::test]
async fn without_a_store_cached_tokens_are_served_and_nothing_else_is_claimed() {
    let app = TestApp::start().await;
    app.hold("alice", 3600).await;
    assert_eq!(app.get(&format!("{ALICE}/token")).await.status, 200);
    app.break_store(true);
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(app.get(&format!("{ALICE}/token")).await.status, 200, "cached, and alive");
    for answer in [
        app.get("/v1/connections/fake/_default/bob/token").await,
        app.get(ALICE).await,
        app.put(ALICE, json!({"access_token": "x"})).await,
        app.get("/v1/connections").await,
        app.delete(ALICE).await,
    ] {
        answer.problem(503, "store_unavailable");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        assert!(!answer.text().contains("broken by the test"), "causes are for the log");
    }
    let ready = app.get("/readyz").await;
    assert_eq!(ready.status, 200, "an instance that still serves must not be taken away");
    assert_eq!(ready.json()["status"], "degraded");
    assert_eq!(ready.json()["store"], "unavailable");
    app.break_store(false);
    assert_eq!(app.get("/readyz").await.json()["status"], "ready");
}
