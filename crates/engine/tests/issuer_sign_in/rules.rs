//! Who may go on, and for how long.

use std::collections::BTreeSet;

use serde_json::json;
use tokenkeep_core::grant::Revoked;
use tokenkeep_engine::{
    Caller,
    issuer::{Admitted, GrantFilter, Refused},
};

use crate::{
    common::issuer::refresh,
    support::{Stage, only_grant},
};

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[tokio::test]
async fn who_is_not_admitted_leaves_nothing_behind() {
    let stage = Stage::with(|settings| settings.admitted.users = Some(set(&["fake|somebody-else", "fake-user"]))).await;
    // An OIDC name is anybody's choice: it is no way in.
    let claims = json!({"name": "fake-user", "preferred_username": "fake-user"});
    let answer = stage.sign_in("fake", claims).await.unwrap();
    assert_eq!(answer.error(), "access_denied");
    assert_eq!(stage.grants().await, 0);
    assert!(!stage.has_connection("fake/_default/fake|fake-user").await);
    assert_eq!(stage.world.provider.revocations().len(), 1, "the tokens are given back");
    // At a provider whose names are unique, a name is one.
    stage.sign_in("hub", json!({})).await.unwrap().code();
}

#[tokio::test]
async fn each_rule_lets_its_own_in() {
    let table = [
        (Admitted { users: Some(set(&["hub|fake-user"])), ..Admitted::default() }, true),
        (Admitted { users: Some(set(&[])), ..Admitted::default() }, false),
        (Admitted { email_domains: Some(set(&["fake.example"])), ..Admitted::default() }, true),
        // Verified, and yet not the account's own.
        (Admitted { email_domains: Some(set(&["elsewhere.example"])), ..Admitted::default() }, false),
        (Admitted { organizations: Some(set(&["acme"])), ..Admitted::default() }, true),
        (Admitted { organizations: Some(set(&["other"])), ..Admitted::default() }, false),
        (Admitted { organizations: Some(set(&[])), ..Admitted::default() }, false),
    ];
    for (rules, is_admitted) in table {
        let shown = format!("{rules:?}");
        let stage = Stage::with(|settings| settings.admitted = rules).await;
        stage.world.provider.configure(|config| config.organizations = vec!["acme".to_owned()]);
        let answer = stage.sign_in("hub", json!({})).await.unwrap();
        assert_eq!(answer.params.contains_key("code"), is_admitted, "{shown}");
        if !is_admitted {
            assert_eq!(answer.error(), "access_denied", "{shown}");
        }
    }
}

#[tokio::test]
async fn organizations_are_read_page_by_page_and_not_for_ever() {
    for (pages, is_admitted) in [(2, true), (10, true), (11, false)] {
        let stage = Stage::with(|settings| settings.admitted.organizations = Some(set(&["acme"]))).await;
        stage.world.provider.configure(|config| {
            config.organizations = (1..2 * pages).map(|n| n.to_string()).chain(["acme".to_owned()]).collect();
            config.organizations_per_page = 2;
        });
        let answer = stage.sign_in("hub", json!({})).await.unwrap();
        assert_eq!(answer.params.contains_key("code"), is_admitted, "{pages} pages");
    }
}

#[tokio::test]
async fn a_verified_domain_lets_in_and_an_unverified_one_does_not() {
    let stage = Stage::with(|settings| settings.admitted.email_domains = Some(set(&["example.com"]))).await;
    for (verified, is_admitted) in [(json!(false), false), (json!(null), false), (json!(true), true)] {
        let claims = json!({"email": "alice@example.com", "email_verified": verified});
        let answer = stage.sign_in("fake", claims).await.unwrap();
        assert_eq!(answer.params.contains_key("code"), is_admitted);
    }
}

#[tokio::test]
async fn what_a_rule_asks_for_is_asked_for_and_an_outage_is_no_refusal() {
    let stage = Stage::with(|settings| {
        settings.admitted.organizations = Some(set(&["acme"]));
    })
    .await;
    stage.world.provider.configure(|config| config.userinfo_down = true);
    assert_eq!(stage.sign_in("hub", json!({})).await.unwrap().error(), "temporarily_unavailable");
    assert!(stage.world.provider.revocations().is_empty());
    let url = crate::support::Browser::default().sent_upstream(&stage, &stage.asked().await, "hub").await;
    assert_eq!(crate::common::browser::params(&url)["scope"], "user orgs");
}

/// Where the account was connected before, refusing it a sign-in does not end that.
#[tokio::test]
async fn a_refusal_does_not_end_what_is_there_already() {
    let mut stage = Stage::new().await;
    stage.sign_in("fake", json!({})).await.unwrap().code();
    stage.world.issuer.as_mut().unwrap().admitted.users = Some(set(&[]));
    stage.engine = stage.world.engine(2, None).await;
    assert_eq!(stage.sign_in("fake", json!({})).await.unwrap().error(), "access_denied");
    assert!(stage.world.provider.revocations().is_empty());
    assert!(stage.has_connection("fake/_default/fake|fake-user").await);
}

#[tokio::test]
async fn who_is_taken_off_the_list_refreshes_no_more() {
    for (upstream, rules, stays) in [
        ("fake", Admitted::default(), true),
        ("fake", Admitted { users: Some(set(&["fake|fake-user"])), ..Admitted::default() }, true),
        ("fake", Admitted { users: Some(set(&["somebody"])), ..Admitted::default() }, false),
        ("fake", Admitted { users: Some(set(&["fake-user"])), ..Admitted::default() }, false),
        ("hub", Admitted { users: Some(set(&["fake-user"])), ..Admitted::default() }, true),
        ("hub", Admitted { email_domains: Some(set(&["fake.example"])), ..Admitted::default() }, true),
        ("hub", Admitted { email_domains: Some(set(&["other.example"])), ..Admitted::default() }, false),
        // Nobody can say without asking the provider.
        ("hub", Admitted { organizations: Some(set(&["other"])), ..Admitted::default() }, true),
    ] {
        let shown = format!("{upstream}, {rules:?}");
        let mut stage = Stage::new().await;
        let answer = stage.sign_in(upstream, json!({"name": "fake-user"})).await.unwrap();
        let refresh_token = stage.token(&answer.code()).await.refresh_token.unwrap();
        stage.world.issuer.as_mut().unwrap().admitted = rules;
        stage.engine = stage.world.engine(2, None).await;
        let refreshed = stage.ask_token(refresh(&refresh_token)).await;
        assert_eq!(refreshed.is_ok(), stays, "{shown}");
        if let Err(refused) = refreshed {
            assert!(matches!(&refused, Refused::Protocol(error) if error.code.as_str() == "invalid_grant"), "{shown}");
            only_grant(&stage).await;
            let filter = GrantFilter { limit: 1, ..GrantFilter::default() };
            let grant = stage.issuer().list_grants(&Caller::Local, filter).await.unwrap().items.remove(0);
            assert_eq!(grant.revoked_reason, Some(Revoked::NotAdmitted.as_str()));
        }
    }
}
