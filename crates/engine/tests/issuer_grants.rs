//! What grants lead to, what it is worth, and how it is taken back.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{
    World,
    issuer::{
        OTHER_RESOURCE, RESOURCE, TestIssuer, client_credentials, granted, make_client, post, redeem, refresh, settings,
    },
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokenkeep_core::{Client, ClientId, Rotation};
use tokenkeep_engine::{
    Caller,
    issuer::{GrantStatus, Issuer, Refused},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::AuthMethod,
        resource::Resource,
        scope::ScopeSet,
        token::{TokenReply, TokenRequest},
    },
};
use tokenkeep_testkit::MemoryBus;

fn code_of<T>(answer: Result<T, Refused>) -> String {
    answer.map_or_else(|refused| refused.told().code.to_string(), |_| "none".to_owned())
}

async fn known(issuer: &Issuer) -> Arc<Client> {
    let (client, secret) = make_client(issuer, AuthMethod::ClientSecretPost).await;
    issuer.authenticate(post(&client, &secret.unwrap())).await.unwrap()
}

/// A client, and what alice's code brought it.
async fn signed_in(test: &TestIssuer, seed: u64) -> (Arc<Client>, TokenReply) {
    let client = known(test.issuer()).await;
    let (_, code) = granted(&test.world, &client.id, seed).await;
    let reply = test.issuer().token(&client, redeem(&code)).await.unwrap();
    (client, reply)
}

async fn introspect(issuer: &Issuer, client: &Client, token: &Secret) -> Value {
    serde_json::from_slice(&issuer.introspect(client, token).await.unwrap()).unwrap()
}

mod codes {
    use super::*;

    #[tokio::test]
    async fn a_failed_check_leaves_the_code_as_it_was() {
        let test = TestIssuer::new().await;
        let issuer = test.issuer();
        let client = known(issuer).await;
        let other = known(issuer).await;
        let (grant, code) = granted(&test.world, &client.id, 1).await;
        let request =
            |verifier: Option<&str>, redirect_uri: &str, resource: Option<&str>| TokenRequest::AuthorizationCode {
                code: code.clone(),
                redirect_uri: Some(redirect_uri.to_owned()),
                verifier: verifier.map(Secret::from),
                resource: resource.map(|url| Resource::parse(url).unwrap()),
            };
        let (right, to) = (Some(common::issuer::VERIFIER), common::issuer::REDIRECT);
        assert_eq!(code_of(issuer.token(&other, request(right, to, None)).await), "invalid_grant");
        for (wrong, expected) in [
            (request(None, to, None), "invalid_grant"),
            (request(Some(&"x".repeat(43)), to, None), "invalid_grant"),
            (request(right, "https://app.example.com/other", None), "invalid_grant"),
            (request(right, to, Some(OTHER_RESOURCE)), "invalid_target"),
        ] {
            assert_eq!(code_of(issuer.token(&client, wrong).await), expected);
        }
        assert_eq!(issuer.grant_view(&Caller::Local, &grant).await.unwrap().status, GrantStatus::Coded);
        assert!(issuer.token(&client, request(right, to, Some(RESOURCE))).await.is_ok());
    }

    #[tokio::test]
    async fn a_second_use_takes_back_what_the_first_one_got() {
        let test = TestIssuer::new().await;
        let issuer = test.issuer();
        let client = known(issuer).await;
        let (grant, code) = granted(&test.world, &client.id, 1).await;
        let reply = issuer.token(&client, redeem(&code)).await.unwrap();
        assert!(issuer.verify(&reply.access_token).await.is_ok());
        assert_eq!(code_of(issuer.token(&client, redeem(&code)).await), "invalid_grant");
        assert_eq!(code_of(issuer.verify(&reply.access_token).await), "invalid_token");
        let refused = issuer.token(&client, refresh(&reply.refresh_token.unwrap())).await;
        assert_eq!(code_of(refused), "invalid_grant");
        let view = issuer.grant_view(&Caller::Local, &grant).await.unwrap();
        assert_eq!(view.revoked_reason, Some("code_replayed"));
    }

    #[tokio::test]
    async fn a_code_is_good_for_a_minute() {
        let test = TestIssuer::new().await;
        let client = known(test.issuer()).await;
        let (_, code) = granted(&test.world, &client.id, 1).await;
        test.advance(Duration::from_mins(1));
        assert_eq!(code_of(test.issuer().token(&client, redeem(&code)).await), "invalid_grant");
    }
}

