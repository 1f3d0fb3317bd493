//! An application that brings its own pages.

use secrecy::ExposeSecret as _;
use tokenkeep_core::{InteractionId, Role, Tenant};
use tokenkeep_engine::{
    Caller, Error, NewKey,
    issuer::{Accept, Authorization, Reject},
};
use tokenkeep_oauth::issuer::scope::ScopeSet;

use crate::{
    common::{alice, browser::params, store_seeded},
    support::{Answer, Browser, Stage, only_grant},
};

async fn stage() -> Stage {
    Stage::with(|settings| settings.interaction_url = Some("https://app.example.com/sign-in?x=1".parse().unwrap()))
        .await
}

async fn asked(stage: &Stage) -> InteractionId {
    match stage.issuer().authorize(stage.query(&[("scope", Some("read write"))]).as_bytes()).await.unwrap() {
        Authorization::Elsewhere(url) => {
            assert!(url.as_str().starts_with("https://app.example.com/sign-in?x=1&"));
            params(&url)["interaction"].parse().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

async fn key(stage: &Stage, role: Role, tenant: Option<&str>) -> Caller {
    let tenants = tenant.map(|tenant| [Tenant::new(tenant).unwrap()].into());
    let new = NewKey { name: format!("a test's {}", role.as_str()), role, tenants, providers: None };
    Caller::Key(stage.engine.keys().create(&Caller::Local, new).await.unwrap().0.into())
}

fn bob() -> Accept {
    Accept {
        subject: "bob".parse().unwrap(),
        name: Some("Bob".to_owned()),
        email: None,
        scope: None,
        connection: None,
        exchangers: [].into(),
    }
}

#[tokio::test]
async fn it_says_who_consented_to_what() {
    let stage = stage().await;
    let application = key(&stage, Role::Application, None).await;
    let id = asked(&stage).await;
    let view = stage.issuer().interaction(&application, &id).await.unwrap();
    assert_eq!((view.client, view.redirect_host.as_str()), (stage.client.id.clone(), "app.example.com"));
    assert_eq!((view.scope.to_string().as_str(), view.status.as_str()), ("read write", "pending"));
    store_seeded(&stage.engine, &stage.world, &alice()).await;
    let accept = Accept { scope: ScopeSet::parse("read").ok(), connection: Some(alice()), ..bob() };
    let answer = Answer::read(&stage.issuer().accept(&application, &id, accept).await.unwrap());
    assert_eq!(stage.token(&answer.code()).await.scope.unwrap(), "read");
    assert_eq!(only_grant(&stage).await, ("bob".to_owned(), Some("Bob".to_owned()), None, Some(alice())));
    assert_eq!(stage.issuer().interaction(&application, &id).await.unwrap().status.as_str(), "granted");
}

#[tokio::test]
async fn it_says_no() {
    let stage = stage().await;
    for (error, description, told) in [
        (None, None, "access_denied"),
        (Some("login_required"), Some("the user went away"), "login_required"),
        (Some("temporarily_unavailable"), None, "temporarily_unavailable"),
    ] {
        let id = asked(&stage).await;
        let reject = Reject { error: error.map(str::to_owned), description: description.map(str::to_owned) };
        let answer = Answer::read(&stage.issuer().reject(&Caller::Local, &id, reject).await.unwrap());
        assert_eq!(answer.error(), told);
        assert_eq!(answer.params["error_description"], description.unwrap_or("the user said no"));
        let again = stage.issuer().accept(&Caller::Local, &id, bob()).await;
        assert!(matches!(again, Err(Error::NotFound { .. })));
    }
    let id = asked(&stage).await;
    for (error, description) in [
        (Some("invalid_client"), None),
        (Some("<script>"), None),
        (None, Some("é")),
        (None, Some("a\"b")),
        (None, Some("a\nb")),
        (None, Some(&*"x".repeat(201))),
    ] {
        let reject = Reject { error: error.map(str::to_owned), description: description.map(str::to_owned) };
        let refused = stage.issuer().reject(&Caller::Local, &id, reject).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{error:?} {description:?}");
    }
}

#[tokio::test]
async fn it_hands_out_no_more_than_was_asked_for_and_nobody_elses_tokens() {
    let stage = stage().await;
    let id = asked(&stage).await;
    store_seeded(&stage.engine, &stage.world, &"fake/acme/alice".parse().unwrap()).await;
    let application = key(&stage, Role::Application, Some("_default")).await;
    for (accept, code) in [
        (Accept { scope: ScopeSet::parse("read admin").ok(), ..bob() }, "invalid_request"),
        (Accept { name: Some("a\nb".to_owned()), ..bob() }, "invalid_request"),
        (Accept { connection: Some("fake/_default/nobody".parse().unwrap()), ..bob() }, "connection_not_found"),
        (Accept { connection: Some("fake/acme/alice".parse().unwrap()), ..bob() }, "forbidden"),
    ] {
        assert_eq!(stage.issuer().accept(&application, &id, accept).await.unwrap_err().code(), code);
    }
    for (role, tenant) in [(Role::Reader, None), (Role::Application, Some("acme"))] {
        let caller = key(&stage, role, tenant).await;
        assert_eq!(stage.issuer().interaction(&caller, &id).await.unwrap_err().code(), "forbidden");
        assert_eq!(stage.issuer().accept(&caller, &id, bob()).await.unwrap_err().code(), "forbidden");
        assert_eq!(stage.issuer().reject(&caller, &id, Reject::default()).await.unwrap_err().code(), "forbidden");
    }
    assert_eq!(stage.grants().await, 0);
}

#[tokio::test]
async fn of_sixteen_answers_one_counts() {
    let stage = stage().await;
    stage.world.store.lets_others_in.store(true, std::sync::atomic::Ordering::SeqCst);
    let id = asked(&stage).await;
    let answers: Vec<_> = (0..16)
        .map(|_| {
            let issuer = stage.issuer().clone();
            tokio::spawn(async move { issuer.accept(&Caller::Local, &id, bob()).await })
        })
        .collect();
    let mut codes = Vec::new();
    for answer in answers {
        codes.extend(answer.await.unwrap().ok().map(|answer| Answer::read(&answer).code()));
    }
    assert_eq!(codes.len(), 1);
    stage.token(&codes[0]).await;
}

/// Whoever asks is the only one who asks.
#[tokio::test]
async fn our_page_and_the_applications_exclude_each_other() {
    let theirs = stage().await;
    let id = asked(&theirs).await;
    let mut browser = Browser::default();
    assert!(matches!(browser.look(&theirs, &id).await, Err(Error::NotFound { .. })));

    let ours = Stage::new().await;
    let id = ours.asked().await;
    let page = browser.look(&ours, &id).await.unwrap();
    assert!(matches!(ours.issuer().accept(&Caller::Local, &id, bob()).await, Err(Error::Invalid(_))));
    assert!(matches!(ours.issuer().reject(&Caller::Local, &id, Reject::default()).await, Err(Error::Invalid(_))));
    assert!(ours.issuer().deny(&id, browser.cookie, page.csrf.expose_secret()).await.is_ok());
}
