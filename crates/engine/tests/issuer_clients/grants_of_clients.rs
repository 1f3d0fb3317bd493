//! What was granted to a client, listed and taken back.

use std::time::Duration;

use tokenkeep_engine::{
    Caller, Error,
    issuer::{GrantFilter, GrantStatus},
};
use tokenkeep_oauth::issuer::{client::AuthMethod, token::Credential};

use crate::{
    common::issuer::{TestIssuer, client_credentials, granted, granted_by, post, redeem, refresh},
    support::code_of,
};

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
    assert_eq!((stats.codes, stats.grants, stats.access_tokens, stats.refresh_tokens, stats.subjects), (2, 1, 1, 1, 1));

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
