//! Who our clients are, and how they come to be, change and go.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use common::issuer::{
    OTHER_RESOURCE, TestIssuer, client_credentials, granted, granted_by, metadata, post, redeem, refresh, settings,
};
use secrecy::ExposeSecret as _;
use tokenkeep_core::{Client, ClientId, ClientOrigin, ClientSecretHash, IntegrationId, Role, Tenant};
use tokenkeep_engine::{
    Caller, Error, NewKey,
    issuer::{ChangeClient, ClientFilter, ConfigClient, GrantFilter, GrantStatus, NewClient, Refused},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{client::AuthMethod, resource::Resource, token::Credential},
};

const CHOSEN: &str = "correct-horse-battery-staple";

fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn new(method: AuthMethod) -> NewClient {
    NewClient { metadata: metadata(method), id: None, secret: None, resources: None }
}

fn code_of(refused: &Refused) -> String {
    refused.told().code.to_string()
}

async fn caller(test: &TestIssuer, role: Role, tenant: Option<&str>, provider: Option<&str>) -> Caller {
    let key = NewKey {
        name: "a test's".to_owned(),
        role,
        tenants: tenant.map(|tenant| [Tenant::new(tenant).unwrap()].into()),
        providers: provider.map(|provider| [IntegrationId::new(provider).unwrap()].into()),
    };
    Caller::Key(Arc::new(test.engine.keys().create(&Caller::Local, key).await.unwrap().0))
}

async fn authenticates(test: &TestIssuer, client: &Client, secret: &Secret) -> bool {
    test.issuer().authenticate(post(client, secret)).await.is_ok()
}

mod by_the_operator {
    use super::*;

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
}

mod grants_of_clients {
    use super::*;

