//! What is refused at the start, and how that is said.

use tokenkeep_core::ports::Store;
use tokenkeep_services::{Redis as Server, RedisAt};
use tokenkeep_store::{Redis, RedisBus, RedisCache, RedisCounter, RedisOptions, redis::OpenError};

use crate::help::{NEEDED, Servers, User};

async fn refusal(options: RedisOptions) -> OpenError {
    let location = format!("{options:?}");
    let error = Redis::connect(options).await.expect_err(&location);
    let text = format!("{error} {error:?}");
    println!("{error}");
    assert!(!text.contains(":pw@") && !text.contains("://:"), "{text}");
    error
}

fn at(server: &RedisAt) -> RedisOptions {
    RedisOptions::new(&server.url()).unwrap()
}

#[tokio::test]
async fn a_wrong_password_or_user() {
    let address = Servers::one().0[0].address();
    for who in ["", ":wrong@", "nobody:redis@"] {
        let options = RedisOptions::new(&format!("redis://{who}{address}/")).unwrap();
        assert!(matches!(refusal(options).await, OpenError::Credentials { .. }), "{who:?}");
    }
}

#[tokio::test]
async fn a_user_who_may_do_less_than_needed() {
    for servers in [Servers::one(), Servers::cluster()] {
        let user = User::new(servers);
        for missing in ["-eval", "-zadd", "-set", "-del"] {
            user.set(&[missing]);
            assert!(matches!(refusal(user.options()).await, OpenError::Forbidden { .. }), "{missing}");
            user.set(&NEEDED);
        }
        let elsewhere = RedisOptions { prefix: "somebody:elses:".into(), ..user.options() };
        assert!(matches!(refusal(elsewhere).await, OpenError::Forbidden { .. }));
    }
}

#[tokio::test]
async fn a_user_who_may_do_just_what_is_needed_is_taken() {
    for servers in [Servers::one(), Servers::cluster()] {
        let user = User::new(servers);
        user.set(&["-info", "-config|get"]);
        Redis::connect(user.options()).await.unwrap();
        RedisCache::connect(user.options()).await.unwrap();
        RedisBus::connect(user.options()).await.unwrap();
        RedisCounter::connect(user.options()).await.unwrap();
    }
}

#[tokio::test]
async fn where_nobody_listens() {
    let server = Server::start().unwrap();
    let options = at(&server);
    server.kill();
    assert!(matches!(refusal(options).await, OpenError::Unreachable { .. }));
}

#[tokio::test]
async fn a_server_that_hangs() {
    let server = Server::start().unwrap();
    server.pause();
    let options = RedisOptions { connect_timeout: std::time::Duration::from_millis(100), ..at(&server) };
    assert!(matches!(refusal(options).await, OpenError::Unreachable { .. }));
    server.resume();
}

#[tokio::test]
async fn tls_where_there_is_none_none_where_there_is_or_an_unknown_authority() {
    let server = Server::options().tls().start().unwrap();
    let authority = server.tls_authority().unwrap().as_bytes().to_vec();
    let secure = RedisOptions::new(&server.tls_url().unwrap()).unwrap();
    let plain_port_with_tls = RedisOptions::new(&server.url().replace("redis://", "rediss://")).unwrap();
    let tls_port_without = RedisOptions::new(&server.tls_url().unwrap().replace("rediss://", "redis://")).unwrap();
    for options in [plain_port_with_tls, tls_port_without, secure.clone()] {
        assert!(matches!(refusal(options).await, OpenError::Unreachable { .. }));
    }
    let trusted = RedisOptions { ca_certificate: Some(authority), ..secure };
    Redis::connect(trusted.clone()).await.unwrap().ping().await.unwrap();
    let elsewhere = Server::options().tls().start().unwrap();
    let wrong = RedisOptions {
        ca_certificate: trusted.ca_certificate,
        ..RedisOptions::new(&elsewhere.tls_url().unwrap()).unwrap()
    };
    assert!(matches!(refusal(wrong).await, OpenError::Unreachable { .. }));
}

#[tokio::test]
async fn a_server_that_throws_keys_away_unless_that_is_allowed() {
    let server = Server::options().set("maxmemory-policy", "allkeys-lru").start().unwrap();
    assert!(matches!(refusal(at(&server)).await, OpenError::Evicts { policy, .. } if policy == "allkeys-lru"));
    Redis::connect(RedisOptions { allow_eviction: true, ..at(&server) }).await.unwrap();
    // What is in front of a store may be thrown away.
    RedisCache::connect(at(&server)).await.unwrap();
}

#[tokio::test]
async fn a_server_without_append_only_file_unless_that_is_allowed() {
    let server = Server::options().set("appendonly", "no").start().unwrap();
    assert!(matches!(refusal(at(&server)).await, OpenError::WithoutAof { .. }));
    let store = Redis::connect(RedisOptions { allow_without_aof: true, ..at(&server) }).await.unwrap();
    assert!(!store.describe().durable && store.describe().may_roll_back);
}

#[tokio::test]
async fn how_much_is_promised_goes_by_the_append_only_file() {
    for (fsync, durable) in [("always", true), ("everysec", false), ("no", false)] {
        let server = Server::options().set("appendfsync", fsync).start().unwrap();
        let described = Redis::connect(at(&server)).await.unwrap().describe();
        assert_eq!((described.durable, described.may_roll_back), (durable, !durable), "{fsync}");
    }
}

#[tokio::test]
async fn settings_are_read_from_info_where_config_is_forbidden() {
    let server = Server::options().set("maxmemory-policy", "volatile-ttl").set("appendonly", "no").start().unwrap();
    server.command(&["ACL", "SETUSER", "managed", "on", ">pw", "~*", "&*", "+@all", "-config"]).unwrap();
    let managed = RedisOptions::new(&format!("redis://managed:pw@{}/", server.address())).unwrap();
    assert!(matches!(refusal(managed.clone()).await, OpenError::Evicts { .. }));
    let evicting = RedisOptions { allow_eviction: true, ..managed };
    assert!(matches!(refusal(evicting).await, OpenError::WithoutAof { .. }));
}

#[tokio::test]
async fn a_replica() {
    let primary = Server::start().unwrap();
    let replica = Server::replica_of(&primary).unwrap();
    assert!(matches!(refusal(at(&replica)).await, OpenError::ReadOnly { .. }));
}

#[tokio::test]
async fn several_servers_that_are_no_cluster() {
    let address = Servers::one().0[0].address();
    let options = RedisOptions::new(&format!("redis://:redis@{address},{address}/")).unwrap();
    assert!(matches!(refusal(options).await, OpenError::NoCluster { .. }));
}
