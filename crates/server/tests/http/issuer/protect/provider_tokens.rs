//! The user's token at the provider, where the server behind is to have it.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use axum::response::IntoResponse as _;
use http::{HeaderName, StatusCode};
use tokenkeep_engine::issuer::{IssuerSettings, Upstream};
use tokenkeep_oauth::issuer::scope::ScopeSet;
use tokenkeep_server::{Forward, Protected};
use tokenkeep_testkit::Fault;

use super::{Behind, IssuerApp, TOOLS, calling, tools};
use crate::{
    app::{Answered, TestApp},
    browser::{Browser, csrf_of},
    issuer::{
        pages::{NOTES, app_protecting, approve, check_page, open, request},
        upstreams::{refresh, tokens},
    },
};

const CONNECTION: &str = "/v1/connections/fake/_default/fake%7Cfake-user";

async fn before(behind: &Behind, forward: Forward) -> TestApp {
    let protected = Protected { resource: NOTES.parse().unwrap(), ..behind.protected(forward) };
    let told = |told: &mut IssuerSettings| {
        told.resources[0].needs_upstream = true;
        told.resources[0].scopes = ScopeSet::parse("read").unwrap();
    };
    app_protecting(told, vec![protected]).await
}

async fn call(app: &TestApp, tokens: &serde_json::Value) -> Answered {
    let spoofs = [("x-own", "spoofed"), ("X_Own", "spoofed")];
    app.send(calling("POST", "/mcp", tokens["access_token"].as_str().unwrap(), &spoofs)).await
}

