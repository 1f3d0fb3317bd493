//! Clients that register themselves.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use secrecy::ExposeSecret as _;
use tokenkeep_core::client::{UNUSED_LIFE, USED_LIFE};
use tokenkeep_engine::{
    Caller,
    issuer::{GrantStatus, IssuerSettings, ManagementRefused, Refused, Registered, Registration},
};
use tokenkeep_oauth::{Secret, issuer::token::Credential};

use crate::{
    common::issuer::{TestIssuer, client_credentials, granted, post, redeem, settings},
    support::{authenticates, code_of},
};

const PUBLIC: &str = r#"{"client_name":"CLI","redirect_uris":["http://127.0.0.1:51004/cb"],
    "grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"none","scope":"read"}"#;
const CONFIDENTIAL: &str = r#"{"redirect_uris":["https://app.example.com/callback"],
    "grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"client_secret_post"}"#;

async fn register(test: &TestIssuer, body: &str) -> Result<Registered, Refused> {
    test.issuer().register(body.as_bytes(), None, || Ok(())).await
}

fn json(registered: &Registered) -> serde_json::Value {
    serde_json::from_str(registered.to_json().expose_secret()).unwrap()
}

fn status(refused: &Result<Registered, ManagementRefused>) -> u16 {
    refused.as_ref().map_or_else(|refused| refused.status().as_u16(), |_| 200)
}

async fn knows(test: &TestIssuer, registered: &Registered) -> bool {
    let client_id = registered.client.id.to_string();
    test.issuer().authenticate(Credential::Public { client_id }).await.is_ok()
}

#[tokio::test]
async fn a_public_client_is_what_it_says_of_itself() {
    let test = TestIssuer::new().await;
    let first = register(&test, PUBLIC).await.unwrap();
    let told = json(&first);
    assert!(told["client_id"].as_str().unwrap().starts_with("client_"));
    assert_eq!(told["redirect_uris"][0], "http://127.0.0.1:51004/cb");
    assert_eq!((&told["response_types"][0], &told["scope"]), (&"code".into(), &"read".into()));
    assert!(told["client_id_issued_at"].is_i64());
    for absent in ["client_secret", "registration_access_token", "registration_client_uri"] {
        assert!(told.get(absent).is_none(), "{absent}");
    }
    // The port of a loopback address makes no difference, and no new client.
    let again = register(&test, &PUBLIC.replace("51004", "62222")).await.unwrap();
    assert_eq!(again.client.id, first.client.id);
    assert_eq!(json(&again)["redirect_uris"][0], "http://127.0.0.1:62222/cb");
    for other in [PUBLIC.replace("CLI", "Other"), PUBLIC.replace("/cb", "/cb2"), PUBLIC.replace("read", "write")] {
        assert_ne!(register(&test, &other).await.unwrap().client.id, first.client.id, "{other}");
    }
    // Elsewhere, too, and without a word over a bus.
    let elsewhere = test.world.engine(2, None).await;
    let there = elsewhere.issuer().unwrap().register(PUBLIC.as_bytes(), None, || Ok(())).await.unwrap();
    assert_eq!(there.client.id, first.client.id);
    assert!(knows(&test, &first).await);
    let token = format!("reg-{}", "x".repeat(43)).into();
    assert_eq!(status(&test.issuer().registered(first.client.id.as_str(), &token).await), 403);
}

