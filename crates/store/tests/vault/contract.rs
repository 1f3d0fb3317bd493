//! What is kept in Vault, how often it is asked, and what it must allow.

use std::time::Duration;

use serde_json::{Value, json};
use tokenkeep_core::ports::{Expect, Kind, Put, Reach, Record, RecordKey, Store as _, StoreError, Version};
use tokenkeep_store::{KvVersion, Vault, VaultAuth, VaultOptions, vault::OpenError};
use tokenkeep_testkit::{
    FakeVault,
    vault::{Life, Policy, VaultFault},
};

use crate::support::{Fake, committed, entropy, record, server};

const SECRET: &str = "tokenkeep/connection/=5Fdefault/a";

fn operate(vault: &FakeVault, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = vault.operate(method, path, body);
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    answer
}

fn metadata(vault: &FakeVault) -> Value {
    operate(vault, "GET", &format!("secret/metadata/{SECRET}"), &Value::Null)["data"].take()
}

fn asked(vault: &FakeVault) -> Vec<String> {
    vault.take_requests().into_iter().map(|request| format!("{} {}", request.method, request.path)).collect()
}

/// With an expectation of this version.
async fn again(store: &Vault, version: &Version) -> Version {
    committed(store.put(&record("a"), Expect::Version(version)).await.unwrap())
}

#[tokio::test]
async fn a_read_and_a_creation_are_one_request_each() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    fake.vault.take_requests();
    let version = committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    assert_eq!(asked(&fake.vault), [format!("POST secret/data/{SECRET}")]);
    store.get(&record("a").key).await.unwrap().unwrap();
    assert_eq!(asked(&fake.vault), [format!("GET secret/data/{SECRET}")]);
    let version = again(&store, &version).await;
    assert_eq!(asked(&fake.vault).len(), 3, "the second write also says how many versions to keep");
    again(&store, &version).await;
    assert_eq!(asked(&fake.vault).len(), 2);
}

#[tokio::test]
async fn what_was_replaced_is_not_kept() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    let mut version = committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    for _ in 0..3 {
        version = again(&store, &version).await;
    }
    let kept = metadata(&fake.vault)["versions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(kept, ["4"]);
}

/// `vault kv delete`, `vault kv undelete`, `vault kv destroy`: an operator's word counts, and can be taken back.
#[tokio::test]
async fn what_an_operator_deletes_is_absent_and_can_come_back() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    let key = record("a").key;
    let version = committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    operate(&fake.vault, "DELETE", &format!("secret/data/{SECRET}"), &Value::Null);
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(store.put(&record("a"), Expect::Version(&version)).await.unwrap(), Put::Conflict);

    operate(&fake.vault, "POST", &format!("secret/undelete/{SECRET}"), &json!({"versions": [1]}));
    assert_eq!(store.get(&key).await.unwrap().unwrap().version, version);

    operate(&fake.vault, "POST", &format!("secret/destroy/{SECRET}"), &json!({"versions": [1]}));
    assert_eq!(store.get(&key).await.unwrap(), None);
    // Vault goes on counting, and so do we.
    committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    assert_eq!(metadata(&fake.vault)["current_version"], 2);
}

/// Vault's number starts again, and so cannot be what a writer goes by.
#[tokio::test]
async fn the_version_of_an_earlier_life_is_of_no_use() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    let old = committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    operate(&fake.vault, "DELETE", &format!("secret/metadata/{SECRET}"), &Value::Null);
    let new = committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    assert_eq!(metadata(&fake.vault)["current_version"], 1, "the same number as in the earlier life");
    assert_eq!(store.put(&record("a"), Expect::Version(&old)).await.unwrap(), Put::Conflict);
    again(&store, &new).await;
}

#[tokio::test]
async fn a_mount_that_demands_check_and_set_is_served() {
    let fake = Fake::start().await;
    operate(&fake.vault, "POST", "secret/config", &json!({"cas_required": true}));
    let store = fake.store().await;
    let version = committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    again(&store, &version).await;
}

/// A mark that has rested is removed for good; one that has not is written over.
#[tokio::test]
async fn a_sweep_leaves_nothing_in_the_end() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    let at = |minute: i64| jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_mins(minute);
    let expired = Record { expires_at: Some(at(0)), ..record("a") };
    committed(store.put(&expired, Expect::Absent).await.unwrap());
    assert_eq!(store.sweep(at(0)).await.unwrap(), 1);
    assert_eq!(store.get(&expired.key).await.unwrap(), None);
    let body = operate(&fake.vault, "GET", &format!("secret/data/{SECRET}"), &Value::Null);
    assert_eq!(body["data"]["data"]["state"], "swept");

    // Created anew in time, it stays.
    committed(store.put(&expired, Expect::Absent).await.unwrap());
    assert_eq!(metadata(&fake.vault)["current_version"], 3);
    assert_eq!(store.sweep(at(10)).await.unwrap(), 1);
    assert_eq!(store.sweep(at(14)).await.unwrap(), 0);
    metadata(&fake.vault);
    assert_eq!(store.sweep(at(15)).await.unwrap(), 0);
    assert_eq!(fake.vault.operate("GET", &format!("secret/metadata/{SECRET}"), &Value::Null).0, 404);
}

