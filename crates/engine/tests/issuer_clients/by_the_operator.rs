//! Clients that the operator makes, over the API or in the file.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use secrecy::ExposeSecret as _;
use tokenkeep_core::{ClientOrigin, ClientSecretHash, Role};
use tokenkeep_engine::{
    Caller, Error,
    issuer::{ChangeClient, ClientFilter, ConfigClient, GrantFilter, GrantStatus, NewClient},
};
use tokenkeep_oauth::issuer::{client::AuthMethod, resource::Resource, token::Credential};

use crate::{
    common::issuer::{
        OTHER_RESOURCE, TestIssuer, client_credentials, granted, granted_by, metadata, post, redeem, refresh, settings,
    },
    support::{CHOSEN, authenticates, caller, code_of, id, new},
};

#[tokio::test]
async fn a_secret_is_drawn_shown_once_and_proves_the_client() {
    let test = TestIssuer::new().await;
    let (client, secret) = test.client(AuthMethod::ClientSecretPost).await;
    let secret = secret.unwrap();
    assert_eq!(secret.expose_secret().len(), 43);
    assert_eq!((client.id.as_str().len(), &client.id.as_str()[..7]), (29, "client_"));
    assert!(authenticates(&test, &client, &secret).await);
    assert!(!authenticates(&test, &client, &"x".repeat(43).into()).await);
    let view = test.issuer().client_view(&Caller::Local, &client.id).await.unwrap();
    assert!(view.has_secret && view.origin == ClientOrigin::Api && view.expires_at.is_none());
    let (public, none) = test.client(AuthMethod::None).await;
    assert!(none.is_none());
    assert_ne!(public.id, client.id);
}

