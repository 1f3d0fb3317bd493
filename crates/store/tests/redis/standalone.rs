//! One server.

use std::time::Duration;

use tokenkeep_core::ports::{Expect, Filter, Kind, Put, Query, Record, Scope, Store, StoreError};
use tokenkeep_services::Redis as Server;
use tokenkeep_store::{
    Redis, RedisOptions,
    conformance::{CASES, Fault, Faulty, Fixture, Stop},
};

use crate::help::{self, Servers, User, has, record};

fn fixture() -> impl Future<Output = Fixture> {
    help::fixture(Servers::one())
}

mod conforms {
    use super::fixture;

    tokenkeep_store::conformance!(fixture);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_caught() {
    help_catch(fixture).await;
}

/// Runs, for each fault, the case that must catch it.
pub async fn help_catch<F: Future<Output = Fixture>>(fixture: impl Fn() -> F) {
    for fault in Fault::ALL {
        let name = match fault {
            Fault::VersionIgnored => "put_needs_the_version",
            Fault::CheckedThenWritten => "no_increment_is_lost",
            Fault::VersionReused => "versions_are_never_reused",
            Fault::LabelNotMoved => "labels_move_with_the_record",
            Fault::TenantIgnored => "tenants_do_not_see_each_other",
            Fault::ExpiredServed | Fault::SweptEarly => "sweep_goes_by_the_time_it_is_told",
            Fault::ClaimTwice => "nothing_is_claimed_twice",
            Fault::ClaimChangesVersion => "a_claim_leaves_the_version_alone",
            Fault::UnavailableAsAbsent => "an_outage_is_not_absence",
            Fault::TombstoneListed => "a_tombstone_is_in_no_list_but_two",
            Fault::PagedByOffset => "paging_is_steady_while_others_come_and_go",
        };
        let case = CASES.iter().find(|case| case.name == name).expect("the case exists");
        let faulty = fixture().await.map(|store| std::sync::Arc::new(Faulty::new(store, fault)));
        match (case.run)(faulty).await {
            Err(Stop::Failed(what)) => println!("{fault:?} is caught by {name}: {what}"),
            other => panic!("{name} did not catch {fault:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn keys_stand_where_operators_look_for_them() {
    let user = User::new(Servers::one());
    let store = Redis::connect(user.options()).await.unwrap();
    store.put(&record("google/alice"), Expect::Absent).await.unwrap();
    let mut request = record("0a1b");
    request.key.kind = Kind::AuthorizationRequest;
    request.key.tenant = tokenkeep_core::Tenant::new("a:b").unwrap();
    store.put(&request, Expect::Absent).await.unwrap();
    let server = &user.servers.0[0];
    for key in ["connection:google/alice", "state@a%3Ab:0a1b"] {
        let value = server.command(&["GETRANGE", &format!("{}{key}", user.prefix()), "0", "3"]).unwrap();
        assert!(value.contains("tk1 "), "{key}: {value}");
        let ttl = server.command(&["TTL", &format!("{}{key}", user.prefix())]).unwrap();
        assert!(ttl.contains("-1"), "{key} has a time to live: {ttl}");
    }
    let subjects = server.command(&["ZRANGE", &format!("{}subject:alice", user.prefix()), "0", "-1"]).unwrap();
    assert!(subjects.contains("connection:google/alice") && subjects.contains("state@a%3Ab:0a1b"), "{subjects}");
}

#[tokio::test]
async fn a_list_by_time_is_exact_beyond_what_it_sorts() {
    const MANY: u32 = 10_050;
    let user = User::new(Servers::one());
    let store = Redis::connect(user.options()).await.unwrap();
    let server = &user.servers.0[0];
    store.put(&record("00000"), Expect::Absent).await.unwrap();
    // As many again, made from the first on the server: only how many there are matters.
    let script = "local value = redis.call('GET', KEYS[1] .. 'connection:00000') \
                  for n = 1, ARGV[1] - 1 do \
                    local place = string.format('connection:%05d', n) \
                    redis.call('SET', KEYS[1] .. place, value) \
                    redis.call('ZADD', KEYS[1] .. 'index:connection', 0, place) \
                    redis.call('ZADD', KEYS[1] .. 'changed:connection', 0, place) \
                  end return 1";
    server.command(&["EVAL", script, "1", &user.prefix(), &MANY.to_string()]).unwrap();
    let filter = Filter::ChangedSince(jiff::Timestamp::UNIX_EPOCH);
    let mut query = Query { scope: Scope::Every, kind: Kind::Connection, filter, limit: 1000, cursor: None };
    let mut listed = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        listed.extend(page.records.into_iter().map(|record| record.key.id));
        match page.next {
            None => break,
            next => query.cursor = next,
        }
    }
    let wanted: Vec<_> = (0..MANY).map(|n| format!("{n:05}")).collect();
    assert!(listed == wanted, "{} listed", listed.len());
    let mine = Query { scope: Scope::Tenant(record("").key.tenant), cursor: None, ..query };
    assert_eq!(store.count(&mine).await.unwrap(), tokenkeep_core::ports::Count::Exact(MANY.into()));
}

#[tokio::test]
async fn what_is_no_record_is_neither_read_as_none_nor_written_over() {
    let user = User::new(Servers::one());
    let store = Redis::connect(user.options()).await.unwrap();
    user.servers.0[0].command(&["SET", &format!("{}connection:a", user.prefix()), "somebody's"]).unwrap();
    let is_corrupt = |error: StoreError| matches!(error, StoreError::Corrupt { .. });
    assert!(is_corrupt(store.get(&record("a").key).await.unwrap_err()));
    assert!(is_corrupt(store.put(&record("a"), Expect::Absent).await.unwrap_err()));
    let left = user.servers.0[0].command(&["GET", &format!("{}connection:a", user.prefix())]).unwrap();
    assert!(left.contains("somebody's"), "{left}");
}

#[tokio::test]
async fn a_full_server_is_unavailable_for_writes_and_loses_nothing() {
    let server = Server::options().set("maxmemory", "3mb").start().unwrap();
    let store = Redis::connect(RedisOptions::new(&server.url()).unwrap()).await.unwrap();
    let big = |n: u32| Record { sealed: vec![7; 64 * 1024], ..record(&n.to_string()) };
    let mut written = 0;
    let error = loop {
        match store.put(&big(written), Expect::Absent).await {
            Ok(Put::Committed(_)) => written += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        assert!(written < 1000, "it is never full");
    };
    assert!(error.to_string().contains("memory is full"), "{error}");
    assert!(written > 0 && has(&store, "0").await);
    assert_eq!(store.get(&big(written).key).await.unwrap(), None, "a refused write was done");
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again_with_all_it_had() {
    let server = Server::start().unwrap();
    let store = Redis::connect(RedisOptions::new(&server.url()).unwrap()).await.unwrap();
    assert!(matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
    server.kill();
    assert!(matches!(store.get(&record("a").key).await, Err(StoreError::Unavailable { .. })));
    // Nobody was there to take it.
    assert!(matches!(store.put(&record("b"), Expect::Absent).await, Err(StoreError::Unavailable { .. })));
    server.restart().unwrap();
    assert!(has(&store, "a").await);
    assert!(matches!(store.put(&record("b"), Expect::Absent).await, Ok(Put::Committed(_))));
}

#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for_and_a_sent_write_is_in_doubt() {
    let server = Server::start().unwrap();
    let short = Duration::from_millis(150);
    let options =
        RedisOptions { read_timeout: short, write_timeout: short, ..RedisOptions::new(&server.url()).unwrap() };
    let store = Redis::connect(RedisOptions { replica_wait: Duration::ZERO, ..options }).await.unwrap();
    // What must be answered is asked with the usual patience.
    let patient = Redis::connect(RedisOptions::new(&server.url()).unwrap()).await.unwrap();
    assert!(matches!(patient.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
    // The other one has its connection, and the server its script.
    while !matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Conflict)) {}
    server.pause();
    assert_eq!(store.put(&record("b"), Expect::Absent).await.unwrap(), Put::Unknown);
    assert!(matches!(store.get(&record("a").key).await, Err(StoreError::Unavailable { .. })));
    server.resume();
    // What was sent before the pause is done now, and only once.
    assert!(has(&patient, "a").await);
    assert!(matches!(patient.put(&record("b"), Expect::Absent).await, Ok(Put::Conflict)));
}

#[tokio::test]
async fn connections_are_bounded() {
    let user = User::new(Servers::one());
    let options = RedisOptions { connections: 6, ..user.options() };
    let store = std::sync::Arc::new(Redis::connect(options).await.unwrap());
    let writes = (0..64).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.put(&record(&n.to_string()), Expect::Absent).await })
    });
    for write in writes.collect::<Vec<_>>() {
        assert!(matches!(write.await.unwrap(), Ok(Put::Committed(_))));
    }
    let clients = user.servers.0[0].command(&["CLIENT", "LIST"]).unwrap();
    let own = clients.matches(&format!("user={}", user.name)).count();
    assert!((1..=6).contains(&own), "{own} connections");
}
