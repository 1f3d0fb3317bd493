//! Authorization codes, where they are redeemed.

use std::time::Duration;

use serde_json::json;

use super::{CALLBACK, FILES, ISSUER, IssuerApp, SECRET, resource};

#[tokio::test]
async fn a_code_brings_tokens_for_what_was_allowed() {
    let app = IssuerApp::start().await;
    let answer = app.redeem(&app.allow("native", "read").await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.is_for_nobody_else();
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let reply = answer.json();
    assert_eq!(
        (&reply["token_type"], &reply["expires_in"], &reply["scope"]),
        (&json!("Bearer"), &json!(3600), &json!("read"))
    );
    let told = app.introspected(reply["access_token"].as_str().unwrap()).await;
    assert_eq!(told["active"], true);
    assert_eq!(
        (&told["sub"], &told["aud"], &told["client_id"]),
        (&json!("github|42"), &json!(FILES), &json!("native"))
    );
    assert_eq!((&told["iss"], &told["scope"]), (&json!(ISSUER), &json!("read")));
}

#[tokio::test]
async fn a_client_without_the_grant_gets_no_refresh_token() {
    let app = IssuerApp::start().await;
    let (code, verifier) = app.allow("once", "read").await;
    let form =
        [("grant_type", "authorization_code"), ("client_id", "once"), ("code", &*code), ("code_verifier", &*verifier)];
    let answer = app.post("/token", None, &form).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json().get("refresh_token"), None);
}

#[tokio::test]
async fn a_code_that_is_redeemed_twice_takes_back_what_it_brought() {
    let app = IssuerApp::start().await;
    let code = app.allow("native", "read").await;
    let reply = app.redeem(&code).await.json();
    let access_token = reply["access_token"].as_str().unwrap();
    assert_eq!(app.introspected(access_token).await["active"], true);
    app.redeem(&code).await.refused(400, "invalid_grant");
    assert_eq!(app.introspected(access_token).await, json!({"active": false}));
    app.verified("", access_token).await.refused(401, "invalid_token");
    app.refresh(reply["refresh_token"].as_str().unwrap()).await.refused(400, "invalid_grant");
}

#[tokio::test]
async fn of_fifty_parallel_redeems_one_succeeds() {
    let app = IssuerApp::start().await;
    for _ in 0..4 {
        let code = app.allow("native", "read").await;
        let all = (0..50).map(|_| app.redeem(&code));
        let answers = futures_util::future::join_all(all).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    }
}

#[tokio::test]
async fn a_failed_check_does_not_consume_the_code() {
    let app = IssuerApp::with(|told| told.resources.push(resource("https://other.example", "read"))).await;
    let code = app.allow("native", "read").await;
    let ask = async |change: &[(&str, Option<&str>)], basic: Option<(&str, &str)>| {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", "native"),
            ("code", &*code.0),
            ("code_verifier", &*code.1),
            ("redirect_uri", CALLBACK),
        ];
        for (name, value) in change {
            form.retain(|(other, _)| other != name);
            form.extend(value.map(|value| (*name, value)));
        }
        app.post("/token", basic, &form).await
    };
    let flipped = format!("{}{}", &code.0[..code.0.len() - 1], if code.0.ends_with('A') { "B" } else { "A" });
    let no_client = [("client_id", None)];
    ask(&[("code", Some(&flipped))], None).await.refused(400, "invalid_grant");
    ask(&[("redirect_uri", Some("https://web.example/callback2"))], None).await.refused(400, "invalid_grant");
    ask(&[("code_verifier", Some(&"x".repeat(43)))], None).await.refused(400, "invalid_grant");
    ask(&[("code_verifier", None)], None).await.refused(400, "invalid_grant");
    ask(&[("resource", Some("https://other.example"))], None).await.refused(400, "invalid_target");
    ask(&[("resource", Some("https://unknown.example"))], None).await.refused(400, "invalid_target");
    ask(&[("resource", Some("https://files.example/mcp#f"))], None).await.refused(400, "invalid_target");
    ask(&no_client, Some(("web", "wrong"))).await.refused(401, "invalid_client");
    ask(&no_client, Some(("web", SECRET))).await.refused(400, "invalid_grant");
    let answer = ask(&[("resource", Some(FILES))], None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_code_is_dead_after_a_minute() {
    let app = IssuerApp::start().await;
    let code = app.allow("native", "read").await;
    app.app.clock.advance(Duration::from_secs(60));
    app.redeem(&code).await.refused(400, "invalid_grant");
}

#[tokio::test]
async fn an_outage_is_503_and_spends_nothing() {
    let app = IssuerApp::start().await;
    let code = app.allow("native", "read").await;
    app.app.break_store(true);
    let answer = app.redeem(&code).await;
    answer.refused(503, "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    app.app.break_store(false);
    assert_eq!(app.redeem(&code).await.status, 200);
}