/// Whoever doomed it may still be about to remove it: nobody writes there before that is over.
#[tokio::test]
async fn what_is_doomed_is_left_alone_until_it_is_removed() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    let at = |minute: i64| jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_mins(minute);
    let expired = Record { expires_at: Some(at(0)), ..record("a") };
    committed(store.put(&expired, Expect::Absent).await.unwrap());
    store.sweep(at(0)).await.unwrap();
    fake.vault.fail_next(Some("DELETE"), VaultFault::CutBefore);
    assert!(matches!(store.sweep(at(5)).await, Err(StoreError::Unavailable { .. })));

    assert_eq!(store.get(&expired.key).await.unwrap(), None);
    let created = store.put(&expired, Expect::Absent).await;
    assert!(matches!(created, Err(StoreError::Unavailable { .. })), "{created:?}");
    assert_eq!(store.put(&expired, Expect::Version(&Version::default())).await.unwrap(), Put::Conflict);
    assert_eq!(store.sweep(at(9)).await.unwrap(), 0);
    assert!(store.put(&expired, Expect::Absent).await.is_err(), "it has not rested long enough to be taken over");
    store.sweep(at(10)).await.unwrap();
    committed(store.put(&expired, Expect::Absent).await.unwrap());
}

#[tokio::test]
async fn what_is_not_ours_is_no_record() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    operate(&fake.vault, "POST", &format!("secret/data/{SECRET}"), &json!({"data": {"password": "x"}}));
    let foreign = store.get(&record("a").key).await;
    assert!(matches!(foreign, Err(StoreError::Corrupt { .. })), "{foreign:?}");
    assert!(store.put(&record("a"), Expect::Absent).await.is_err());

    // Nor is one of ours that somebody copied elsewhere.
    committed(store.put(&record("b"), Expect::Absent).await.unwrap());
    let b = operate(&fake.vault, "GET", "secret/data/tokenkeep/connection/=5Fdefault/b", &Value::Null);
    let copy = json!({"data": b["data"]["data"]});
    operate(&fake.vault, "POST", "secret/data/tokenkeep/connection/=5Fdefault/c", &copy);
    let moved = store.get(&record("c").key).await;
    assert!(matches!(moved, Err(StoreError::Corrupt { .. })), "{moved:?}");
}

#[tokio::test]
async fn a_namespace_has_mounts_and_logins_of_its_own() {
    let fake = Fake::start().await;
    fake.vault.mount_kv2("team", "kv/two");
    let (role, secret) = fake.vault.app_role("team", Policy::root(), Life::ENDLESS, None);
    let mut options = fake.with_auth(VaultAuth::app_role(role, secret.as_str().into()));
    options.server.namespace = Some("team".into());
    options.mount = "/kv/two/".into();
    let store = Vault::connect(options).await.unwrap();
    committed(store.put(&record("a"), Expect::Absent).await.unwrap());
    for request in fake.vault.take_requests() {
        let wanted = if request.path == "sys/seal-status" { "" } else { "team" };
        assert_eq!(request.namespace, wanted, "{request:?}");
    }
    assert_eq!(fake.vault.operate("GET", &format!("secret/data/{SECRET}"), &Value::Null).0, 404);
    assert!(store.describe().location.contains("kv/two/tokenkeep (KV version 2)"));
    assert_eq!(store.describe().reach, Reach::Network);
}

#[tokio::test]
async fn the_documented_policy_suffices_and_nothing_less() {
    let fake = Fake::start().await;
    let documented = [
        ("secret/data/tokenkeep/*", vec!["create", "read", "update"]),
        ("secret/metadata/tokenkeep/*", vec!["update", "delete", "list"]),
        ("secret/metadata/tokenkeep", vec!["list"]),
    ];
    let connect = async |without: Option<(usize, &str)>| {
        let mut rules = documented.clone();
        if let Some((rule, capability)) = without {
            rules[rule].1.retain(|c| *c != capability);
        }
        let rules = rules.map(|(path, capabilities)| (path.to_owned(), capabilities)).to_vec();
        let token = fake.vault.token("", Policy(rules), Life::ENDLESS);
        Vault::connect(fake.with_auth(VaultAuth::Token(token.as_str().into()))).await
    };
    let store = connect(None).await.unwrap();
    let expired = Record { expires_at: Some(jiff::Timestamp::UNIX_EPOCH), ..record("a") };
    let version = committed(store.put(&expired, Expect::Absent).await.unwrap());
    committed(store.put(&expired, Expect::Version(&version)).await.unwrap());
    assert_eq!(store.sweep(jiff::Timestamp::UNIX_EPOCH).await.unwrap(), 1);
    store.sweep(jiff::Timestamp::MAX).await.unwrap();
    store.ping().await.unwrap();

    for (rule, missing) in [(0, "create"), (0, "read"), (0, "update"), (1, "update"), (1, "delete"), (1, "list")] {
        let refused = connect(Some((rule, missing))).await.unwrap_err();
        println!("{refused}");
        let names_it = matches!(&refused, OpenError::MissingCapability { missing: named, .. } if named == missing);
        assert!(names_it, "without {missing}: {refused:?}");
    }
}