#[tokio::test]
async fn a_chosen_secret_is_kept_as_a_slow_hash() {
    let test = TestIssuer::new().await;
    let chosen =
        NewClient { id: Some(id("backend")), secret: Some(CHOSEN.into()), ..new(AuthMethod::ClientSecretPost) };
    let (client, shown) = test.issuer().create_client(&Caller::Local, chosen.clone()).await.unwrap();
    assert!(shown.is_none());
    assert!(matches!(&client.secret, Some(ClientSecretHash::Argon2id(phc)) if phc.starts_with("$argon2id$")));
    for _ in 0..2 {
        assert!(authenticates(&test, &client, &CHOSEN.into()).await);
        assert!(!authenticates(&test, &client, &"correct-horse-battery-stable".into()).await);
    }
    let again = test.issuer().create_client(&Caller::Local, chosen.clone()).await;
    assert!(matches!(again, Err(Error::AlreadyThere { what: "client" })), "{again:?}");
    for wrong in [
        NewClient { secret: Some("short".into()), ..new(AuthMethod::ClientSecretPost) },
        NewClient { secret: Some(CHOSEN.into()), ..new(AuthMethod::None) },
        NewClient { id: Some(id("https://app.example/client.json")), ..new(AuthMethod::None) },
        NewClient {
            resources: Some([Resource::parse("https://unknown.example").unwrap()].into()),
            ..new(AuthMethod::None)
        },
    ] {
        let refused = test.issuer().create_client(&Caller::Local, wrong).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let mut nowhere = new(AuthMethod::None);
    nowhere.metadata.redirect_uris.clear();
    assert!(matches!(test.issuer().create_client(&Caller::Local, nowhere).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_rotated_secret_takes_the_place_of_the_old_one_at_once() {
    let test = TestIssuer::new().await;
    let (client, old) = test.client(AuthMethod::ClientSecretPost).await;
    let old = old.unwrap();
    assert!(authenticates(&test, &client, &old).await);
    let fresh = test.issuer().rotate_client_secret(&Caller::Local, &client.id).await.unwrap();
    assert!(authenticates(&test, &client, &fresh).await);
    assert!(!authenticates(&test, &client, &old).await);
    let (public, _) = test.client(AuthMethod::None).await;
    assert!(matches!(test.issuer().rotate_client_secret(&Caller::Local, &public.id).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn what_changes_counts_at_once() {
    let test = TestIssuer::new().await;
    let issuer = test.issuer();
    let (client, _) = test.client(AuthMethod::None).await;
    let public = Credential::Public { client_id: client.id.to_string() };
    assert!(issuer.authenticate(public).await.is_ok());
    let other = Resource::parse(OTHER_RESOURCE).unwrap();
    let change = ChangeClient { metadata: metadata(AuthMethod::ClientSecretPost), resources: Some([other].into()) };
    let (view, secret) = issuer.update_client(&Caller::Local, &client.id, change.clone()).await.unwrap();
    assert!(view.has_secret);
    let secret = secret.expect("it had none before");
    let public = Credential::Public { client_id: client.id.to_string() };
    assert_eq!(code_of(&issuer.authenticate(public).await.unwrap_err()), "invalid_client");
    let known = issuer.authenticate(post(&client, &secret)).await.unwrap();
    let refused = issuer.token(&known, client_credentials()).await.unwrap_err();
    assert_eq!(code_of(&refused), "invalid_target");
    let (_, kept) = issuer.update_client(&Caller::Local, &client.id, change).await.unwrap();
    assert!(kept.is_none());
    assert!(authenticates(&test, &client, &secret).await);
}

#[tokio::test]
async fn those_of_the_configuration_file_are_listed_and_changed_there() {
    let mut settings = settings();
    settings.clients = vec![ConfigClient {
        id: id("file"),
        metadata: metadata(AuthMethod::ClientSecretPost),
        secret: Some(CHOSEN.into()),
        resources: None,
    }];
    let test = TestIssuer::with(settings).await;
    let issuer = test.issuer();
    for _ in 0..3 {
        test.client(AuthMethod::None).await;
    }
    let list = async |cursor, origin: Option<&str>| {
        let filter = ClientFilter { limit: 2, cursor, origin: origin.map(str::to_owned) };
        issuer.list_clients(&Caller::Local, filter).await.unwrap()
    };
    let first = list(None, None).await;
    assert_eq!((first.items.len(), first.items[0].id.as_str()), (3, "file"));
    let second = list(first.next, None).await;
    assert_eq!((second.items.len(), second.next), (1, None));
    assert_eq!(list(None, Some("config")).await.items.len(), 1);
    assert_eq!(list(None, Some("registered")).await.items.len(), 0);
    assert_eq!(issuer.client_view(&Caller::Local, &id("file")).await.unwrap().origin, ClientOrigin::Config);

    let change = ChangeClient { metadata: metadata(AuthMethod::None), resources: None };
    let by_config = |error| matches!(error, Error::ManagedByConfig { what: "client", .. });
    assert!(by_config(issuer.update_client(&Caller::Local, &id("file"), change).await.unwrap_err()));
    assert!(by_config(issuer.delete_client(&Caller::Local, &id("file")).await.unwrap_err()));
    assert!(by_config(issuer.rotate_client_secret(&Caller::Local, &id("file")).await.unwrap_err()));
    let same = NewClient { id: Some(id("file")), ..new(AuthMethod::None) };
    assert!(by_config(issuer.create_client(&Caller::Local, same).await.unwrap_err()));
}

#[tokio::test]
async fn deleting_one_ends_what_was_granted_to_it_and_to_no_other() {
    let test = TestIssuer::new().await;
    let issuer = test.issuer();
    let (client, secret) = test.client(AuthMethod::ClientSecretPost).await;
    let (other, _) = test.client(AuthMethod::None).await;
    let (_, code) = granted(&test.world, &client.id, 11).await;
    let known = issuer.authenticate(post(&client, &secret.clone().unwrap())).await.unwrap();
    let tokens = issuer.token(&known, redeem(&code)).await.unwrap();
    let own = issuer.token(&known, client_credentials()).await.unwrap();
    for seed in 12..14 {
        granted_by(&test.world, &client.id, "fake|bob", seed).await;
    }
    let (others, _) = granted(&test.world, &other.id, 20).await;
    assert!(issuer.verify(&tokens.access_token).await.is_ok());
    assert!(issuer.verify(&own.access_token).await.is_ok());

    let deleted = issuer.delete_client(&Caller::Local, &client.id).await.unwrap();
    assert_eq!(deleted.grants_revoked, 3);
    for token in [&tokens.access_token, &own.access_token] {
        assert_eq!(code_of(&issuer.verify(token).await.unwrap_err()), "invalid_token");
    }
    let refused = issuer.authenticate(post(&client, &secret.unwrap())).await.unwrap_err();
    assert_eq!(code_of(&refused), "invalid_client");
    // Whoever got hold of the client before has nothing of it either.
    let refused = issuer.token(&known, refresh(&tokens.refresh_token.unwrap())).await.unwrap_err();
    assert_eq!(code_of(&refused), "invalid_grant");
    assert_eq!(issuer.grant_view(&Caller::Local, &others).await.unwrap().status, GrantStatus::Coded);
    let again = issuer.delete_client(&Caller::Local, &client.id).await;
    assert!(matches!(again, Err(Error::NotFound { what: "client", .. })), "{again:?}");
}

#[tokio::test]
async fn an_outage_is_no_absence() {
    let test = TestIssuer::new().await;
    let (client, _) = test.client(AuthMethod::None).await;
    test.advance(Duration::from_mins(2));
    test.world.store.down.store(true, SeqCst);
    let view = test.issuer().client_view(&Caller::Local, &client.id).await;
    assert!(matches!(view, Err(Error::StoreUnavailable { .. })), "{view:?}");
    let public = Credential::Public { client_id: client.id.to_string() };
    let refused = test.issuer().authenticate(public).await.unwrap_err();
    assert_eq!(code_of(&refused), "temporarily_unavailable");
    assert!(refused.retry_after().is_some());
}

#[tokio::test]
async fn keys_without_the_right_are_refused() {
    let test = TestIssuer::new().await;
    let (client, _) = test.client(AuthMethod::None).await;
    let filter = || ClientFilter { limit: 10, ..ClientFilter::default() };
    let grants = || GrantFilter { limit: 10, ..GrantFilter::default() };
    for (role, tenant, provider, may) in [
        (Role::Operator, None, None, true),
        (Role::Operator, Some("_default"), None, true),
        (Role::Operator, Some("acme"), None, false),
        (Role::Operator, None, Some("google"), false),
        (Role::Application, None, None, false),
        (Role::Reader, None, None, false),
    ] {
        let caller = caller(&test, role, tenant, provider).await;
        let issuer = test.issuer();
        let forbidden = |error: Option<Error>| matches!(error, Some(Error::Forbidden(_)));
        let what = format!("{role:?} {tenant:?} {provider:?}");
        assert_eq!(!forbidden(issuer.list_clients(&caller, filter()).await.err()), may, "{what}");
        assert_eq!(!forbidden(issuer.client_view(&caller, &client.id).await.err()), may, "{what}");
        assert_eq!(!forbidden(issuer.create_client(&caller, new(AuthMethod::None)).await.err()), may, "{what}");
        assert_eq!(!forbidden(issuer.rotate_client_secret(&caller, &client.id).await.err()), may, "{what}");
        assert_eq!(!forbidden(issuer.list_grants(&caller, grants()).await.err()), may, "{what}");
        assert_eq!(!forbidden(issuer.revoke_client_grants(&caller, &id("none")).await.err()), may, "{what}");
        assert_eq!(!forbidden(issuer.delete_client(&caller, &id("none")).await.err()), may, "{what}");
        assert_eq!(!forbidden(issuer.purge_expired(&caller, true).await.err()), may, "{what}");
    }
}
