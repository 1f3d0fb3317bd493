//! Consent in a browser: the way there and back, and who else may be on it.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use tokenkeep_core::{ConnectionId, Provider, ProviderId, Role, Rotation, ports::Clock as _, provider::Kind};
use tokenkeep_engine::{Caller, ConnectStatus, PutIntegration, StartConnect};
use tokenkeep_oauth::dialect::{Callback, Companion};
use tokenkeep_testkit::Config;

use crate::{
    common::{World, alice, put_fake},
    support::{Browser, RETURN_TO, Stage, at_provider, for_alice, get, params, ticket},
};

#[tokio::test]
async fn a_consent_brings_a_connection_that_lasts() {
    let t = Stage::new().await;
    let started = t.started().await;
    assert_eq!(started.status, ConnectStatus::Pending);
    assert_eq!(started.expires_in, Duration::from_mins(10));
    let link = started.authorize_url.unwrap();
    assert!(link.as_str().starts_with("http://localhost:7420/connect/"), "{link}");

    let page = t.engine.connect().page(ticket(&link)).await.unwrap();
    assert_eq!((page.provider_name.as_str(), page.subject.as_str()), ("Fake", "alice"));
    assert_eq!(page.return_to_host.as_deref(), Some("app.example.com"));

    let mut browser = Browser::default();
    let provider = browser.open(&t.engine, &link).await.unwrap();
    let sent = params(&provider);
    assert_eq!(sent["code_challenge_method"], "S256");
    assert_eq!(sent["redirect_uri"], "http://localhost:7420/oauth/callback");
    assert!(!link.as_str().contains(&sent["state"]) && !provider.as_str().contains(ticket(&link)));
    assert_eq!(browser.open(&t.engine, &link).await.unwrap(), provider, "a reload");

    let returned = browser.come_back(&t.engine, &at_provider(&provider).await).await.unwrap();
    assert_eq!((returned.status, returned.error), (ConnectStatus::Connected, None));
    let told = params(&returned.return_to.unwrap());
    let id = started.connect_id.to_string();
    assert_eq!((told["tab"].as_str(), told["connect_id"].as_str(), told["status"].as_str()), ("2", &*id, "connected"));
    assert!(!told.contains_key("code") && !told.contains_key("error"));
    assert_eq!(t.status_of(&started.connect_id).await.0, ConnectStatus::Connected);

    let first = t.access_token(&alice()).await.unwrap();
    assert!(t.world.provider.is_access_live(&first));
    t.advance(Duration::from_hours(2));
    assert_ne!(t.access_token(&alice()).await.unwrap(), first, "it is refreshed");
    assert_eq!(t.world.provider.calls(), 2);
}

#[tokio::test]
async fn a_code_is_exchanged_once() {
    let t = Stage::new().await;
    let mut browser = Browser::default();
    let provider = browser.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
    let query = at_provider(&provider).await;
    let gate = t.world.provider.hold_next();
    let callbacks: Vec<_> = (0..16)
        .map(|_| {
            let (engine, browser, query) = (t.engine.clone(), browser.clone(), query.clone());
            tokio::spawn(async move { browser.come_back(&engine, &query).await })
        })
        .collect();
    gate.arrived().await;
    gate.release();
    let mut came = 0;
    for callback in callbacks {
        match callback.await.unwrap() {
            Ok(_) => came += 1,
            Err(error) => assert_eq!(error.code(), "connect_not_found"),
        }
    }
    assert_eq!((came, t.world.provider.calls()), (1, 1));
    assert_eq!(browser.come_back(&t.engine, &query).await.unwrap_err().code(), "connect_not_found");
    assert_eq!(t.world.provider.calls(), 1);
}

#[tokio::test]
async fn a_link_that_was_opened_is_no_one_elses() {
    let t = Stage::new().await;
    let link = t.started().await.authorize_url.unwrap();
    let (mut alices, mut bobs) = (Browser::default(), Browser::default());
    let provider = alices.open(&t.engine, &link).await.unwrap();
    assert_eq!(bobs.open(&t.engine, &link).await.unwrap_err().code(), "forbidden");
    assert!(bobs.cookie.is_none());

    // The callback's URL reaches Bob: with no cookie, with one of his own.
    let query = at_provider(&provider).await;
    assert_eq!(bobs.come_back(&t.engine, &query).await.unwrap_err().code(), "forbidden");
    bobs.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
    assert_eq!(bobs.come_back(&t.engine, &query).await.unwrap_err().code(), "forbidden");
    assert_eq!(t.world.provider.calls(), 0);
    assert!(t.is_absent(&alice()).await);

    // It harmed nobody.
    assert_eq!(alices.come_back(&t.engine, &query).await.unwrap().status, ConnectStatus::Connected);
}

