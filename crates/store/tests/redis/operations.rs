//! What people are shown of a server.

use tokenkeep_core::ports::{Expect, Put, Store};
use tokenkeep_services::Redis as Server;
use tokenkeep_store::{
    Redis, RedisOptions,
    redis::{KeyCount, RedisOperations},
};

use crate::help::{Servers, User, record};

#[tokio::test]
async fn a_server_is_shown_without_what_it_holds() {
    let server = Server::options().set("slowlog-log-slower-than", "0").start().unwrap();
    let options = RedisOptions::new(&server.url()).unwrap();
    let store = Redis::connect(options.clone()).await.unwrap();
    for id in ["canary-1", "canary-2"] {
        store.put(&record(id), Expect::Absent).await.unwrap();
    }
    let Put::Committed(version) = store.put(&record("gone"), Expect::Absent).await.unwrap() else { panic!() };
    store.delete(&record("gone"), &version, jiff::Timestamp::MAX).await.unwrap();

    let look = RedisOperations::connect(options).await.unwrap();
    assert_eq!(look.ping().await.unwrap().len(), 1);
    let info = look.info().await.unwrap();
    assert!(info[0].fields.iter().any(|(name, value)| *name == "maxmemory_policy" && value == "noeviction"));
    let keys = look.keys().await.unwrap();
    assert_eq!(count(&keys, "connection"), (3, 1));
    assert_eq!((count(&keys, "subject"), count(&keys, "index"), count(&keys, "integration")), ((1, 0), (1, 0), (0, 0)));
    assert_eq!(count(&keys, "other"), (0, 0), "all that is written here has a name: {keys:?}");
    assert!(!look.clients().await.unwrap().is_empty());
    let slow = look.slowlog(100).await.unwrap();
    assert!(slow.iter().any(|call| call.command.starts_with("EVAL")), "{slow:?}");
    let shown = format!("{:?} {:?} {slow:?} {look:?}", look.info().await, look.clients().await);
    let shown = format!("{shown} {keys:?}");
    for secret in ["canary", "redis://", ":redis@", "alice"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

fn count(counts: &[KeyCount], kind: &str) -> (u64, u64) {
    counts.iter().find(|count| count.kind == kind).map_or((0, 0), |count| (count.keys, count.tombstones))
}

#[tokio::test]
async fn what_the_user_may_not_ask_is_named() {
    let user = User::new(Servers::one());
    let look = RedisOperations::connect(user.options()).await.unwrap();
    let said = look.slowlog(1).await.unwrap_err().to_string();
    assert!(said.contains("may not call SLOWLOG GET"), "{said}");
}

#[tokio::test]
async fn keys_are_counted_over_all_shards() {
    let user = User::new(Servers::cluster());
    let look = RedisOperations::connect(user.options()).await.unwrap();
    assert_eq!(look.keys().await.unwrap(), [], "who looks leaves nothing behind");
    let store = Redis::connect(user.options()).await.unwrap();
    for n in 0..20 {
        store.put(&record(&n.to_string()), Expect::Absent).await.unwrap();
    }
    let look = RedisOperations::connect(user.options()).await.unwrap();
    let keys = look.keys().await.unwrap();
    assert_eq!(count(&keys, "connection"), (20, 0));
    assert_eq!(count(&keys, "other"), (0, 0), "{keys:?}");
    assert_eq!(look.ping().await.unwrap().len(), 3);
}
