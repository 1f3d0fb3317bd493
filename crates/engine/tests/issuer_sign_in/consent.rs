//! The page, and the forms that come back from it.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokenkeep_core::{Role, Tenant};
use tokenkeep_engine::{
    Caller, Error, NewKey,
    issuer::{ADMINISTRATOR, Next, Upstream},
};
use tokenkeep_oauth::Secret;

use crate::{
    common::issuer::RESOURCE,
    support::{Answer, Browser, Stage, only_grant},
};

#[tokio::test]
async fn the_page_says_who_asks_for_what() {
    let stage = Stage::new().await;
    let id = stage.asked().await;
    let page = Browser::default().look(&stage, &id).await.unwrap();
    assert_eq!((page.interaction, &page.client_id), (id, &stage.client.id));
    assert_eq!((page.redirect_host.as_str(), page.loopback, page.private_scheme), ("app.example.com", false, false));
    assert_eq!((page.resource.as_str(), page.scopes), (RESOURCE, vec!["read".to_owned()]));
    let upstreams: Vec<_> = page.upstreams.iter().map(|choice| (choice.id.as_str(), choice.name.as_str())).collect();
    assert_eq!(upstreams, [("fake", "Fake"), ("hub", "hub")]);
    assert_eq!(page.form_action, ["https://app.example.com", &stage.world.provider.issuer()]);
}

#[tokio::test]
async fn a_no_is_a_no() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let page = browser.look(&stage, &id).await.unwrap();
    let answer = stage.issuer().deny(&id, browser.cookie.clone(), page.csrf.expose_secret()).await.unwrap();
    assert_eq!(Answer::read(&answer).error(), "access_denied");
    for again in [
        stage.issuer().deny(&id, browser.cookie.clone(), page.csrf.expose_secret()).await.unwrap_err(),
        browser.approve(&stage, &id, None).await.unwrap_err(),
    ] {
        assert!(matches!(again, Error::NotFound { what: "interaction", .. }));
    }
}

#[tokio::test]
async fn a_form_counts_from_the_browser_and_the_page_that_it_was_shown_on() {
    let stage = Stage::new().await;
    let (id, other) = (stage.asked().await, stage.asked().await);
    let (mut alices, mut mallorys) = (Browser::default(), Browser::default());
    let csrf = alices.look(&stage, &id).await.unwrap().csrf;
    let of_other_page = alices.look(&stage, &other).await.unwrap().csrf;
    let of_other_browser = mallorys.look(&stage, &id).await.unwrap().csrf;
    let csrf = csrf.expose_secret();
    let short: Secret = "short".into();
    for (cookie, csrf) in [
        (alices.cookie.clone(), ""),
        (alices.cookie.clone(), "wrong"),
        (alices.cookie.clone(), &csrf[1..]),
        (alices.cookie.clone(), of_other_page.expose_secret()),
        (alices.cookie.clone(), of_other_browser.expose_secret()),
        (mallorys.cookie.clone(), csrf),
        (None, csrf),
        (Some(short), csrf),
    ] {
        let issuer = stage.issuer();
        for refused in [
            issuer.approve(&id, cookie.clone(), csrf, None).await.unwrap_err(),
            issuer.deny(&id, cookie.clone(), csrf).await.unwrap_err(),
            issuer.sign_in_administrator(&id, cookie, csrf, &"tk_x".into()).await.unwrap_err(),
        ] {
            assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
        }
    }
    assert!(matches!(stage.issuer().approve(&id, alices.cookie, csrf, None).await, Ok(Next::Upstream(_))));
}

#[tokio::test]
async fn nobody_signs_in_where_the_operator_did_not_say() {
    let stage = Stage::new().await;
    let id = stage.asked().await;
    for nowhere in ["github", ADMINISTRATOR, "", "fake/x"] {
        let refused = Browser::default().approve(&stage, &id, Some(nowhere)).await.unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{nowhere}");
    }
    let mut browser = Browser::default();
    let csrf = browser.look(&stage, &id).await.unwrap().csrf;
    let (key, _) = admin(&stage, Role::Admin).await;
    let refused = stage.issuer().sign_in_administrator(&id, browser.cookie, csrf.expose_secret(), &key).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));
    let nowhere = Stage::with(|settings| settings.upstreams.clear()).await;
    let id = nowhere.asked().await;
    match Browser::default().approve(&nowhere, &id, None).await.unwrap() {
        Next::Answer(answer) => assert_eq!(Answer::read(&answer).error(), "server_error"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_page_ends_with_its_time_and_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let csrf = browser.look(&stage, &id).await.unwrap().csrf;
    stage.world.clock.advance(Duration::from_mins(10));
    let late = stage.issuer().approve(&id, browser.cookie.clone(), csrf.expose_secret(), None).await.unwrap_err();
    assert!(matches!(late, Error::NotFound { .. }));
    assert!(matches!(browser.look(&stage, &id).await, Err(Error::NotFound { .. })));
    let view = stage.issuer().interaction(&Caller::Local, &id).await.unwrap();
    assert_eq!(view.status.as_str(), "expired");
    stage.world.clock.advance(Duration::from_mins(6));
    stage.engine.cleanup(&Caller::Local).await.unwrap();
    assert!(matches!(stage.issuer().interaction(&Caller::Local, &id).await, Err(Error::NotFound { .. })));
}

async fn admin(stage: &Stage, role: Role) -> (Secret, String) {
    let new = NewKey { name: format!("a test's {}", role.as_str()), role, tenants: None, providers: None };
    let (key, secret) = stage.engine.keys().create(&Caller::Local, new).await.unwrap();
    (secret, format!("local|{}", key.id))
}

#[tokio::test]
async fn an_administrator_signs_in_with_a_key() {
    let stage = Stage::with(|settings| settings.upstreams.push(Upstream::LocalAdministrator)).await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    // A detour to a provider does not bind the user to it.
    browser.sent_upstream(&stage, &id, "fake").await;
    assert!(matches!(browser.approve(&stage, &id, Some(ADMINISTRATOR)).await, Ok(Next::Administrator)));
    let csrf = browser.look(&stage, &id).await.unwrap().csrf;
    let attempt = async |key: &Secret| {
        stage.issuer().sign_in_administrator(&id, browser.cookie.clone(), csrf.expose_secret(), key).await
    };
    let bound = NewKey {
        name: "of another tenant".to_owned(),
        role: Role::Admin,
        tenants: Some([Tenant::new("acme").unwrap()].into()),
        providers: None,
    };
    let bound = stage.engine.keys().create(&Caller::Local, bound).await.unwrap().1;
    for wrong in ["tk_nobody".into(), bound, admin(&stage, Role::Operator).await.0] {
        assert!(matches!(attempt(&wrong).await, Err(Error::Forbidden(_))));
    }
    assert_eq!(stage.grants().await, 0);
    let (key, subject) = admin(&stage, Role::Admin).await;
    let answer = Answer::read(&attempt(&key).await.unwrap());
    assert_eq!(only_grant(&stage).await, (subject, Some("a test's admin".to_owned()), None, None));
    stage.token(&answer.code()).await;
    assert!(matches!(attempt(&key).await, Err(Error::NotFound { .. })), "once");
}
