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