    #[tokio::test]
    async fn are_listed_by_client_subject_and_token() {
        let test = TestIssuer::new().await;
        let issuer = test.issuer();
        let (one, _) = test.client(AuthMethod::None).await;
        let (two, _) = test.client(AuthMethod::None).await;
        let (first, code) = granted(&test.world, &one.id, 31).await;
        granted_by(&test.world, &one.id, "fake|bob", 32).await;
        granted(&test.world, &two.id, 33).await;
        let list = async |filter: GrantFilter| issuer.list_grants(&Caller::Local, filter).await.unwrap().items;
        let base = || GrantFilter { limit: 10, ..GrantFilter::default() };
        let alice = || Some("fake|alice".parse().unwrap());
        assert_eq!(list(base()).await.len(), 3);
        assert_eq!(list(GrantFilter { client: Some(one.id.clone()), ..base() }).await.len(), 2);
        assert_eq!(list(GrantFilter { subject: alice(), ..base() }).await.len(), 2);
        let both = GrantFilter { subject: alice(), client: Some(one.id.clone()), ..base() };
        assert_eq!(list(both).await.iter().map(|view| view.id).collect::<Vec<_>>(), [first]);

        let stats = issuer.issuer_stats(&Caller::Local).await.unwrap();
        assert_eq!((stats.clients, stats.codes, stats.grants, stats.subjects), (2, 3, 0, 0));
        let known = issuer.authenticate(Credential::Public { client_id: one.id.to_string() }).await.unwrap();
        let tokens = issuer.token(&known, redeem(&code)).await.unwrap();
        let stats = issuer.issuer_stats(&Caller::Local).await.unwrap();
        assert_eq!(
            (stats.codes, stats.grants, stats.access_tokens, stats.refresh_tokens, stats.subjects),
            (2, 1, 1, 1, 1)
        );

        let view = issuer.grant_view(&Caller::Local, &first).await.unwrap();
        assert_eq!((view.status, view.refreshable, view.access_tokens.len()), (GrantStatus::Active, true, 1));
        let jti = &view.access_tokens[0].jti;
        assert_eq!(issuer.grant_of_token(&Caller::Local, jti).await.unwrap().id, first);
        let refreshed = issuer.token(&known, refresh(&tokens.refresh_token.unwrap())).await.unwrap();
        issuer.revoke_token(&Caller::Local, jti).await.unwrap();
        assert!(matches!(issuer.revoke_token(&Caller::Local, jti).await, Err(Error::NotFound { .. })));
        assert!(issuer.verify(&tokens.access_token).await.is_err());
        assert!(issuer.verify(&refreshed.access_token).await.is_ok());

        assert_eq!(issuer.revoke_subject(&Caller::Local, &"fake|alice".parse().unwrap()).await.unwrap(), 2);
        assert!(issuer.verify(&refreshed.access_token).await.is_err());
        let view = issuer.grant_view(&Caller::Local, &first).await.unwrap();
        assert_eq!((view.status, view.revoked_reason), (GrantStatus::Revoked, Some("asked")));
        assert_eq!(issuer.revoke_client_grants(&Caller::Local, &one.id).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_token_without_a_grant_is_revoked_by_its_name() {
        let test = TestIssuer::new().await;
        let issuer = test.issuer();
        let (client, secret) = test.client(AuthMethod::ClientSecretPost).await;
        let known = issuer.authenticate(post(&client, &secret.unwrap())).await.unwrap();
        let token = issuer.token(&known, client_credentials()).await.unwrap().access_token;
        let jti = issuer.verify(&token).await.unwrap().claims.jti.clone();
        issuer.revoke_token(&Caller::Local, &jti).await.unwrap();
        assert_eq!(code_of(&issuer.verify(&token).await.unwrap_err()), "invalid_token");
        let nonsense = issuer.revoke_token(&Caller::Local, "nonsense").await;
        assert!(matches!(nonsense, Err(Error::NotFound { what: "access token", .. })), "{nonsense:?}");
    }

    #[tokio::test]
    async fn what_expired_is_counted_first_and_then_removed() {
        let test = TestIssuer::new().await;
        let issuer = test.issuer();
        let (client, _) = test.client(AuthMethod::None).await;
        let (grant, _) = granted(&test.world, &client.id, 41).await;
        let none = issuer.purge_expired(&Caller::Local, true).await.unwrap();
        assert_eq!((none.grants, none.removed), (0, 0));
        test.advance(Duration::from_hours(25));
        let dry = issuer.purge_expired(&Caller::Local, true).await.unwrap();
        assert_eq!((dry.grants, dry.clients, dry.removed), (1, 0, 0));
        assert_eq!(issuer.grant_view(&Caller::Local, &grant).await.unwrap().status, GrantStatus::Expired);
        assert!(issuer.purge_expired(&Caller::Local, false).await.unwrap().removed >= 1);
        let gone = issuer.grant_view(&Caller::Local, &grant).await;
        assert!(matches!(gone, Err(Error::NotFound { what: "grant", .. })), "{gone:?}");
    }
}

mod by_itself {
    use tokenkeep_core::client::{UNUSED_LIFE, USED_LIFE};
    use tokenkeep_engine::issuer::{IssuerSettings, ManagementRefused, Registered, Registration};

    use super::*;

    const PUBLIC: &str = r#"{"client_name":"CLI","redirect_uris":["http://127.0.0.1:51004/cb"],
        "grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"none","scope":"read"}"#;
    const CONFIDENTIAL: &str = r#"{"redirect_uris":["https://app.example.com/callback"],
        "grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"client_secret_post"}"#;

    async fn register(test: &TestIssuer, body: &str) -> Result<Registered, Refused> {
        test.issuer().register(body.as_bytes(), None).await
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
        let there = elsewhere.issuer().unwrap().register(PUBLIC.as_bytes(), None).await.unwrap();
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
            let refused = test.issuer().register(own.as_bytes(), token.map(Secret::from).as_ref()).await.unwrap_err();
            assert_eq!(code_of(&refused), code);
        }
        assert!(test.issuer().register(own.as_bytes(), Some(&"sesame".into())).await.is_ok());

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
}

/// Clients whose id is the address of a document, and keys that stand at one.
mod published {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};
    use tokenkeep_core::Rotation;
    use tokenkeep_engine::issuer::IssuerSettings;
    use tokenkeep_oauth::issuer::jws::{Algorithm, TokenKey};

    use super::*;
    use crate::common::{World, issuer::ISSUER, now};
    use tokenkeep_engine::transport::TransportOptions;
    use tokenkeep_testkit::Site;

    /// An issuer that may fetch from `localhost`, and the site there.
    async fn stage() -> (TestIssuer, Site) {
        let settings = IssuerSettings { document_hosts: ["localhost".to_owned()].into(), ..settings() };
        with_site(settings).await
    }

    async fn with_site(settings: IssuerSettings) -> (TestIssuer, Site) {
        let mut world = World::new(Rotation::Strict).await;
        world.clock.set_wall("2030-01-01T00:00:00Z".parse().unwrap());
        world.issuer = Some(settings);
        world.transport = TransportOptions { extra_ca_file: Some(Site::ca_file()), ..TransportOptions::default() };
        let engine = world.engine(1, None).await;
        (TestIssuer { world, engine }, Site::start().await)
    }

    fn document(url: &str, more: &Value) -> String {
        let mut document = json!({"client_id": url, "client_name": "App",
            "redirect_uris": ["https://app.example.com/callback"],
            "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none"});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document.to_string()
    }

    async fn authenticate(test: &TestIssuer, url: &str) -> Result<Arc<Client>, Refused> {
        test.issuer().authenticate(Credential::Public { client_id: url.to_owned() }).await
    }

    #[tokio::test]
    async fn a_document_is_kept_as_long_as_it_says() {
        let (test, site) = stage().await;
        let url = site.url("/client.json");
        site.publish("/client.json", "max-age=600", &document(&url, &json!({})));
        let client = authenticate(&test, &url).await.unwrap();
        assert_eq!((client.id.as_str(), &client.origin), (url.as_str(), &ClientOrigin::Document));
        assert_eq!(client.metadata.client_name.as_deref(), Some("App"));
        test.advance(Duration::from_secs(599));
        authenticate(&test, &url).await.unwrap();
        assert_eq!(site.asked(), 1);
        test.advance(Duration::from_secs(1));
        site.publish("/client.json", "no-store", &document(&url, &json!({"client_name": "New"})));
        for _ in 0..2 {
            assert_eq!(authenticate(&test, &url).await.unwrap().metadata.client_name.as_deref(), Some("New"));
        }
        assert_eq!(site.asked(), 2);
    }

    #[tokio::test]
    async fn those_who_want_the_same_document_at_once_share_one_fetch() {
        let (test, site) = stage().await;
        let url = site.url("/client.json");
        site.publish("/client.json", "max-age=600", &document(&url, &json!({})));
        let closed = site.gate.write().await;
        let mut all = Vec::new();
        for _ in 0..20 {
            let (issuer, client_id) = (test.issuer().clone(), url.clone());
            all.push(tokio::spawn(async move { issuer.authenticate(Credential::Public { client_id }).await.is_ok() }));
        }
        site.is_asked().await;
        drop(closed);
        for one in all {
            assert!(one.await.unwrap());
        }
        assert_eq!(site.asked(), 1);
    }

    #[tokio::test]
    async fn what_is_of_no_use_is_an_answer_and_is_not_kept() {
        let (test, site) = stage().await;
        let url = site.url("/client.json");
        let other = document(&site.url("/other.json"), &json!({}));
        let long = format!("{}{}", document(&url, &json!({})), " ".repeat(5 * 1024));
        let json = "content-type: application/json";
        for (status, head, body) in [
            ("404 Not Found", json, String::new()),
            ("302 Found", "location: /real.json\r\ncontent-type: application/json", String::new()),
            ("200 OK", "content-type: text/html", document(&url, &json!({}))),
            ("200 OK", json, "{".to_owned()),
            ("200 OK", json, other),
            ("200 OK", json, long),
            ("200 OK", json, document(&url, &json!({"client_secret": "everybody's"}))),
            ("200 OK", json, document(&url, &json!({"token_endpoint_auth_method": "client_secret_post"}))),
            ("200 OK", json, document(&url, &json!({"grant_types": ["client_credentials"]}))),
        ] {
            site.answer_with("/client.json", status, head, &body);
            site.publish("/real.json", "max-age=600", &document(&url, &json!({})));
            let refused = authenticate(&test, &url).await.unwrap_err();
            assert_eq!(code_of(&refused), "invalid_client", "{status} {body}");
            assert_eq!(site.asked(), 1, "{status} {body}");
        }
        for status in ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"] {
            site.answer_with("/client.json", status, json, "");
            let refused = authenticate(&test, &url).await.unwrap_err();
            assert_eq!(code_of(&refused), "temporarily_unavailable", "{status}");
            assert!(refused.retry_after().is_some());
        }
        site.publish("/client.json", "max-age=600", &document(&url, &json!({})));
        assert!(authenticate(&test, &url).await.is_ok());
    }