mod refreshing {
    use super::*;

    #[tokio::test]
    async fn a_reply_that_was_lost_is_recovered_days_later_and_a_replay_ends_the_family() {
        let test = TestIssuer::new().await;
        let issuer = test.issuer();
        let (client, reply) = signed_in(&test, 1).await;
        let first = reply.refresh_token.unwrap();
        let second = issuer.token(&client, refresh(&first)).await.unwrap().refresh_token.unwrap();
        test.advance(Duration::from_hours(4 * 24));
        let again = issuer.token(&client, refresh(&first)).await.unwrap().refresh_token.unwrap();
        assert_eq!(again.expose_secret(), second.expose_secret());

        let third = issuer.token(&client, refresh(&second)).await.unwrap();
        test.advance(Duration::from_secs(29));
        assert!(issuer.token(&client, refresh(&first)).await.is_ok());
        test.advance(Duration::from_secs(1));
        assert!(issuer.verify(&third.access_token).await.is_ok());
        assert_eq!(code_of(issuer.token(&client, refresh(&first)).await), "invalid_grant");
        assert_eq!(code_of(issuer.verify(&third.access_token).await), "invalid_token");
        assert_eq!(code_of(issuer.token(&client, refresh(&third.refresh_token.unwrap())).await), "invalid_grant");
    }

    #[tokio::test]
    async fn a_request_may_narrow_and_never_widen() {
        let test = TestIssuer::new().await;
        let issuer = test.issuer();
        let (client, reply) = signed_in(&test, 1).await;
        let mut token = reply.refresh_token.unwrap();
        let ask = |token: &Secret, scope: &str, resource: Option<&str>| TokenRequest::RefreshToken {
            refresh_token: token.clone(),
            scope: Some(ScopeSet::parse(scope).unwrap()),
            resource: resource.map(|url| Resource::parse(url).unwrap()),
        };
        for (scope, resource, expected) in
            [("read admin", None, "invalid_scope"), ("read", Some(OTHER_RESOURCE), "invalid_target")]
        {
            assert_eq!(code_of(issuer.token(&client, ask(&token, scope, resource)).await), expected);
        }
        let narrowed = issuer.token(&client, ask(&token, "read", Some(RESOURCE))).await.unwrap();
        assert_eq!(narrowed.scope.unwrap(), "read");
        token = narrowed.refresh_token.unwrap();
        assert_eq!(issuer.token(&client, refresh(&token)).await.unwrap().scope.unwrap(), "read write");
        let other = known(issuer).await;
        assert_eq!(code_of(issuer.token(&other, refresh(&token)).await), "invalid_grant");
    }
}

#[tokio::test]
async fn client_credentials_are_for_clients_that_prove_themselves() {
    let test = TestIssuer::new().await;
    let issuer = test.issuer();
    let client = known(issuer).await;
    let reply = issuer.token(&client, client_credentials()).await.unwrap();
    assert!(reply.refresh_token.is_none());
    let verified = issuer.verify(&reply.access_token).await.unwrap();
    assert_eq!((verified.claims.subject.as_str(), verified.grant), (client.id.as_str(), None));
    assert_eq!(verified.claims.audience.as_str(), RESOURCE);
    let ask = |resource: Option<&str>, scope: &str| TokenRequest::ClientCredentials {
        scope: Some(ScopeSet::parse(scope).unwrap()),
        resource: resource.map(|url| Resource::parse(url).unwrap()),
    };
    for (resource, scope, expected) in [
        (None, "read", "invalid_target"),
        (Some("https://unknown.example"), "read", "invalid_target"),
        (Some(RESOURCE), "admin", "invalid_scope"),
    ] {
        assert_eq!(code_of(issuer.token(&client, ask(resource, scope)).await), expected);
    }
    let (public, _) = make_client(issuer, AuthMethod::None).await;
    assert_eq!(code_of(issuer.token(&Arc::new(public), client_credentials()).await), "unauthorized_client");
}