#[tokio::test]
async fn the_engine_is_tried_where_it_cannot_be_asked_for() {
    let fake = Fake::start().await;
    fake.vault.keep_mounts_secret();
    assert_eq!(fake.store().await.engine(), KvVersion::V2);

    let rules = vec![("secret/data/*".into(), vec!["read"])];
    let token = fake.vault.token("", Policy(rules), Life::ENDLESS);
    let options = fake.with_auth(VaultAuth::Token(token.as_str().into()));
    assert!(matches!(Vault::connect(options).await, Err(OpenError::UnknownEngine { .. })));

    let vault = tokenkeep_services::running().vault;
    let server = server(vault.address(), vault.root_token(), &fake.clock);
    let elsewhere = VaultOptions { mount: "elsewhere".into(), ..VaultOptions::new(server.clone(), entropy()) };
    assert!(matches!(Vault::connect(elsewhere).await, Err(OpenError::NoMount { .. })));
    let real = Vault::connect(VaultOptions::new(server, entropy())).await.unwrap();
    assert_eq!((real.engine(), real.describe().reach), (KvVersion::V1, Reach::OneWriter));
}

/// What was sent may still arrive, after whatever would be written next.
#[tokio::test]
async fn without_check_and_set_a_write_in_doubt_is_waited_for() {
    let fake = Fake::start().await;
    fake.vault.mount_kv1("old");
    let store = Vault::connect(VaultOptions { mount: "old".into(), ..fake.options() }).await.unwrap();
    assert_eq!(store.engine(), KvVersion::V1);
    fake.vault.fail_next(Some("POST"), VaultFault::CutAfter);
    assert_eq!(store.put(&record("a"), Expect::Absent).await.unwrap(), Put::Unknown);
    fake.vault.take_requests();
    let next = store.put(&record("a"), Expect::Absent).await;
    assert!(matches!(&next, Err(StoreError::Unavailable { reason, .. }) if reason.contains("on its way")), "{next:?}");
    assert_eq!(asked(&fake.vault), [""; 0]);
    fake.clock.advance(Duration::from_secs(121));
    assert_eq!(store.put(&record("a"), Expect::Absent).await.unwrap(), Put::Conflict, "it has arrived");
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let fake = Fake::start().await;
    let refused = async |change: fn(&mut VaultOptions)| {
        let mut options = fake.options();
        change(&mut options);
        Vault::connect(options).await.unwrap_err()
    };
    for change in [
        (|o| o.server.address = "vault:8200".into()) as fn(&mut VaultOptions),
        |o| o.server.address = "http://user:password@localhost".into(),
        |o| o.server.address = "http://localhost/v1".into(),
        |o| o.server.auth = VaultAuth::Token("".into()),
        |o| o.server.auth = VaultAuth::Token("a\nb".into()),
        |o| o.server.namespace = Some("a\nb".into()),
        |o| o.mount = String::new(),
        |o| o.path = "a/../b".into(),
        |o| o.path = "a b?".into(),
    ] {
        let error = refused(change).await;
        assert!(matches!(error, OpenError::Setting { .. }), "{error:?}");
        assert!(!error.to_string().contains("password"), "{error}");
    }
    for change in [(|o| o.server.ca_file = Some("/nowhere/ca.pem".into())) as fn(&mut VaultOptions), |o| {
        o.server.ca_file = Some("/dev/null".into());
    }] {
        let error = refused(change).await;
        assert!(matches!(error, OpenError::Certificates { .. }), "{error:?}");
    }
    fake.vault.uninitialize();
    assert!(matches!(refused(|_| {}).await, OpenError::NotInitialized { .. }));
}

/// Not even by who prints everything.
#[tokio::test]
async fn no_secret_is_printed() {
    let fake = Fake::start().await;
    let (role, secret) = fake.vault.app_role("", Policy::root(), Life::ENDLESS, None);
    let by_role = fake.with_auth(VaultAuth::app_role(role, secret.as_str().into()));
    let printed = format!("{:?} {:?} {:?}", fake.options(), by_role, Vault::connect(by_role.clone()).await.unwrap());
    assert!(!printed.contains(&secret) && !printed.contains("hvs."), "{printed}");
}

#[tokio::test]
async fn ids_of_every_kind_have_a_place() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    for kind in Kind::ALL {
        let key = RecordKey { kind, id: "_/~=é ".repeat(60), ..record("").key };
        committed(store.put(&Record { key: key.clone(), ..record("") }, Expect::Absent).await.unwrap());
        assert!(store.get(&key).await.unwrap().is_some());
    }
    // Each segment has to fit into a file name.
    let longest = fake.vault.take_requests().into_iter().filter_map(|r| r.path.split('/').map(str::len).max()).max();
    assert!(longest.unwrap() <= 128, "{longest:?}");
}
