//! Who it is: nobody signs in by an ID token that is not believed.

use serde_json::{Value, json};
use tokenkeep_engine::{Caller, PutIntegration};
use tokenkeep_oauth::Secret;

use crate::{
    common::{
        browser::{at_provider, params},
        put_fake,
    },
    support::{Answer, Browser, Stage, only_grant, upstreams},
};

const CONNECTION: &str = "fake/_default/fake|fake-user";

#[tokio::test]
async fn an_id_token_that_is_not_believed_lets_nobody_in() {
    let stage = Stage::new().await;
    for wrong in [
        json!({"nonce": "another"}),
        json!({"nonce": null}),
        json!({"iss": "https://evil.example"}),
        json!({"aud": "another-client"}),
        json!({"azp": "another-client"}),
        json!({"exp": 0}),
        json!({"sub": ""}),
        json!({"sub": null}),
    ] {
        let answer = stage.sign_in("fake", wrong.clone()).await.unwrap();
        assert_eq!(answer.error(), "server_error", "{wrong}");
        assert!(answer.params["error_description"].ends_with("id_token_invalid"), "{wrong}");
    }
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.world.provider.configure(|config| config.extra.clear());
    let answer = browser.come_back(&stage, &at_provider(&url).await).await.unwrap();
    assert!(answer.params["error_description"].ends_with("id_token_missing"));
    assert_eq!(stage.grants().await, 0);
    assert!(!stage.has_connection(CONNECTION).await);
}

#[tokio::test]
async fn an_id_that_cannot_be_a_subject_is_nobodys() {
    let stage = Stage::new().await;
    for odd in ["é", "a\nb", &"x".repeat(253)] {
        let answer = stage.sign_in("fake", json!({ "sub": odd })).await.unwrap();
        assert!(answer.params["error_description"].ends_with("identity_unusable"), "{odd}");
    }
    assert_eq!(stage.grants().await, 0);
}

#[tokio::test]
async fn an_address_that_nobody_vouches_for_is_not_taken_down() {
    let stage = Stage::new().await;
    let claims = json!({"email": "ceo@example.com", "email_verified": false, "name": "Alice\nX-User-Id: root"});
    stage.sign_in("fake", claims).await.unwrap().code();
    let (_, name, email, _) = only_grant(&stage).await;
    assert_eq!((name, email), (None, None));
}

/// An integration that is known by its issuer only: its userinfo endpoint says what the ID token does not.
#[tokio::test]
async fn what_the_id_token_lacks_is_looked_up_if_it_is_the_same_person() {
    let stage = Stage::with(|settings| {
        upstreams(settings);
        settings.upstreams.push(tokenkeep_engine::issuer::Upstream::Integration("acme".parse().unwrap()));
    })
    .await;
    let acme = PutIntegration { provider: None, issuer: Some(stage.world.provider.issuer()), ..put_fake() };
    stage.engine.integrations().put(&Caller::Local, &"acme".parse().unwrap(), acme).await.unwrap();
    let other = stage.sign_in("acme", json!({"sub": "somebody-else"})).await.unwrap();
    assert!(other.params["error_description"].ends_with("userinfo_mismatch"));
    assert_eq!(stage.grants().await, 0);

    stage.sign_in("acme", json!({})).await.unwrap().code();
    let (subject, name, email, _) = only_grant(&stage).await;
    assert_eq!(subject, "acme|fake-user");
    assert_eq!((name.as_deref(), email.as_deref()), (Some("fake-user"), Some("fake-user@fake.example")));

    // It would have been nicer to know, and no rule asks.
    stage.world.provider.configure(|config| config.userinfo_down = true);
    stage.sign_in("acme", json!({})).await.unwrap().code();
    // An address of the ID token's is not vouched for by the other's word.
    stage.world.provider.configure(|config| config.userinfo_down = false);
    let claims = json!({"email": "ceo@example.com"});
    stage.sign_in("acme", claims).await.unwrap().code();
    assert_eq!(stage.grants().await, 3);
    assert!(!has_email(&stage, "ceo@example.com").await);
}

async fn has_email(stage: &Stage, email: &str) -> bool {
    use tokenkeep_engine::issuer::GrantFilter;
    let filter = GrantFilter { limit: 100, ..GrantFilter::default() };
    let items = stage.issuer().list_grants(&Caller::Local, filter).await.unwrap().items;
    items.iter().any(|grant| grant.email.as_deref() == Some(email))
}

#[tokio::test]
async fn a_provider_without_id_tokens_is_asked_who_it_is() {
    let stage = Stage::new().await;
    let mut browser = Browser::default();
    let url = browser.sent_upstream(&stage, &stage.asked().await, "hub").await;
    assert_eq!(params(&url)["scope"], "user");
    assert!(!params(&url).contains_key("nonce"));
    let answer = browser.come_back(&stage, &at_provider(&url).await).await.unwrap();
    stage.token(&answer.code()).await;
    let (subject, name, email, connection) = only_grant(&stage).await;
    assert_eq!(subject, "hub|fake-user");
    assert_eq!((name.as_deref(), email.as_deref()), (Some("fake-user"), Some("fake-user@fake.example")));
    assert_eq!(connection, Some("hub/_default/hub|fake-user".parse().unwrap()));

    stage.world.provider.configure(|config| config.userinfo_down = true);
    assert_eq!(hub(&stage).await.error(), "temporarily_unavailable", "it could not be found out who it is");
    assert_eq!(stage.grants().await, 1);
}

async fn hub(stage: &Stage) -> Answer {
    stage.sign_in("hub", Value::Object(serde_json::Map::new())).await.unwrap()
}

#[tokio::test]
async fn a_provider_that_does_not_say_who_it_is_is_no_place_to_sign_in() {
    let stage = Stage::with(|settings| {
        settings.upstreams = vec![tokenkeep_engine::issuer::Upstream::Integration("slack".parse().unwrap())];
    })
    .await;
    let slack = PutIntegration {
        provider: Some("slack".parse().unwrap()),
        client_id: "x".to_owned(),
        client_secret: Some(Secret::from("y")),
        ..PutIntegration::default()
    };
    stage.engine.integrations().put(&Caller::Local, &"slack".parse().unwrap(), slack).await.unwrap();
    let refused = Browser::default().approve(&stage, &stage.asked().await, None).await.unwrap_err();
    assert_eq!(refused.code(), "invalid_request");
}