#[tokio::test]
async fn the_server_gets_the_users_token_and_never_the_clients() {
    let own = HeaderName::from_static("x-own");
    for (forward, name, prefix) in
        [(Forward::Authorization, "authorization", "Bearer "), (Forward::Header(own), "x-own", "")]
    {
        let behind = Behind::start().await;
        let app = before(&behind, forward).await;
        let tokens = tokens(&app).await;
        assert_eq!(call(&app, &tokens).await.status, 200);
        let seen = behind.only();
        let handed = seen.header(name).unwrap().strip_prefix(prefix).unwrap().to_owned();
        assert!(app.provider.is_access_live(&handed), "{handed}");
        assert!(!format!("{seen:?}").contains(tokens["access_token"].as_str().unwrap()));
        if name == "x-own" {
            assert!(!format!("{seen:?}").contains("spoofed"), "{seen:?}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_handed_on_is_fresh() {
    let behind = Behind::start().await;
    let app = before(&behind, Forward::Authorization).await;
    app.provider.configure(|provider| provider.token_life = Duration::from_mins(10));
    let tokens = tokens(&app).await;
    call(&app, &tokens).await;
    let first = behind.only().header("authorization").unwrap().to_owned();
    app.clock.advance(Duration::from_mins(11));
    assert_eq!(call(&app, &tokens).await.status, 200);
    let second = behind.only().header("authorization").unwrap().to_owned();
    assert_ne!(first, second);
    assert!(app.provider.is_access_live(second.strip_prefix("Bearer ").unwrap()));
}

#[tokio::test]
async fn a_connection_that_ended_sends_the_user_to_sign_in_again() {
    let behind = Behind::start().await;
    let app = before(&behind, Forward::Authorization).await;
    app.provider.configure(|provider| provider.token_life = Duration::from_mins(10));
    for is_deleted in [false, true] {
        let tokens = tokens(&app).await;
        if is_deleted {
            assert_eq!(app.delete(CONNECTION).await.status, 204);
        } else {
            app.provider.revoke_subject("fake-user");
            app.clock.advance(Duration::from_mins(11));
        }
        let answer = call(&app, &tokens).await;
        answer.refused(401, "invalid_token");
        assert!(answer.header("www-authenticate").unwrap().contains("sign in again"), "{answer:?}");
        // So its client does not get by with the refresh token.
        refresh(&app, &tokens).await.refused(400, "invalid_grant");
        assert!(behind.saw_nothing());
    }
}

#[tokio::test]
async fn a_provider_that_is_down_ends_nothing() {
    let behind = Behind::start().await;
    let app = before(&behind, Forward::Authorization).await;
    app.provider.configure(|provider| provider.token_life = Duration::from_mins(10));
    let tokens = tokens(&app).await;
    app.clock.advance(Duration::from_mins(11));
    app.provider.faults(8, Fault::server_error());
    let problem = call(&app, &tokens).await;
    problem.problem(503, "provider_unavailable");
    assert!(problem.header("retry-after").is_some());
    app.provider.clear_faults();
    app.clock.advance(Duration::from_mins(5));
    assert_eq!(call(&app, &tokens).await.status, 200);
}

#[tokio::test]
async fn a_server_that_refuses_the_users_token_gets_another() {
    let good = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let wanted = good.clone();
    let behind = Behind::saying(move |seen| {
        let is_good = seen.header("authorization") != Some(&*wanted.lock().unwrap());
        if is_good { "fine".into_response() } else { StatusCode::UNAUTHORIZED.into_response() }
    })
    .await;
    let app = before(&behind, Forward::Authorization).await;
    let tokens = tokens(&app).await;
    assert_eq!(call(&app, &tokens).await.status, 200);
    // From now on this one is no good there.
    *good.lock().unwrap() = behind.only().header("authorization").unwrap().to_owned();
    let refused = call(&app, &tokens).await;
    refused.refused(401, "invalid_token");
    assert!(refused.header("www-authenticate").unwrap().contains("try again"), "{refused:?}");
    // What a client does then: it gets itself another token, and tries again.
    let again = refresh(&app, &tokens).await.json();
    assert_eq!(call(&app, &again).await.status, 200);
}

#[tokio::test]
async fn a_token_that_nobody_can_renew_is_not_ended_by_a_server_that_refuses_it_once() {
    let refuses = std::sync::Arc::new(AtomicBool::new(true));
    let behind = Behind::saying(move |_| {
        if refuses.swap(false, SeqCst) { StatusCode::UNAUTHORIZED.into_response() } else { "fine".into_response() }
    })
    .await;
    let app = before(&behind, Forward::Authorization).await;
    app.provider.configure(|provider| (provider.omit_expires_in, provider.omit_refresh_token) = (true, true));
    let tokens = tokens(&app).await;
    call(&app, &tokens).await.refused(401, "invalid_token");
    let again = refresh(&app, &tokens).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(call(&app, &again.json()).await.status, 200);
}

#[tokio::test]
async fn who_has_no_account_at_the_provider_is_not_let_through() {
    let behind = Behind::start().await;
    let app = IssuerApp::protecting(tools(""), vec![behind.protected(Forward::Authorization)]).await;
    for token in [app.tools_token("").await, app.tools_token_of_backend().await] {
        app.call("POST", "/mcp", &token, &[]).await.refused(403, "access_denied");
    }
    assert!(behind.saw_nothing());
}

#[tokio::test]
async fn people_sign_in_where_the_server_says_and_nowhere_else() {
    let behind = Behind::start().await;
    let protected = Protected { resource: NOTES.parse().unwrap(), ..behind.protected(Forward::Nothing) };
    let only_there = |told: &mut IssuerSettings| {
        told.resources[0].scopes = ScopeSet::parse("read").unwrap();
        told.upstreams = vec![Upstream::LocalAdministrator];
        told.resources[0].upstreams = vec![Upstream::Integration("fake".parse().unwrap())];
    };
    let app = app_protecting(only_there, vec![protected]).await;
    let tokens = tokens(&app).await;
    assert_eq!(call(&app, &tokens).await.status, 200);
    assert_eq!(behind.only().header("x-user-id"), Some("fake|fake-user"));
    assert_ne!(TOOLS, NOTES);

    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    let form = approve(&page, "_administrator");
    assert_eq!(browser.post(&app, &address, &form).await.status, 400, "{page:?}");
    let form = format!("csrf={}&key={}", csrf_of(&page), app.key);
    assert_eq!(browser.post(&app, &format!("{address}/administrator"), &form).await.status, 403);
}

#[tokio::test]
async fn the_page_says_who_gets_to_use_the_account() {
    let behind = Behind::start().await;
    for (forward, says) in [(Forward::Authorization, true), (Forward::Nothing, false)] {
        let told = |told: &mut IssuerSettings| told.resources[0].needs_upstream = says;
        let protected = Protected { resource: NOTES.parse().unwrap(), ..behind.protected(forward) };
        let app = app_protecting(told, vec![protected]).await;
        let (_, page) = open(&mut Browser::default(), &app, &request()).await;
        check_page(&page, 200);
        assert_eq!(page.text().contains("may use your account at Fake"), says, "{}", page.text());
    }
}
