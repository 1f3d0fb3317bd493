//! Being let in, and staying in.

use std::time::Duration;

use tokenkeep_core::ports::{Expect, Store as _};
use tokenkeep_store::{Vault, VaultAuth, VaultOptions};
use tokenkeep_testkit::{
    ManualClock,
    vault::{Life, Policy},
};

use crate::support::{Fake, committed, entropy, own_path, record, server};

#[tokio::test]
async fn a_role_logs_in_anew_when_its_token_is_at_its_end() {
    let fake = Fake::start().await;
    let life = Life { ttl: Some(Duration::from_mins(10)), max: Duration::from_mins(30), renewable: true };
    let (role, secret) = fake.vault.app_role("", Policy::root(), life, None);
    let store = Vault::connect(fake.with_auth(VaultAuth::app_role(role, secret.as_str().into()))).await.unwrap();
    let record = record("a");
    committed(store.put(&record, Expect::Absent).await.unwrap());
    for _ in 0..20 {
        fake.clock.advance(Duration::from_mins(9));
        assert!(store.get(&record.key).await.unwrap().is_some());
    }
    // Even one that slept past everything.
    fake.clock.advance(Duration::from_hours(5));
    assert!(store.get(&record.key).await.unwrap().is_some());
    let asked = fake.vault.take_requests();
    let logins = asked.iter().filter(|request| request.path == "auth/approle/login").count();
    assert!((2..=30).contains(&logins), "{logins} logins");
}

#[tokio::test]
async fn a_role_is_let_in_by_a_real_server() {
    let vault = tokenkeep_services::running().vault;
    let role = vault.app_role("tokenkeep", 600, 3600).unwrap();
    let auth = VaultAuth::app_role(role.role_id, role.secret_id.as_str().into());
    let by_root = server(vault.address(), vault.root_token(), &ManualClock::default());
    let server = tokenkeep_store::VaultServer { auth, ..by_root };
    let store =
        Vault::connect(VaultOptions { path: own_path(), ..VaultOptions::new(server, entropy()) }).await.unwrap();
    let record = record("a");
    committed(store.put(&record, Expect::Absent).await.unwrap());
    assert!(store.get(&record.key).await.unwrap().is_some());
}

fn logins(fake: &Fake) -> usize {
    fake.vault.take_requests().iter().filter(|request| request.path == "auth/approle/login").count()
}

/// Good for ten minutes at a time, for ever.
const RENEWABLE: Life = Life { ttl: Some(Duration::from_mins(10)), max: Duration::MAX, renewable: true };

/// Uses the store for more than two hours.
async fn outlives_its_token(fake: &Fake, auth: VaultAuth) {
    let store = Vault::connect(fake.with_auth(auth)).await.unwrap();
    for _ in 0..20 {
        fake.clock.advance(Duration::from_mins(7));
        store.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let fake = Fake::start().await;
    let token = fake.vault.token("", Policy::root(), RENEWABLE);
    outlives_its_token(&fake, VaultAuth::Token(token.as_str().into())).await;
}

/// A secret id may be good for one login only: then renewal is all there is.
#[tokio::test]
async fn a_role_that_logs_in_once_lives_by_renewal() {
    let fake = Fake::start().await;
    let (role, secret) = fake.vault.app_role("", Policy::root(), RENEWABLE, Some(1));
    outlives_its_token(&fake, VaultAuth::app_role(role, secret.as_str().into())).await;
    assert_eq!(logins(&fake), 1);
}

/// One that is good for longer than it can be renewed ends, and says so; reads before that go on.
#[tokio::test]
async fn a_token_at_its_last_end_is_unavailable() {
    let fake = Fake::start().await;
    let life = Life { ttl: Some(Duration::from_mins(10)), max: Duration::from_mins(15), renewable: true };
    let token = VaultAuth::Token(fake.vault.token("", Policy::root(), life).as_str().into());
    let store = Vault::connect(fake.with_auth(token)).await.unwrap();
    for _ in 0..2 {
        fake.clock.advance(Duration::from_mins(7));
        store.ping().await.unwrap();
    }
    fake.clock.advance(Duration::from_mins(2));
    let ended = store.ping().await.unwrap_err().to_string();
    assert!(ended.contains("the Vault token has expired"), "{ended}");
}

/// As after a restart of a development server, or when somebody revokes by prefix.
#[tokio::test]
async fn a_role_whose_token_was_revoked_logs_in_anew_once() {
    let fake = Fake::start().await;
    let life = Life { ttl: Some(Duration::from_hours(1)), max: Duration::MAX, renewable: true };
    let (role, secret) = fake.vault.app_role("", Policy::root(), life, None);
    let store = Vault::connect(fake.with_auth(VaultAuth::app_role(role, secret.as_str().into()))).await.unwrap();
    fake.clock.advance(Duration::from_mins(1));
    assert_eq!(fake.vault.revoke_all(), 1);
    logins(&fake);
    committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    assert_eq!(logins(&fake), 1);
}

/// It does not hammer the server with logins that change nothing.
#[tokio::test]
async fn a_role_that_may_not_is_not_logged_in_for_each_refusal() {
    let fake = Fake::start().await;
    let all = vec!["create", "read", "update", "delete", "list"];
    let (role, secret) = fake.vault.app_role("", Policy(vec![("secret/*".into(), all)]), Life::ENDLESS, None);
    let store = Vault::connect(fake.with_auth(VaultAuth::app_role(role, secret.as_str().into()))).await.unwrap();
    fake.clock.advance(Duration::from_mins(1));
    fake.vault.fail_always(Some(tokenkeep_testkit::vault::VaultFault::Proxy(403)));
    logins(&fake);
    for _ in 0..50 {
        assert!(store.ping().await.is_err());
    }
    assert!(logins(&fake) <= 1);
}