/// Mallory opens her own link and sends Bob the *provider's* URL: his account must not become hers.
#[tokio::test]
async fn the_providers_url_forwarded_attaches_nothing() {
    let t = Stage::new().await;
    let provider = Browser::default().open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
    t.world.provider.configure(|config| config.user = "bob".to_owned());
    let query = at_provider(&provider).await;
    let mut bobs = Browser::default();
    assert_eq!(bobs.come_back(&t.engine, &query).await.unwrap_err().code(), "forbidden");
    bobs.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
    assert_eq!(bobs.come_back(&t.engine, &query).await.unwrap_err().code(), "forbidden");
    assert!(t.is_absent(&alice()).await);
    assert_eq!(t.world.provider.calls(), 0);
}

#[tokio::test]
async fn nothing_is_guessed() {
    let t = Stage::new().await;
    let started = t.started().await;
    let link = started.authorize_url.unwrap();
    let mut browser = Browser::default();
    let query = at_provider(&browser.open(&t.engine, &link).await.unwrap()).await;
    let id = started.connect_id;
    let guess = format!("{id}.{}", "A".repeat(43));
    for bad in [guess.as_str(), &id.to_string(), "", "x.y", &format!("{}x", ticket(&link))] {
        assert_eq!(t.engine.connect().page(bad).await.unwrap_err().code(), "connect_not_found", "{bad}");
        let refused = t.engine.connect().redirect(bad, browser.cookie.clone()).await;
        assert_eq!(refused.unwrap_err().code(), "connect_not_found", "{bad}");
    }
    let wrong = format!("code=x&state={guess}");
    assert_eq!(browser.come_back(&t.engine, &wrong).await.unwrap_err().code(), "connect_not_found");
    for bad in ["", "code=x", "code=x&state=", "code=x&state=1", &format!("{query}&code=again"), &"x".repeat(70_000)] {
        assert_eq!(browser.come_back(&t.engine, bad).await.unwrap_err().code(), "invalid_request", "{bad}");
    }
    assert_eq!(t.world.provider.calls(), 0);
    assert!(browser.come_back(&t.engine, &query).await.is_ok());
}

#[tokio::test]
async fn it_ends_with_its_time() {
    let t = Stage::new().await;
    let (first, second) = (t.started().await, t.started().await);
    let mut browser = Browser::default();
    let link = first.authorize_url.unwrap();
    let query = at_provider(&browser.open(&t.engine, &link).await.unwrap()).await;
    t.advance(Duration::from_mins(10));
    assert_eq!(browser.come_back(&t.engine, &query).await.unwrap_err().code(), "connect_not_found");
    let second_link = second.authorize_url.unwrap();
    assert_eq!(browser.open(&t.engine, &second_link).await.unwrap_err().code(), "connect_not_found");
    assert_eq!(t.status_of(&first.connect_id).await.0, ConnectStatus::Expired);
    t.advance(Duration::from_mins(6));
    t.engine.cleanup(&Caller::Local).await.unwrap();
    let gone = t.engine.connect().view(&Caller::Local, &first.connect_id).await;
    assert_eq!(gone.unwrap_err().code(), "connect_not_found");
}

#[tokio::test]
async fn another_issuers_callback_is_not_believed() {
    let t = Stage::new().await;
    let started = t.started().await;
    let mut browser = Browser::default();
    let query = at_provider(&browser.open(&t.engine, &started.authorize_url.unwrap()).await.unwrap()).await;
    let kept: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("iss=")).collect();
    let mixed_up = format!("{}&iss=https%3A%2F%2Fevil.example", kept.join("&"));
    let returned = browser.come_back(&t.engine, &mixed_up).await.unwrap();
    assert_eq!((returned.status, returned.error.as_deref()), (ConnectStatus::Failed, Some("issuer_mismatch")));
    assert_eq!(params(&returned.return_to.unwrap())["error"], "issuer_mismatch");
    assert_eq!(t.world.provider.calls(), 0);
    assert!(t.is_absent(&alice()).await);
}

