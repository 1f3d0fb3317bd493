//! Each way to fail is the answer it is: unavailable, conflict or in doubt, never "there is none".

use std::time::Duration;

use tokenkeep_core::ports::{Expect, Put, Store as _, StoreError};
use tokenkeep_store::{Vault, VaultAuth};
use tokenkeep_testkit::vault::{Life, Policy, VaultFault};

use crate::support::{Fake, committed, record};

fn reason<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Unavailable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_unavailable() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    let record = record("a");
    committed(store.put(&record, Expect::Absent).await.unwrap());
    for fault in [VaultFault::NotVault, VaultFault::Proxy(502), VaultFault::Proxy(404), VaultFault::Standby] {
        fake.vault.fail_always(Some(fault));
        println!("{fault:?}: {}", reason(store.get(&record.key).await));
        println!("{fault:?}: {}", reason(store.ping().await));
    }
    fake.vault.fail_always(Some(VaultFault::RateLimited(7)));
    let limited = store.get(&record.key).await;
    assert!(
        matches!(limited, Err(StoreError::Unavailable { retry_after: Some(wait), .. }) if wait == Duration::from_secs(7)),
        "{limited:?}"
    );
    fake.vault.fail_always(None);
    fake.vault.seal();
    assert!(reason(store.get(&record.key).await).contains("sealed"));
    fake.vault.unseal();
    assert!(store.get(&record.key).await.unwrap().is_some());
    fake.vault.unmount("secret");
    println!("unmounted: {}", reason(store.get(&record.key).await));
}

#[tokio::test]
async fn a_token_that_is_gone_is_no_absence() {
    let fake = Fake::start().await;
    let token = fake.vault.token("", Policy::root(), Life::ENDLESS);
    let store = Vault::connect(fake.with_auth(VaultAuth::Token(token.as_str().into()))).await.unwrap();
    let record = record("a");
    committed(store.put(&record, Expect::Absent).await.unwrap());
    fake.vault.revoke(&token);
    println!("{}", reason(store.get(&record.key).await));
    println!("{}", reason(store.put(&record, Expect::Absent).await));
}

#[tokio::test]
async fn a_lost_answer_is_in_doubt_and_a_refused_one_is_not() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    for (id, fault) in
        [("after", VaultFault::CutAfter), ("error", VaultFault::ErrorAfter), ("before", VaultFault::CutBefore)]
    {
        let record = record(id);
        fake.vault.fail_always(Some(fault));
        let put = store.put(&record, Expect::Absent).await;
        assert!(matches!(put, Ok(Put::Unknown)), "{fault:?}: {put:?}");
        fake.vault.fail_always(None);
        let is_there = store.get(&record.key).await.unwrap().is_some();
        assert_eq!(is_there, fault != VaultFault::CutBefore, "{fault:?}");
    }
    fake.vault.seal();
    println!("{}", reason(store.put(&record("sealed"), Expect::Absent).await));
    fake.vault.unseal();
    assert!(store.get(&record("sealed").key).await.unwrap().is_none());
}
