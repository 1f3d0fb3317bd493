//! The way to the provider and back.

use std::time::Duration;

use serde_json::json;
use tokenkeep_engine::Error;
use tokenkeep_testkit::Fault;

use crate::{
    common::{
        browser::{at_provider, params},
        issuer::{VERIFIER, refresh},
    },
    support::{Browser, Stage, only_grant, page},
};

#[tokio::test]
async fn a_user_signs_in_and_the_client_gets_tokens_that_last() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    let sent = params(&url);
    assert_eq!((sent["scope"].as_str(), sent["code_challenge_method"].as_str()), ("openid email profile", "S256"));
    assert_eq!(sent["redirect_uri"], "http://localhost:7420/oauth/callback");
    assert!(sent["state"].starts_with(&format!("i{id}.")) && sent["nonce"].len() == 43);
    stage.id_token(&url, &json!({"name": "Alice", "email": "alice@example.com", "email_verified": true}));
    let answer = browser.come_back(&stage, &at_provider(&url).await).await.unwrap();

    let connection = "fake/_default/fake|fake-user";
    let (subject, name, email, bond) = only_grant(&stage).await;
    assert_eq!((subject.as_str(), name.as_deref()), ("fake|fake-user", Some("Alice")));
    assert_eq!((email.as_deref(), bond), (Some("alice@example.com"), Some(connection.parse().unwrap())));
    assert!(stage.has_connection(connection).await);
    let tokens = stage.token(&answer.code()).await;
    let verified = stage.issuer().verify(&tokens.access_token).await.unwrap();
    assert_eq!(verified.claims.subject, "fake|fake-user");
    assert!(stage.ask_token(refresh(&tokens.refresh_token.unwrap())).await.is_ok());
    assert_eq!(stage.world.provider.calls(), 1);

    // They sign in again: the same person, the same connection, another grant.
    let again = stage.sign_in("fake", json!({})).await.unwrap();
    stage.token(&again.code()).await;
    assert_eq!(stage.grants().await, 2);
}

#[tokio::test]
async fn a_connects_callback_is_not_ours() {
    let stage = Stage::new().await;
    let id = stage.asked().await;
    for (query, is_ours) in [
        (format!("code=x&state=i{id}.{VERIFIER}"), true),
        (format!("code=x&state={id}.{VERIFIER}"), false),
        (format!("code=x&state=i{id}"), false),
        ("code=x&state=i".to_owned(), false),
        ("code=x".to_owned(), false),
    ] {
        assert_eq!(stage.issuer().is_ours(query.as_bytes()), is_ours, "{query}");
    }
}

/// Mallory says yes in her browser, and sends Bob the *provider's* URL: her client must not get a code for his account.
#[tokio::test]
async fn a_captured_url_is_worth_nothing_in_another_browser() {
    let stage = Stage::new().await;
    let (id, mut mallorys, mut bobs) = (stage.asked().await, Browser::default(), Browser::default());
    let url = mallorys.sent_upstream(&stage, &id, "fake").await;
    stage.id_token(&url, &json!({}));
    let query = at_provider(&url).await;
    assert!(matches!(page(bobs.come_back(&stage, &query).await.unwrap_err()), Error::Forbidden(_)), "no cookie");
    bobs.look(&stage, &stage.asked().await).await.unwrap();
    assert!(matches!(page(bobs.come_back(&stage, &query).await.unwrap_err()), Error::Forbidden(_)), "his own");
    assert_eq!((stage.world.provider.calls(), stage.grants().await), (0, 0));
    assert!(mallorys.come_back(&stage, &query).await.is_ok(), "it harmed nobody");
}

