//! API keys: who is let in, who makes whom.

use std::{collections::BTreeSet, sync::atomic::Ordering::SeqCst, time::Duration};

use secrecy::ExposeSecret as _;
use tokenkeep_core::{ManagedBy, Role, Rotation};
use tokenkeep_engine::{Caller, ConfigKey, Engine, NewKey};
use tokenkeep_oauth::Secret;

use crate::{
    common::World,
    support::{api_key, key},
};

const LOCAL: &Caller = &Caller::Local;

fn new(name: &str, role: Role) -> NewKey {
    NewKey { name: name.to_owned(), role, tenants: None, providers: None }
}

fn role_of(engine: &Engine, secret: &Secret) -> Option<Role> {
    engine.keys().authenticate(secret.expose_secret()).map(|key| key.role)
}

/// Waits until `engine` has read its keys anew.
async fn comes_to_know(world: &World, engine: &Engine, secret: &Secret, role: Option<Role>) {
    let known = async {
        while role_of(engine, secret) != role {
            world.clock.advance(Duration::from_secs(5));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("the keys were not read anew");
}

#[tokio::test]
async fn a_key_is_shown_once_and_known_by_its_hash() {
    let engine = World::new(Rotation::Strict).await.engine(1, None).await;
    let (made, secret) = engine.keys().create(LOCAL, new("ci", Role::Reader)).await.unwrap();
    let text = secret.expose_secret();
    assert!(text.starts_with("tk_") && text.len() == 46, "{text}");
    let found = engine.keys().authenticate(text).unwrap();
    assert_eq!((found.id, found.role, found.name.as_str()), (made.id, Role::Reader, "ci"));
    for wrong in ["", "tk_", &text[..45], &format!("{text}x"), &text.to_uppercase()] {
        assert!(engine.keys().authenticate(wrong).is_none(), "{wrong}");
    }
    let listed = engine.keys().list(LOCAL).await.unwrap();
    assert!(!format!("{listed:?}").contains(&text[3..]));
    engine.keys().delete(LOCAL, &made.id).await.unwrap();
    assert!(engine.keys().authenticate(text).is_none());
    assert_eq!(engine.keys().delete(LOCAL, &made.id).await.unwrap_err().code(), "key_not_found");
    for bad in ["", "\n", &"x".repeat(101)] {
        let refused = engine.keys().create(LOCAL, new(bad, Role::Reader)).await;
        assert_eq!(refused.unwrap_err().code(), "invalid_request");
    }
    let nothing = NewKey { tenants: Some(BTreeSet::new()), ..new("x", Role::Reader) };
    assert_eq!(engine.keys().create(LOCAL, nothing).await.unwrap_err().code(), "invalid_request");
}

#[tokio::test]
async fn no_key_makes_sees_or_removes_one_beyond_itself() {
    let engine = World::new(Rotation::Strict).await.engine(1, None).await;
    let keys = engine.keys();
    for role in [Role::Operator, Role::Application, Role::Reader] {
        let caller = key(&engine, role, None).await;
        assert_eq!(keys.create(&caller, new("x", Role::Reader)).await.unwrap_err().code(), "forbidden");
        assert_eq!(keys.list(&caller).await.unwrap_err().code(), "forbidden");
    }
    let acme = key(&engine, Role::Admin, Some(&["acme"])).await;
    assert_eq!(keys.create(&acme, new("x", Role::Reader)).await.unwrap_err().code(), "forbidden");
    let bound = NewKey { tenants: Some(BTreeSet::from(["acme".parse().unwrap()])), ..new("in", Role::Application) };
    let (inner, _) = keys.create(&acme, bound).await.unwrap();
    let names: BTreeSet<_> = keys.list(&acme).await.unwrap().into_iter().map(|key| key.name).collect();
    assert_eq!(names, BTreeSet::from(["a test's admin".to_owned(), "in".to_owned()]));
    let (outer, secret) = api_key(&engine, Role::Reader, None).await;
    assert_eq!(keys.delete(&acme, &outer.id).await.unwrap_err().code(), "key_not_found");
    assert_eq!(role_of(&engine, &secret), Some(Role::Reader));
    keys.delete(&acme, &inner.id).await.unwrap();
}

#[tokio::test]
async fn other_instances_learn_of_it_and_an_outage_locks_nobody_out() {
    let world = World::new(Rotation::Strict).await;
    let (one, two) = (world.engine(1, None).await, world.engine(2, None).await);
    let (made, secret) = one.keys().create(LOCAL, new("ci", Role::Reader)).await.unwrap();
    assert_eq!(role_of(&two, &secret), None);
    comes_to_know(&world, &two, &secret, Some(Role::Reader)).await;
    let three = world.engine(3, None).await;
    assert_eq!(role_of(&three, &secret), Some(Role::Reader), "read at the start");

    world.store.down.store(true, SeqCst);
    for _ in 0..10 {
        world.clock.advance(Duration::from_secs(5));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(role_of(&two, &secret), Some(Role::Reader));
    let outage = one.keys().create(LOCAL, new("x", Role::Reader)).await;
    assert_eq!(outage.unwrap_err().code(), "store_unavailable");
    world.store.down.store(false, SeqCst);
    one.keys().delete(LOCAL, &made.id).await.unwrap();
    comes_to_know(&world, &two, &secret, None).await;
}

#[tokio::test]
async fn the_first_admin_is_made_once() {
    let world = World::new(Rotation::Strict).await;
    world.store.lets_others_in.store(true, SeqCst);
    let (one, two) = (world.engine(1, None).await, world.engine(2, None).await);
    let (a, b) = tokio::join!(one.keys().ensure_first_admin(None), two.keys().ensure_first_admin(None));
    let mut made: Vec<Secret> = [a.unwrap(), b.unwrap()].into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    let secret = made.pop().unwrap();
    for engine in [&one, &two] {
        assert_eq!(role_of(engine, &secret), Some(Role::Admin));
        assert!(engine.keys().ensure_first_admin(None).await.unwrap().is_none());
        assert!(engine.keys().ensure_first_admin(Some("another-given-admin-key".into())).await.unwrap().is_none());
    }
    assert_eq!(role_of(&one, &"another-given-admin-key".into()), None);
    let admin = one.keys().authenticate(secret.expose_secret()).unwrap();
    one.keys().delete(LOCAL, &admin.id).await.unwrap();
    let given = Secret::from("a-given-admin-key-of-length");
    assert!(one.keys().ensure_first_admin(Some("short".into())).await.is_err());
    assert!(one.keys().ensure_first_admin(Some(given.clone())).await.unwrap().is_none(), "it is known already");
    assert_eq!(role_of(&one, &given), Some(Role::Admin));
}

#[tokio::test]
async fn the_files_keys_follow_the_file() {
    let world = World::new(Rotation::Strict).await;
    let engine = world.engine(1, None).await;
    let keys = engine.keys();
    let (by_api, api_secret) = keys.create(LOCAL, new("by api", Role::Reader)).await.unwrap();
    let (s1, s2) = (Secret::from("config-secret-number-1"), Secret::from("config-secret-number-2"));
    let of = |name: &str, role, secret: &Secret| ConfigKey { key: new(name, role), secret: secret.clone() };
    let file = vec![of("a", Role::Application, &s1), of("b", Role::Reader, &s2)];
    keys.sync_config(file.clone()).await.unwrap();
    assert_eq!((role_of(&engine, &s1), role_of(&engine, &s2)), (Some(Role::Application), Some(Role::Reader)));
    let a = keys.authenticate(s1.expose_secret()).unwrap();
    assert_eq!(a.managed_by, ManagedBy::Config);
    assert_eq!(keys.delete(LOCAL, &a.id).await.unwrap_err().code(), "managed_by_config");
    keys.sync_config(file).await.unwrap();

    // They change places: the same names, each other's secrets.
    keys.sync_config(vec![of("a", Role::Application, &s2), of("b", Role::Reader, &s1)]).await.unwrap();
    assert_eq!((role_of(&engine, &s1), role_of(&engine, &s2)), (Some(Role::Reader), Some(Role::Application)));
    assert_eq!(keys.authenticate(s2.expose_secret()).unwrap().id, a.id, "a key is known by its name");
    keys.sync_config(vec![of("b", Role::Operator, &s1)]).await.unwrap();
    assert_eq!((role_of(&engine, &s1), role_of(&engine, &s2)), (Some(Role::Operator), None));
    assert_eq!(role_of(&engine, &api_secret), Some(by_api.role));
    assert_eq!(keys.list(LOCAL).await.unwrap().len(), 2);

    let api_again = vec![of("c", Role::Admin, &api_secret)];
    let twice = vec![of("a", Role::Reader, &s1), of("b", Role::Reader, &s1)];
    let same_name = vec![of("a", Role::Reader, &s1), of("a", Role::Reader, &s2)];
    let short = vec![of("a", Role::Reader, &"short".into())];
    for bad in [api_again, twice, same_name, short] {
        assert_eq!(keys.sync_config(bad).await.unwrap_err().code(), "invalid_request");
    }
    assert_eq!(role_of(&engine, &s1), Some(Role::Operator), "a bad file changes nothing");
}