#[tokio::test]
async fn a_token_is_described_to_its_client_and_to_its_resource() {
    let mut settings = settings();
    settings.resources[0].introspectors = [ClientId::new("mcp").unwrap()].into();
    let test = TestIssuer::with(settings).await;
    let issuer = test.issuer();
    let (client, reply) = signed_in(&test, 1).await;
    let other = known(issuer).await;
    let resource = Client { id: ClientId::new("mcp").unwrap(), ..Client::clone(&other) };
    let refresh_token = reply.refresh_token.unwrap();
    for (who, access, refresh) in [(&*client, true, true), (&*other, false, false), (&resource, true, false)] {
        assert_eq!(introspect(issuer, who, &reply.access_token).await["active"], access, "{}", who.id);
        assert_eq!(introspect(issuer, who, &refresh_token).await["active"], refresh, "{}", who.id);
    }
    let told = introspect(issuer, &client, &reply.access_token).await;
    assert_eq!((&told["sub"], &told["aud"]), (&"fake|alice".into(), &RESOURCE.into()));
    assert_eq!(introspect(issuer, &client, &"nonsense".into()).await, serde_json::json!({"active": false}));

    // Another client's revocation changes nothing, and is no error.
    issuer.revoke(&other, &reply.access_token).await.unwrap();
    issuer.revoke(&other, &refresh_token).await.unwrap();
    issuer.revoke(&other, &"nonsense".into()).await.unwrap();
    assert!(issuer.verify(&reply.access_token).await.is_ok());
    issuer.revoke(&client, &refresh_token).await.unwrap();
    for token in [&reply.access_token, &refresh_token] {
        assert_eq!(introspect(issuer, &client, token).await["active"], false);
    }
}

#[tokio::test]
async fn an_outage_says_nothing_about_tokens() {
    let test = TestIssuer::new().await;
    let issuer = test.issuer();
    let (client, reply) = signed_in(&test, 1).await;
    let refresh_token = reply.refresh_token.unwrap();
    issuer.verify(&reply.access_token).await.unwrap();
    test.world.store.down.store(true, SeqCst);
    // What was verified a moment ago counts for a moment.
    assert!(issuer.verify(&reply.access_token).await.is_ok());
    assert!(issuer.verified(reply.access_token.expose_secret()).is_some());
    test.advance(Duration::from_secs(5));
    let down = "temporarily_unavailable";
    assert_eq!(code_of(issuer.verify(&reply.access_token).await), down);
    assert_eq!(code_of(issuer.introspect(&client, &reply.access_token).await), down);
    assert_eq!(code_of(issuer.introspect(&client, &refresh_token).await), down);
    assert_eq!(code_of(issuer.revoke(&client, &reply.access_token).await), down);
    assert_eq!(code_of(issuer.revoke(&client, &refresh_token).await), down);
    assert_eq!(code_of(issuer.token(&client, refresh(&refresh_token)).await), down);
    let refused = issuer.token(&client, refresh(&refresh_token)).await.unwrap_err();
    assert!(refused.retry_after().is_some());
    test.world.store.down.store(false, SeqCst);
    assert!(issuer.verify(&reply.access_token).await.is_ok());
    assert!(issuer.token(&client, refresh(&refresh_token)).await.is_ok());
}

#[tokio::test]
async fn what_is_taken_back_on_one_instance_is_forgotten_by_the_others() {
    let mut world = World::new(Rotation::Strict).await;
    let bus = MemoryBus::default();
    world.issuer = Some(settings());
    world.bus = Some(bus.attached());
    let one = world.engine(1, None).await;
    world.bus = Some(bus.attached());
    let two = world.engine(2, None).await;
    let (here, there) = (one.issuer().unwrap(), two.issuer().unwrap());
    let client = known(here).await;
    // Both listen by then.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    for seed in 1..=3 {
        let token = if seed == 3 {
            here.token(&client, client_credentials()).await.unwrap()
        } else {
            let (_, code) = granted(&world, &client.id, seed).await;
            here.token(&client, redeem(&code)).await.unwrap()
        };
        let access_token = token.access_token;
        there.verify(&access_token).await.unwrap();
        assert!(there.verified(access_token.expose_secret()).is_some());
        let given_back = if seed == 1 { token.refresh_token.unwrap() } else { access_token.clone() };
        here.revoke(&client, &given_back).await.unwrap();
        assert!(here.verified(access_token.expose_secret()).is_none());
        let heard = async {
            // No time passes: only the bus can tell.
            while there.verified(access_token.expose_secret()).is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the other instance never heard of it");
        assert_eq!(code_of(there.verify(&access_token).await), "invalid_token");
    }
}
