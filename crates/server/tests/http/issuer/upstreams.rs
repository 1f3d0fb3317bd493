//! What people sign in with at a provider, and what becomes of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::json;
use tokenkeep_engine::issuer::{Admitted, IssuerSettings, Upstream};
use tokenkeep_server::Settings as HttpSettings;

use super::{
    CALLBACK, bearing,
    pages::{VERIFIER, answer_of, app, app_with, approve, check_page, open, request, settings},
    posted,
};
use crate::{
    app::{Answered, TestApp},
    browser::{Browser, consent},
};

/// Signs in at the provider; answers where the client is sent.
async fn sign_in(app: &TestApp) -> Answered {
    sign_in_by(app, &request()).await
}

async fn sign_in_by(app: &TestApp, request: &str) -> Answered {
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, app, request).await;
    let away = browser.post(app, &address, &approve(&page, "fake")).await;
    browser.get(app, &consent(away.header("location").unwrap()).await).await
}

/// Signs in at the provider; answers the client's tokens.
pub(super) async fn tokens(app: &TestApp) -> serde_json::Value {
    tokens_by(app, &request()).await
}

/// The same, for a request of the client's.
pub(super) async fn tokens_by(app: &TestApp, request: &str) -> serde_json::Value {
    let answer = answer_of(&sign_in_by(app, request).await);
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "web"),
        ("code", &*answer["code"]),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let tokens = app.send(posted("/token", None, &form)).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    tokens.json()
}

pub(super) async fn refresh(app: &TestApp, tokens: &serde_json::Value) -> Answered {
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("client_id", "web"), ("refresh_token", refresh_token)];
    app.send(posted("/token", None, &form)).await
}

const CONNECTION: &str = "/v1/connections/fake/_default/fake%7Cfake-user";

fn with_upstream(needed: bool) -> impl FnOnce(&mut IssuerSettings) {
    move |told| told.resources[0].needs_upstream = needed
}

#[tokio::test]
async fn a_grant_ends_with_the_connection_that_its_resource_needs() {
    for needed in [true, false] {
        let app = app_with(with_upstream(needed)).await;
        let first = tokens(&app).await;
        let second = refresh(&app, &first).await;
        assert_eq!(second.status, 200, "{second:?}");
        app.provider.revoke_subject("fake-user");
        app.post(&format!("{CONNECTION}/token/refresh"), json!({})).await.problem(424, "reauth_required");
        let third = refresh(&app, &second.json()).await;
        if !needed {
            assert_eq!(third.status, 200, "{third:?}");
            continue;
        }
        third.refused(400, "invalid_grant");
        let before = second.json()["access_token"].as_str().unwrap().to_owned();
        app.send(bearing("/verify", &before)).await.refused(401, "invalid_token");
    }
}

#[tokio::test]
async fn a_provider_that_is_down_or_forgotten_by_time_ends_nothing() {
    let app = app_with(with_upstream(true)).await;
    app.provider.configure(|provider| (provider.omit_expires_in, provider.omit_refresh_token) = (true, true));
    let mut now = tokens(&app).await;
    app.provider.faults(8, tokenkeep_testkit::Fault::server_error());
    for _ in 0..3 {
        app.clock.advance(Duration::from_hours(29 * 24));
        let next = refresh(&app, &now).await;
        assert_eq!(next.status, 200, "tokens that never expire send nobody back to the provider: {next:?}");
        now = next.json();
    }
}

#[tokio::test]
async fn whoever_no_rule_names_does_not_get_in() {
    let set = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>());
    let none = Admitted::default;
    for (admitted, gets_in) in [
        (none(), true),
        (Admitted { users: set(&["fake|fake-user"]), ..none() }, true),
        (Admitted { users: set(&[]), ..none() }, false),
        (Admitted { email_domains: set(&[]), ..none() }, false),
        (Admitted { organizations: set(&[]), ..none() }, false),
        (Admitted { users: set(&["fake-user", "fake|fake", "other|fake-user"]), ..none() }, false),
        (Admitted { email_domains: set(&["fake.example"]), ..none() }, true),
        (Admitted { email_domains: set(&["example", "e.example", "other.example"]), ..none() }, false),
    ] {
        let rules = format!("{admitted:?}");
        let app = app_with(|told| told.admitted = admitted).await;
        let answer = answer_of(&sign_in(&app).await);
        assert_eq!(answer.get("error").map(String::as_str), (!gets_in).then_some("access_denied"), "{rules}");
        assert_eq!(answer.contains_key("code"), gets_in, "{rules}");
        let connections = app.get("/v1/connections").await.json();
        let kept = connections["items"].as_array().unwrap().len();
        assert_eq!(kept, usize::from(gets_in), "nothing of somebody who may not sign in is kept: {rules}");
    }
}

#[tokio::test]
async fn an_address_that_nobody_checked_lets_nobody_in() {
    let of_domain = |told: &mut IssuerSettings| {
        told.admitted.email_domains = Some(BTreeSet::from(["fake.example".to_owned()]));
    };
    let app = app_with(of_domain).await;
    app.provider.configure(|provider| provider.email_unverified = true);
    assert_eq!(answer_of(&sign_in(&app).await)["error"], "access_denied");
}

#[tokio::test]
async fn a_user_is_named_by_what_the_provider_never_gives_to_another() {
    let app = app().await;
    let token = tokens(&app).await["access_token"].as_str().unwrap().to_owned();
    assert_eq!(app.send(bearing("/verify", &token)).await.header("x-user-id"), Some("fake|fake-user"));
}

#[tokio::test]
async fn a_yes_is_never_remembered() {
    let app = app().await;
    let mut browser = Browser::default();
    for _ in 0..2 {
        let (address, page) = open(&mut browser, &app, &request()).await;
        check_page(&page, 200);
        let away = browser.post(&app, &address, &approve(&page, "fake")).await;
        let back = browser.get(&app, &consent(away.header("location").unwrap()).await).await;
        assert!(answer_of(&back).contains_key("code"));
    }
}

#[tokio::test]
async fn a_sign_in_takes_ten_minutes_at_most() {
    let app = app().await;
    let mut browser = Browser::default();
    for (waits, counts) in [(599, true), (600, false)] {
        let (address, page) = open(&mut browser, &app, &request()).await;
        let away = browser.post(&app, &address, &approve(&page, "fake")).await;
        let callback = consent(away.header("location").unwrap()).await;
        app.clock.advance(Duration::from_secs(waits));
        let back = browser.get(&app, &callback).await;
        if counts {
            assert!(answer_of(&back).contains_key("code"));
        } else {
            check_page(&back, 404);
        }
    }
}

#[tokio::test]
async fn over_https_the_proof_of_a_browser_belongs_to_this_host_alone() {
    let mut told = settings();
    told.upstreams = vec![Upstream::LocalAdministrator];
    let engine = |settings: &mut tokenkeep_engine::Settings| {
        settings.public_url = "https://auth.example".parse().unwrap();
        settings.issuer = Some(Arc::new(told));
    };
    let app = TestApp::with(engine, HttpSettings::default()).await;
    let mut browser = Browser::default();
    let (_, page) = open(&mut browser, &app, &request()).await;
    let cookies: Vec<_> = page.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap()).collect();
    assert!(!cookies.is_empty());
    for cookie in cookies {
        assert!(cookie.starts_with("__Host-") && cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
    }
}
