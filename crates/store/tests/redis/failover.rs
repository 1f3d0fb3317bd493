//! A primary that is lost, and its successor.

use std::time::Duration;

use prometheus_client::{encoding::text::encode, registry::Registry};
use tokenkeep_core::ports::{Bus, Expect, Put, Store, StoreError};
use tokenkeep_services::{Cluster, Redis as Server, Sentinel};
use tokenkeep_store::{Redis, RedisBus, RedisOptions};

use crate::help::{has, record};

/// For replicas that run: what is late is not what these tests are about.
const PATIENT: Duration = Duration::from_secs(60);

/// Writes until it is taken; what is in doubt is looked up.
async fn write(store: &Redis, id: &str) {
    loop {
        match store.put(&record(id), Expect::Absent).await {
            Ok(Put::Committed(_)) => return,
            Ok(Put::Conflict) => panic!("{id} was there already"),
            Ok(Put::Unknown) if has(store, id).await => return,
            Ok(Put::Unknown) | Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn at_sentinels(trio: &Sentinel) -> RedisOptions {
    let hosts: Vec<_> =
        trio.urls().iter().map(|url| url["redis://".len()..].trim_end_matches('/').to_owned()).collect();
    let url = format!("redis+sentinel://:redis@{}/{}", hosts.join(","), Sentinel::PRIMARY_NAME);
    RedisOptions::new(&url).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_answered_when_a_replica_has_it() {
    let primary = Server::start().unwrap();
    let replica = Server::replica_of(&primary).unwrap();
    let waiting = |replica_wait| RedisOptions { replica_wait, ..RedisOptions::new(&primary.url()).unwrap() };
    let store = Redis::connect(waiting(PATIENT)).await.unwrap();
    for n in 0..20 {
        assert!(matches!(store.put(&record(&n.to_string()), Expect::Absent).await, Ok(Put::Committed(_))));
        let there = replica.command(&["EXISTS", &format!("oauth:connection:{n}")]).unwrap();
        assert!(there.contains('1'), "{n}: {there}");
    }
    let stats = primary.command(&["INFO", "commandstats"]).unwrap();
    // And once more, since the server had to be given the script.
    assert!(stats.contains("cmdstat_wait:calls=21,"), "{stats}");
    let mut registry = Registry::default();
    store.metrics().register(&mut registry);
    let counts = |registry: &Registry, outcome: &str, n: u32| {
        let mut shown = String::new();
        encode(&mut shown, registry).unwrap();
        shown.contains(&format!("redis_waits_total{{outcome=\"{outcome}\"}} {n}\n"))
    };
    assert!(counts(&registry, "in_time", 20) && counts(&registry, "late", 0));
    // Nobody is waited for in vain for long: the record is there, and can be read.
    replica.pause();
    let store = Redis::connect(waiting(Duration::from_millis(250))).await.unwrap();
    let mut registry = Registry::default();
    store.metrics().register(&mut registry);
    assert!(matches!(store.put(&record("alone"), Expect::Absent).await, Ok(Put::Committed(_))));
    assert!(has(&store, "alone").await);
    assert!(counts(&registry, "in_time", 0) && counts(&registry, "late", 1));
    replica.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_successor_that_sentinels_name_is_found() {
    let trio = Sentinel::start().unwrap();
    let store = Redis::connect(RedisOptions { replica_wait: PATIENT, ..at_sentinels(&trio) }).await.unwrap();
    let bus = RedisBus::connect(at_sentinels(&trio)).await.unwrap();
    let mut listener = bus.subscribe().await.unwrap();
    for n in 0..50 {
        write(&store, &format!("before-{n}")).await;
    }
    let lost = trio.kill_primary().unwrap();
    assert!(matches!(store.get(&record("before-0").key).await, Err(StoreError::Unavailable { .. })));
    assert!(listener.next().await.is_err());
    trio.until_failed_over(lost).unwrap();
    for n in 0..50 {
        write(&store, &format!("after-{n}")).await;
        assert!(has(&store, &format!("before-{n}")).await, "{n}");
    }
    let mut listener = bus.subscribe().await.unwrap();
    bus.publish(b"heard").await.unwrap();
    assert_eq!(listener.next().await.unwrap(), b"heard");
    // The old one comes back as a replica, and is not mistaken for what it was.
    trio.restart(lost).unwrap();
    trio.until_replicating(lost).unwrap();
    write(&store, "last").await;
    assert!(has(&store, "last").await && has(&store, "before-0").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_a_cluster_is_succeeded_by_its_replica() {
    let cluster = Cluster::start().unwrap();
    let hosts: Vec<_> = cluster.nodes().iter().map(tokenkeep_services::RedisAt::address).collect();
    let url = format!("redis://:redis@{}/", hosts.join(","));
    let options = RedisOptions { replica_wait: PATIENT, ..RedisOptions::new(&url).unwrap() };
    let store = Redis::connect(options).await.unwrap();
    for n in 0..64 {
        write(&store, &format!("before-{n}")).await;
    }
    // Whose slot it is does not matter: each primary has some of the shards.
    let lost = cluster.kill_primary_of(0).unwrap();
    cluster.until_failed_over(0, lost).unwrap();
    cluster.until_ok().unwrap();
    for n in 0..64 {
        write(&store, &format!("after-{n}")).await;
        assert!(has(&store, &format!("before-{n}")).await, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_only_hangs_is_left_for_its_successor_by_readers_too() {
    let trio = Sentinel::start().unwrap();
    let options = RedisOptions { read_timeout: Duration::from_millis(200), ..at_sentinels(&trio) };
    let store = Redis::connect(options).await.unwrap();
    // What must be answered is asked with the usual patience.
    let patient = Redis::connect(at_sentinels(&trio)).await.unwrap();
    write(&patient, "a").await;
    assert!(has(&patient, "a").await);
    // Its connections stay open, and it takes new ones.
    let hung = trio.pause_primary().unwrap();
    assert!(matches!(store.get(&record("a").key).await, Err(StoreError::Unavailable { .. })));
    trio.until_failed_over(hung).unwrap();
    // Who answers is the successor, for the other one hangs. What it did not get to replicate is lost with it.
    let mut asked = 0;
    while let Err(error) = store.get(&record("a").key).await {
        asked += 1;
        assert!(asked < 1000, "the successor is not found: {error}");
    }
    trio.resume(hung);
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_not_read_any_more() {
    let (server, other) = (Server::start().unwrap(), Server::start().unwrap());
    let store = Redis::connect(RedisOptions::new(&server.url()).unwrap()).await.unwrap();
    assert!(matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
    assert!(has(&store, "a").await);
    server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).unwrap();
    let error = store.put(&record("b"), Expect::Absent).await.unwrap_err();
    assert!(error.to_string().contains("read-only replica"), "{error}");
    assert!(matches!(store.get(&record("a").key).await, Err(StoreError::Unavailable { .. })));
    server.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert!(matches!(store.put(&record("b"), Expect::Absent).await, Ok(Put::Committed(_) | Put::Conflict)));
}
