//! A cluster of three primaries.

use tokenkeep_core::ports::{Expect, Store};
use tokenkeep_store::{Redis, RedisOptions, conformance::Fixture, redis::OpenError};

use crate::{
    help::{self, Servers, User, has, record},
    standalone::help_catch,
};

fn fixture() -> impl Future<Output = Fixture> {
    help::fixture(Servers::cluster())
}

mod conforms {
    use super::fixture;

    tokenkeep_store::conformance!(fixture);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_caught() {
    help_catch(fixture).await;
}

#[tokio::test]
async fn any_of_its_servers_leads_to_all() {
    let user = User::new(Servers::cluster());
    let first = Redis::connect(user.options()).await.unwrap();
    for n in 0..40 {
        first.put(&record(&n.to_string()), Expect::Absent).await.unwrap();
    }
    for server in &user.servers.0 {
        let url = format!("redis://{}:pw@{}/", user.name, server.address());
        let options = RedisOptions { prefix: user.prefix(), ..RedisOptions::new(&url).unwrap() };
        let store = Redis::connect(options).await.unwrap();
        for n in 0..40 {
            assert!(has(&store, &n.to_string()).await, "{n} by {}", server.address());
        }
    }
}

#[tokio::test]
async fn the_number_of_shards_stays_what_it_was() {
    let user = User::new(Servers::cluster());
    let first = Redis::connect(RedisOptions { shards: 3, ..user.options() }).await.unwrap();
    first.put(&record("a"), Expect::Absent).await.unwrap();
    let second = Redis::connect(RedisOptions { shards: 16, ..user.options() }).await.unwrap();
    assert!(has(&second, "a").await);
}

#[tokio::test]
async fn keys_written_by_a_later_version_are_refused() {
    for servers in [Servers::one(), Servers::cluster()] {
        let user = User::new(servers);
        let key = format!("{}layout", user.prefix());
        // The server that has the key takes it; the others say where it belongs.
        let taken = user.servers.0.iter().filter(|server| server.command(&["SET", &key, "9 whole"]).is_ok()).count();
        assert!(taken > 0);
        let error = Redis::connect(user.options()).await.unwrap_err();
        assert!(matches!(error, OpenError::Layout { .. }), "{error}");
    }
}
