//! A look at the Redis behind the server.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

use serde_json::Value;
use tokenkeep_services::{REDIS_PASSWORD, Redis};

use crate::home::{Home, provider};

/// Every look that there is.
const LOOKS: [&str; 4] = ["info", "keys", "clients", "slowlog"];

fn set(home: &mut Home, variable: &str, value: &str) {
    home.env.retain(|(name, _)| name != variable);
    home.env.push((variable.to_owned(), value.to_owned()));
}

fn json(home: &Home, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["store"], arguments, &["--json"]].concat();
    serde_json::from_str(&home.run(&arguments).ok()).unwrap()
}

/// Everything that these commands print.
fn all_there_is(home: &Home) -> String {
    let mut shown = String::new();
    for look in LOOKS {
        shown += &home.run(&["store", look]).ok();
        shown += &home.run(&["store", look, "--json"]).ok();
    }
    shown
}

#[tokio::test]
async fn a_redis_is_shown_without_what_it_holds() {
    let redis = Redis::options().set("slowlog-log-slower-than", "0").start().unwrap();
    let provider = provider(tokenkeep_testkit::Config::default()).await;
    let mut home = Home::with(&provider);
    set(&mut home, "TOKEN_STORE", "redis");
    set(&mut home, "REDIS_URL", &redis.url());
    let key = home.run(&["secret", "sealing-key"]).ok();
    set(&mut home, "TOKENKEEP__SEALING__KEY", key.trim());
    let server = home.serve();
    for subject in ["canary-one", "canary-two"] {
        let tokens = r#"{"access_token": "canary-access", "refresh_token": "canary-refresh", "expires_in": 3600}"#;
        home.feed(&["put", &format!("fake/canary-tenant/{subject}")], tokens).ok();
    }
    home.run(&["delete", "fake/canary-tenant/canary-two", "--yes"]).ok();

    let keys = json(&home, &["keys"]);
    let connections = keys.iter().find(|count| count["kind"] == "connection").unwrap();
    assert_eq!((&connections["keys"], &connections["tombstones"]), (&2.into(), &1.into()));
    assert!(keys.iter().all(|count| count["redis"] == "store" && count["kind"] != "other"), "{keys:?}");
    let info = json(&home, &["info"]);
    assert_eq!(info[0]["info"]["maxmemory_policy"], "noeviction");
    assert_eq!(info[0]["server"], redis.address().as_str());
    assert!(info[0]["answers_in_ms"].as_f64().unwrap() > 0.0);
    assert!(json(&home, &["clients"]).len() > 1, "the server and this command");
    let slow = json(&home, &["slowlog", "--limit", "7"]);
    assert_eq!(slow.len(), 7);
    assert!(slow.iter().all(|call| call["command"].is_string() && call["at"].is_string()), "{slow:?}");

    let metrics = crate::home::browse("GET", &format!("http://{}/metrics", server.address), &[], "").body;
    assert!(metrics.contains("tokenkeep_redis_waits_total{outcome=\"late\"} 0"), "{metrics}");

    // With the server gone, too.
    assert!(server.end().success());
    let shown = all_there_is(&home);
    for secret in ["canary", "alice", "redis://", &format!(":{REDIS_PASSWORD}@")] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn the_redis_in_front_of_another_store_is_looked_at_as_well() {
    let redis = tokenkeep_services::running().redis.url();
    let mut home = Home::new();
    set(&mut home, "REDIS_URL", &redis);
    assert!(json(&home, &["info"]).iter().all(|server| server["redis"] == "cache"));
    assert!(home.run(&["store", "info"]).ok().starts_with("cache · 127.0.0.1:"));

    // One that is gone does not hide the other.
    set(&mut home, "TOKENKEEP__STORE__URL", "redis://:canary@127.0.0.1:1");
    set(&mut home, "TOKENKEEP__CACHE__REDIS_URL", &redis);
    let done = home.run(&["store", "info"]);
    assert_eq!(done.code, 1, "{}", done.out);
    assert!(done.out.starts_with("cache · ") && !done.err.contains("canary"), "{} {}", done.out, done.err);
    assert!(done.err.contains("error: store: ") && done.err.contains("127.0.0.1:1"), "{}", done.err);
    set(&mut home, "TOKENKEEP__CACHE__REDIS_URL", "redis://:canary@localhost:1");
    let done = home.run(&["store", "keys", "--json"]);
    assert!(done.code == 1 && done.out.is_empty(), "nobody counted: {}", done.out);
    assert!(done.err.contains("store: ") && done.err.contains("; cache: "), "{}", done.err);
}

#[test]
fn where_there_is_no_redis_it_is_said_what_there_is() {
    let home = Home::new();
    for look in LOOKS {
        let said = home.run(&["store", look]).fails(1);
        assert!(said.contains(&format!("`store {look}`")) && said.contains("sqlite:"), "{said}");
        assert!(said.contains("(the default)") && said.contains("`tokenkeep "), "{said}");
    }
    let said = home.run(&["--url", "http://127.0.0.1:1", "store", "keys"]).fails(2);
    assert!(said.contains("--url"), "{said}");
}