#[tokio::test]
async fn a_callback_is_good_once() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.id_token(&url, &json!({}));
    let query = at_provider(&url).await;
    let gate = stage.world.provider.hold_next();
    let callbacks: Vec<_> = (0..16)
        .map(|_| {
            let (issuer, cookie, query) = (stage.issuer().clone(), browser.cookie.clone(), query.clone());
            tokio::spawn(async move { issuer.came_back(query.as_bytes(), cookie).await })
        })
        .collect();
    gate.arrived().await;
    gate.release();
    let mut came = 0;
    for callback in callbacks {
        match callback.await.unwrap() {
            Ok(_) => came += 1,
            Err(refused) => assert!(matches!(page(refused), Error::NotFound { what: "interaction", .. })),
        }
    }
    assert_eq!((came, stage.world.provider.calls(), stage.grants().await), (1, 1, 1));
    assert!(matches!(page(browser.come_back(&stage, &query).await.unwrap_err()), Error::NotFound { .. }));
}

#[tokio::test]
async fn a_state_is_not_guessed_and_an_older_one_is_dead() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let first = at_provider(&browser.sent_upstream(&stage, &id, "fake").await).await;
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.id_token(&url, &json!({}));
    for wrong in [first, format!("code=x&state=i{id}.{VERIFIER}")] {
        assert!(matches!(page(browser.come_back(&stage, &wrong).await.unwrap_err()), Error::NotFound { .. }));
    }
    assert_eq!(stage.world.provider.calls(), 0);
    assert!(browser.come_back(&stage, &at_provider(&url).await).await.is_ok());
}

#[tokio::test]
async fn whoever_takes_too_long_begins_anew() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.world.clock.advance(Duration::from_mins(10));
    let late = browser.come_back(&stage, &at_provider(&url).await).await;
    assert!(matches!(page(late.unwrap_err()), Error::NotFound { .. }));
    assert_eq!(stage.world.provider.calls(), 0);
}

#[tokio::test]
async fn what_goes_wrong_there_the_client_is_told_in_our_words() {
    let stage = Stage::new().await;
    stage.world.provider.configure(|config| config.user_denies = true);
    assert_eq!(stage.sign_in("fake", json!({})).await.unwrap().error(), "access_denied");
    stage.world.provider.configure(|config| config.user_denies = false);

    for (said, told) in
        [("server_error", "server_error"), ("%3Cscript%3E", "unrecognised"), ("odd", "provider_rejected")]
    {
        let mut browser = Browser::default();
        let url = browser.sent_upstream(&stage, &stage.asked().await, "fake").await;
        let (state, iss) = (&params(&url)["state"], stage.world.provider.issuer());
        let query = format!("error={said}&error_description=CANARY&state={state}&iss={iss}");
        let answer = browser.come_back(&stage, &query).await.unwrap();
        assert_eq!(answer.error(), "server_error");
        assert!(answer.params["error_description"].ends_with(told) && !answer.url.as_str().contains("CANARY"));
    }

    // Another authorization server's callback (RFC 9207).
    let mut browser = Browser::default();
    let url = browser.sent_upstream(&stage, &stage.asked().await, "fake").await;
    let query = format!("code=x&state={}&iss=https%3A%2F%2Fevil.example", params(&url)["state"]);
    assert_eq!(browser.come_back(&stage, &query).await.unwrap().error(), "server_error");
    assert_eq!(stage.world.provider.calls(), 0);

    for (fault, error) in
        [(Fault::cut_after(), "temporarily_unavailable"), (Fault::error(400, "invalid_grant"), "server_error")]
    {
        stage.world.provider.fault(fault);
        assert_eq!(stage.sign_in("fake", json!({})).await.unwrap().error(), error);
    }
    assert_eq!(stage.grants().await, 0);
    assert!(!stage.has_connection("fake/_default/fake|fake-user").await);
}

#[tokio::test]
async fn a_browser_that_leaves_early_loses_nothing() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.id_token(&url, &json!({}));
    let query = at_provider(&url).await;
    let gate = stage.world.provider.hold_next();
    let (issuer, cookie) = (stage.issuer().clone(), browser.cookie.clone());
    let waiting = tokio::spawn(async move { issuer.came_back(query.as_bytes(), cookie).await });
    gate.arrived().await;
    waiting.abort();
    gate.release();
    while stage.grants().await == 0 {
        tokio::task::yield_now().await;
    }
    assert!(stage.has_connection("fake/_default/fake|fake-user").await);
}