#[tokio::test]
async fn a_no_is_a_no_and_what_the_provider_says_is_not_repeated() {
    let t = Stage::new().await;
    t.world.provider.configure(|config| config.user_denies = true);
    let started = t.started().await;
    let returned = Browser::default().consent(&t, &started.authorize_url.unwrap()).await.unwrap();
    assert_eq!(returned.status, ConnectStatus::Denied);
    assert_eq!(params(&returned.return_to.unwrap())["status"], "denied");
    assert_eq!(t.status_of(&started.connect_id).await.0, ConnectStatus::Denied);

    for (said, told) in
        [("server_error", "server_error"), ("%3Cscript%3E", "unrecognised"), ("my_own_word", "provider_rejected")]
    {
        let mut browser = Browser::default();
        let provider = browser.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
        let state = &params(&provider)["state"];
        let iss = t.world.provider.issuer();
        let query = format!("error={said}&error_description=CANARY&state={state}&iss={iss}");
        let returned = browser.come_back(&t.engine, &query).await.unwrap();
        assert_eq!(returned.error.as_deref(), Some(told));
        assert!(!format!("{returned:?}").contains("CANARY"));
    }
    assert_eq!(t.world.provider.calls(), 0);
}

#[tokio::test]
async fn users_return_only_where_the_installation_says() {
    let t = Stage::new().await;
    for bad in [
        "https://app.example.com.evil.example/",
        "http://app.example.com/",
        "https://app.example.com:8443/",
        "https://user@app.example.com/",
        "https://evil.example/?https://app.example.com",
        "javascript:alert(1)",
        "data:text/html,x",
    ] {
        let start = StartConnect { return_to: Some(bad.parse().unwrap()), ..for_alice() };
        assert_eq!(t.start(&Caller::Local, start).await.unwrap_err().code(), "invalid_request", "{bad}");
    }
    for good in [RETURN_TO, "https://app.example.com:443", "http://localhost:7420/console"] {
        let start = StartConnect { return_to: Some(good.parse().unwrap()), ..for_alice() };
        assert!(t.start(&Caller::Local, start).await.is_ok(), "{good}");
    }
    let start = StartConnect { return_to: None, ..for_alice() };
    let started = t.start(&Caller::Local, start).await.unwrap();
    let returned = Browser::default().consent(&t, &started.authorize_url.unwrap()).await.unwrap();
    assert_eq!(returned.return_to, None);
}

#[tokio::test]
async fn a_connect_is_started_by_those_who_may() {
    let t = Stage::new().await;
    for role in [Role::Reader, Role::Application, Role::Operator, Role::Admin] {
        let caller = t.key(role, None).await;
        assert_eq!(t.start(&caller, for_alice()).await.is_ok(), role != Role::Reader, "{role:?}");
    }
    let acme = t.key(Role::Application, Some(&["acme"])).await;
    assert_eq!(t.start(&acme, for_alice()).await.unwrap_err().code(), "forbidden");
    let started = t.started().await;
    let seen = t.engine.connect().view(&acme, &started.connect_id).await;
    assert_eq!(seen.unwrap_err().code(), "forbidden");
    let missing = StartConnect { connection: "google/_default/alice".parse().unwrap(), ..for_alice() };
    assert_eq!(t.start(&Caller::Local, missing).await.unwrap_err().code(), "integration_missing");

    let put = PutIntegration { tenant: Some("acme".parse().unwrap()), ..put_fake() };
    let t = Stage::with(put).await;
    assert_eq!(t.start(&Caller::Local, for_alice()).await.unwrap_err().code(), "forbidden");
    let acmes = StartConnect { connection: "fake/acme/alice".parse().unwrap(), ..for_alice() };
    assert!(t.start(&Caller::Local, acmes).await.is_ok());
}