#[tokio::test]
async fn a_client_that_proves_itself_is_one_of_its_own_and_manages_itself() {
    let test = TestIssuer::new().await;
    let issuer = test.issuer();
    let one = register(&test, CONFIDENTIAL).await.unwrap();
    let two = register(&test, CONFIDENTIAL).await.unwrap();
    assert_ne!(one.client.id, two.client.id);
    let told = json(&one);
    let id = one.client.id.as_str();
    assert_eq!(told["client_secret"].as_str().unwrap().len(), 43);
    assert_eq!(told["client_secret_expires_at"], 0);
    assert_eq!(told["registration_client_uri"], format!("https://auth.example.com/register/{id}"));
    let secret = one.secret.clone().unwrap();
    let token = one.registration_access_token.clone().unwrap();
    assert!(token.expose_secret().starts_with("reg-") && token.expose_secret().len() == 47);
    assert!(authenticates(&test, &one.client, &secret).await);

    let seen = issuer.registered(id, &token).await.unwrap();
    assert!(seen.secret.is_none());
    assert_eq!(json(&seen)["registration_access_token"], token.expose_secret());
    let others = two.registration_access_token.unwrap();
    for (id, token, expected) in [
        (id, Secret::from(""), 401),
        (id, "reg-short".into(), 401),
        (id, secret.clone(), 401),
        (id, others.clone(), 403),
        ("client_unknown", token.clone(), 404),
    ] {
        let body = CONFIDENTIAL.as_bytes();
        assert_eq!(status(&issuer.registered(id, &token).await), expected);
        assert_eq!(status(&issuer.update_registration(id, &token, body).await), expected);
        let deleted = issuer.delete_registration(id, &token).await;
        assert_eq!(deleted.unwrap_err().status().as_u16(), expected);
    }

    let renamed = CONFIDENTIAL.replace('{', &format!(r#"{{"client_id":"{id}","client_name":"New","#));
    let updated = issuer.update_registration(id, &token, renamed.as_bytes()).await.unwrap();
    assert_eq!((json(&updated)["client_name"].clone(), updated.secret.is_none()), ("New".into(), true));
    assert!(authenticates(&test, &one.client, &secret).await);
    for wrong in [
        CONFIDENTIAL.replace('{', r#"{"client_id":"client_other","#),
        CONFIDENTIAL.replace('{', r#"{"client_secret":"mine","#),
        CONFIDENTIAL.replace("client_secret_post", "none"),
        CONFIDENTIAL.replace("https://app.example.com/callback", "http://app.example.com/callback"),
    ] {
        assert_eq!(status(&issuer.update_registration(id, &token, wrong.as_bytes()).await), 400, "{wrong}");
    }

    let (grant, _) = granted(&test.world, &one.client.id, 51).await;
    issuer.delete_registration(id, &token).await.unwrap();
    assert_eq!(issuer.grant_view(&Caller::Local, &grant).await.unwrap().status, GrantStatus::Revoked);
    assert_eq!(status(&issuer.registered(id, &token).await), 404);
    assert!(!authenticates(&test, &one.client, &secret).await);
}

#[tokio::test]
async fn unused_ones_are_forgotten_and_used_ones_live_on() {
    let test = TestIssuer::new().await;
    let unused = register(&test, PUBLIC).await.unwrap();
    let used = register(&test, &PUBLIC.replace("127.0.0.1:51004/cb", "127.0.0.1/callback")).await.unwrap();
    // Naming itself is no use of a public client.
    assert!(knows(&test, &unused).await);
    let known = test.issuer().authenticate(Credential::Public { client_id: used.client.id.to_string() }).await;
    let (_, code) = granted(&test.world, &used.client.id, 61).await;
    test.issuer().token(&known.unwrap(), redeem(&code)).await.unwrap();
    let is_noted = async || {
        let view = test.issuer().client_view(&Caller::Local, &used.client.id).await.unwrap();
        view.used_at.is_some()
    };
    while !is_noted().await {
        tokio::task::yield_now().await;
    }
    test.advance(UNUSED_LIFE.checked_sub(Duration::from_secs(1)).unwrap());
    assert!(knows(&test, &unused).await);
    // What is remembered of it ends with it.
    test.advance(Duration::from_secs(1));
    assert!(!knows(&test, &unused).await);
    assert!(knows(&test, &used).await);
    // It registers again, and is known at once, here and wherever it was known to have expired.
    let again = register(&test, PUBLIC).await.unwrap();
    assert_eq!(again.client.id, unused.client.id);
    assert!(knows(&test, &again).await);
    // Registering again is a sign of life.
    test.advance(UNUSED_LIFE / 2);
    register(&test, PUBLIC).await.unwrap();
    test.advance(UNUSED_LIFE / 2);
    assert!(knows(&test, &again).await);
    test.advance(USED_LIFE);
    assert!(!knows(&test, &used).await);
}

#[tokio::test]
async fn nobody_vouches_for_a_client_that_registered_itself() {
    let own = r#"{"grant_types":["client_credentials"],"token_endpoint_auth_method":"client_secret_basic"}"#;
    let test = TestIssuer::new().await;
    assert_eq!(code_of(&register(&test, own).await.unwrap_err()), "invalid_client_metadata");
    let mixed = CONFIDENTIAL.replace("\"refresh_token\"", "\"client_credentials\"");
    let registered = register(&test, &mixed).await.unwrap();
    assert_eq!(json(&registered)["grant_types"], serde_json::json!(["authorization_code"]));
    let known = test.issuer().authenticate(post(&registered.client, &registered.secret.unwrap())).await.unwrap();
    let refused = test.issuer().token(&known, client_credentials()).await.unwrap_err();
    assert_eq!(code_of(&refused), "unauthorized_client");

    let with_token = IssuerSettings { registration: Registration::Token("sesame".into()), ..settings() };
    let test = TestIssuer::with(with_token).await;
    for (token, code) in [(None, "invalid_token"), (Some("wrong"), "invalid_token"), (Some(""), "invalid_token")] {
        let refused =
            test.issuer().register(own.as_bytes(), token.map(Secret::from).as_ref(), || Ok(())).await.unwrap_err();
        assert_eq!(code_of(&refused), code);
    }
    assert!(test.issuer().register(own.as_bytes(), Some(&"sesame".into()), || Ok(())).await.is_ok());

    let off = IssuerSettings { registration: Registration::Off, ..settings() };
    let refused = register(&TestIssuer::with(off).await, PUBLIC).await.unwrap_err();
    assert_eq!(code_of(&refused), "access_denied");
}

#[tokio::test]
async fn what_is_registered_is_bounded() {
    let test = TestIssuer::new().await;
    let long = format!("{PUBLIC}{}", " ".repeat(16 * 1024));
    assert_eq!(code_of(&register(&test, &long).await.unwrap_err()), "invalid_client_metadata");
    test.world.store.down.store(true, SeqCst);
    assert_eq!(code_of(&register(&test, PUBLIC).await.unwrap_err()), "temporarily_unavailable");
    assert_eq!(code_of(&register(&test, CONFIDENTIAL).await.unwrap_err()), "temporarily_unavailable");
}