    #[tokio::test]
    async fn a_fetch_that_takes_too_long_is_given_up() {
        let (test, site) = stage().await;
        let url = site.url("/client.json");
        let _closed = site.gate.write().await;
        let (issuer, client_id) = (test.issuer().clone(), url.clone());
        let waiting = tokio::spawn(async move { issuer.authenticate(Credential::Public { client_id }).await });
        site.is_asked().await;
        test.advance(Duration::from_secs(5));
        assert_eq!(code_of(&waiting.await.unwrap().unwrap_err()), "temporarily_unavailable");
    }

    #[tokio::test]
    async fn nobody_makes_this_server_knock_at_its_own_doors() {
        let (test, site) = with_site(settings()).await;
        let own = site.url("/client.json");
        site.publish("/client.json", "max-age=600", &document(&own, &json!({})));
        let port = own.rsplit(':').next().unwrap().split('/').next().unwrap();
        let hosts = ["localhost", "127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "10.0.0.1"];
        for host in hosts {
            let url = format!("https://{host}:{port}/client.json");
            let refused = authenticate(&test, &url).await.unwrap_err();
            assert_eq!(code_of(&refused), "invalid_client", "{url}");
            assert!(!refused.told().to_json().contains(host), "{url}");
        }
        assert_eq!(site.asked(), 0);
    }

    struct Signer {
        pkcs8: zeroize::Zeroizing<Vec<u8>>,
        jwk: Value,
    }

    fn signer() -> Signer {
        let pkcs8 = TokenKey::generate(Algorithm::Es256, &[0; 32]).unwrap();
        let jwk = TokenKey::from_stored(Algorithm::Es256, &pkcs8).unwrap().public_jwk().unwrap();
        Signer { pkcs8, jwk }
    }

    impl Signer {
        fn assertion(&self, test: &TestIssuer, client: &str, jti: &str) -> Credential {
            let now = now(&test.world).as_second();
            let claims = json!({"iss": client, "sub": client, "aud": ISSUER, "jti": jti, "iat": now, "exp": now + 60});
            let kid = self.jwk["kid"].as_str().map(str::to_owned);
            let header = Header { kid, ..Header::new(jsonwebtoken::Algorithm::ES256) };
            let key = EncodingKey::from_ec_der(&self.pkcs8);
            let assertion = jsonwebtoken::encode(&header, &claims, &key).unwrap().into();
            Credential::Assertion { client_id: Some(client.to_owned()), assertion }
        }
    }

    #[tokio::test]
    async fn keys_are_fetched_again_for_one_that_is_not_among_them_but_not_at_once() {
        let (test, site) = stage().await;
        let (issuer, url) = (test.issuer(), site.url("/client.json"));
        let more = json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": site.url("/jwks.json"),
            "grant_types": ["authorization_code", "client_credentials"]});
        site.publish("/client.json", "max-age=86400", &document(&url, &more));
        let (old, new) = (signer(), signer());
        let publish = |signer: &Signer| {
            site.publish("/jwks.json", "max-age=86400", &json!({"keys": [signer.jwk]}).to_string());
        };
        publish(&old);
        let client = issuer.authenticate(old.assertion(&test, &url, "1")).await.unwrap();
        assert_eq!(site.asked(), 2);
        // Whoever published it vouches for itself only.
        let refused = issuer.token(&client, client_credentials()).await.unwrap_err();
        assert_eq!(code_of(&refused), "unauthorized_client");
        let replayed = issuer.authenticate(old.assertion(&test, &url, "1")).await.unwrap_err();
        assert_eq!(code_of(&replayed), "invalid_client");

        publish(&new);
        assert!(issuer.authenticate(new.assertion(&test, &url, "2")).await.is_err());
        assert_eq!(site.asked(), 0);
        test.advance(Duration::from_secs(30));
        assert!(issuer.authenticate(new.assertion(&test, &url, "3")).await.is_ok());
        assert!(issuer.authenticate(old.assertion(&test, &url, "4")).await.is_err());
        assert_eq!(site.asked(), 1);
    }

    #[tokio::test]
    async fn keys_are_not_fetched_from_where_documents_are_not() {
        let (test, site) = with_site(settings()).await;
        let issuer = test.issuer();
        let mut metadata = metadata(AuthMethod::PrivateKeyJwt);
        metadata.jwks_uri = Some(site.url("/jwks.json").parse().unwrap());
        let signer = signer();
        site.publish("/jwks.json", "max-age=600", &json!({"keys": [signer.jwk]}).to_string());
        let body = serde_json::to_vec(&metadata).unwrap();
        let client = issuer.register(&body, None).await.unwrap().client;
        let refused = issuer.authenticate(signer.assertion(&test, client.id.as_str(), "1")).await.unwrap_err();
        assert_eq!((code_of(&refused).as_str(), site.asked()), ("invalid_client", 0));
    }
}