#[tokio::test]
async fn a_connection_has_only_so_many_open_links() {
    let t = Stage::new().await;
    for _ in 0..100 {
        t.started().await;
    }
    assert_eq!(t.start(&Caller::Local, for_alice()).await.unwrap_err().code(), "too_many_requests");
    let bobs = StartConnect { connection: "fake/_default/bob".parse().unwrap(), ..for_alice() };
    assert!(t.start(&Caller::Local, bobs).await.is_ok());
    t.advance(Duration::from_mins(10));
    assert!(t.start(&Caller::Local, for_alice()).await.is_ok());
}

fn variant(world: &World, change: impl FnOnce(&mut Provider)) -> Provider {
    let mut provider = world.catalogue_entry();
    provider.id = ProviderId::new("variant").unwrap();
    assert_eq!(provider.kind, Kind::Oauth2);
    change(&mut provider);
    provider
}

async fn with_variant(config: Config, change: impl FnOnce(&mut Provider)) -> Stage {
    let mut world = World::with(config).await;
    world.providers.push(variant(&world, change));
    Stage::in_world(world, PutIntegration { provider: Some("variant".parse().unwrap()), ..put_fake() }).await
}

#[tokio::test]
async fn a_posted_callback_is_read_like_any_other() {
    let t = with_variant(Config::default(), |p| p.dialect.callback = Callback::FormPost).await;
    let mut browser = Browser::default();
    let provider = browser.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
    assert_eq!(params(&provider)["response_mode"], "form_post");
    let page = get(&provider).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for field in page.split("<input type=\"hidden\" name=\"").skip(1) {
        let mut parts = field.split('"');
        let (name, value) = (parts.next().unwrap(), parts.nth(1).unwrap());
        form.append_pair(name, value);
    }
    assert_eq!(browser.come_back(&t.engine, &form.finish()).await.unwrap().status, ConnectStatus::Connected);
}

#[tokio::test]
async fn what_brings_a_refresh_token_is_asked_for() {
    let t = with_variant(Config::default(), |p| {
        p.default_scope = Some("mail".to_owned());
        p.offline_scope = Some("offline_access".to_owned());
    })
    .await;
    for (asked, sent) in [
        (None, "mail offline_access"),
        (Some("a  b"), "a b offline_access"),
        (Some("offline_access"), "offline_access"),
    ] {
        let start = StartConnect { scope: asked.map(str::to_owned), ..for_alice() };
        let started = t.start(&Caller::Local, start).await.unwrap();
        let provider = Browser::default().open(&t.engine, &started.authorize_url.unwrap()).await.unwrap();
        assert_eq!(params(&provider)["scope"], sent);
    }
}

#[tokio::test]
async fn one_consent_may_bring_two_connections() {
    let mut config = Config { rotation: Rotation::None, ..Config::default() };
    let user = json!({ "access_token": "u1", "refresh_token": "ur1", "expires_in": 3600 });
    config.extra.insert("authed_user".to_owned(), user);
    let companion = Companion {
        under: "authed_user".to_owned(),
        scope_param: "user_scope".to_owned(),
        subject_suffix: ":user".to_owned(),
    };
    let t = with_variant(config, |p| p.dialect.companion = Some(companion)).await;
    let started = t.started().await;
    let returned = Browser::default().consent(&t, &started.authorize_url.unwrap()).await.unwrap();
    assert_eq!(returned.status, ConnectStatus::Connected);
    assert_ne!(t.access_token(&alice()).await.unwrap(), "u1");
    let beside: ConnectionId = "fake/_default/alice:user".parse().unwrap();
    assert_eq!(t.access_token(&beside).await.unwrap(), "u1");
    let long =
        StartConnect { connection: format!("fake/_default/{}", "x".repeat(253)).parse().unwrap(), ..for_alice() };
    assert_eq!(t.start(&Caller::Local, long).await.unwrap_err().code(), "invalid_identifier");
}

#[tokio::test]
async fn an_id_token_names_the_person_and_must_answer_our_request() {
    let put = PutIntegration { scope: Some("openid email".to_owned()), ..put_fake() };
    for (nonce_is_ours, status) in [(true, ConnectStatus::Connected), (false, ConnectStatus::Failed)] {
        let t = Stage::with(put.clone()).await;
        let mut browser = Browser::default();
        let provider = browser.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
        let nonce = if nonce_is_ours { params(&provider)["nonce"].clone() } else { "another".to_owned() };
        let exp = t.world.clock.now().wall.as_second() + 60;
        let claims = json!({
            "iss": t.world.provider.issuer(), "sub": "1", "aud": "fake-client", "exp": exp, "nonce": nonce,
            "email": "a@example.com",
        });
        let id_token = format!("e30.{}.", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        t.world.provider.configure(|config| {
            config.extra.insert("id_token".to_owned(), id_token.into());
        });
        let returned = browser.come_back(&t.engine, &at_provider(&provider).await).await.unwrap();
        assert_eq!(returned.status, status);
        if nonce_is_ours {
            let view = t.engine.connections().status(&Caller::Local, &alice()).await.unwrap();
            assert_eq!(view.display_name.as_deref(), Some("a@example.com"));
        } else {
            assert_eq!(returned.error.as_deref(), Some("id_token_invalid"));
            assert!(t.is_absent(&alice()).await);
        }
    }
}

#[tokio::test]
async fn a_browser_that_leaves_early_loses_nothing() {
    let t = Stage::new().await;
    let started = t.started().await;
    let mut browser = Browser::default();
    let query = at_provider(&browser.open(&t.engine, &started.authorize_url.unwrap()).await.unwrap()).await;
    let gate = t.world.provider.hold_next();
    let engine = t.engine.clone();
    let waiting = tokio::spawn(async move { browser.come_back(&engine, &query).await });
    gate.arrived().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    gate.release();
    t.comes_to(&started.connect_id, ConnectStatus::Connected).await;
    assert!(t.access_token(&alice()).await.is_ok());
}

#[tokio::test]
async fn what_was_obtained_is_stored_once_the_store_is_back() {
    let t = Stage::new().await;
    let started = t.started().await;
    let mut browser = Browser::default();
    let query = at_provider(&browser.open(&t.engine, &started.authorize_url.unwrap()).await.unwrap()).await;
    t.world.store.refuses_writes.store(true, SeqCst);
    let engine = t.engine.clone();
    let waiting = tokio::spawn(async move { browser.come_back(&engine, &query).await });
    t.world.provider.finished(1).await;
    for _ in 0..3 {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        t.advance(Duration::from_secs(2));
    }
    assert!(!waiting.is_finished());
    t.world.store.refuses_writes.store(false, SeqCst);
    let back = async {
        while !waiting.is_finished() {
            t.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status, ConnectStatus::Connected);
    assert_eq!(t.world.provider.calls(), 1);
    assert!(t.access_token(&alice()).await.is_ok());
}

#[tokio::test]
async fn each_step_may_meet_another_instance() {
    let t = Stage::new().await;
    let other = t.world.engine(2, None).await;
    let started = t.started().await;
    let mut browser = Browser::default();
    let provider = browser.open(&other, &started.authorize_url.unwrap()).await.unwrap();
    let returned = browser.come_back(&t.engine, &at_provider(&provider).await).await.unwrap();
    assert_eq!(returned.status, ConnectStatus::Connected);
    let view = other.connect().view(&Caller::Local, &started.connect_id).await.unwrap();
    assert_eq!(view.status, ConnectStatus::Connected);
}

#[tokio::test]
async fn a_provider_that_refuses_or_fails_leaves_a_stable_word() {
    let t = Stage::new().await;
    t.world.provider.configure(|config| config.client_secret = "another".to_owned());
    let returned = Browser::default().consent(&t, &t.started().await.authorize_url.unwrap()).await.unwrap();
    assert_eq!(returned.error.as_deref(), Some("integration_rejected"));
    t.world.provider.configure(|config| config.client_secret = "fake-client-secret".to_owned());
    t.world.provider.fault(tokenkeep_testkit::Fault::cut_after());
    let returned = Browser::default().consent(&t, &t.started().await.authorize_url.unwrap()).await.unwrap();
    assert_eq!(returned.error.as_deref(), Some("provider_unavailable"));
    let no_page = PutIntegration { provider: Some("variant".parse().unwrap()), ..put_fake() };
    let mut world = World::new(Rotation::Strict).await;
    world.providers.push(variant(&world, |p| p.authorize_url = None));
    world.providers[0].issuer = None;
    let t = Stage::in_world(world, no_page).await;
    assert_eq!(t.start(&Caller::Local, for_alice()).await.unwrap_err().code(), "invalid_request");
}
