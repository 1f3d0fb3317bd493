//! The harness itself: every server starts, answers, and is found again with its data after a kill.
#![expect(clippy::unwrap_used, reason = "a server that does not start shows its log")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokenkeep_services::{Cluster, Pgbouncer, Postgres, Redis, Sentinel, Vault};

/// Whether a server that listens on `port` says a byte when it is spoken to.
fn says_something(port: u16, spoken: &[u8]) -> bool {
    said(port, spoken, None)
}

/// Half a second without a word.
fn is_silent(port: u16, spoken: &[u8]) -> bool {
    !said(port, spoken, Some(Duration::from_millis(500)))
}

fn said(port: u16, spoken: &[u8], within: Option<Duration>) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(within).unwrap();
    stream.write_all(spoken).unwrap();
    stream.read(&mut [0]).is_ok_and(|n| n > 0)
}

/// PostgreSQL's SSLRequest: answered by one byte, by a child of the server.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn postgres_keeps_its_data_through_a_kill() {
    let postgres = Postgres::start().unwrap();
    postgres.sql("postgres", "CREATE TABLE kept (n int)").unwrap();
    postgres.sql("postgres", "INSERT INTO kept VALUES (7)").unwrap();

    postgres.kill();
    assert!(postgres.sql("postgres", "SELECT 1").is_err());
    let port = postgres.port();
    postgres.restart().unwrap();

    assert_eq!(postgres.port(), port);
    assert_eq!(postgres.sql("postgres", "SELECT n FROM kept").unwrap(), "7");
}

#[test]
fn a_paused_postgres_answers_nobody_until_it_is_resumed() {
    let postgres = Postgres::options().without_fsync().start().unwrap();
    assert!(says_something(postgres.port(), &SSL_REQUEST));

    postgres.pause();
    assert!(is_silent(postgres.port(), &SSL_REQUEST));

    postgres.resume();
    assert_eq!(postgres.sql("postgres", "SELECT 1").unwrap(), "1");
}

#[test]
fn a_connection_that_is_open_is_paused_too() {
    let postgres = Postgres::options().without_fsync().start().unwrap();
    let sql = |sql: &str| postgres.sql("postgres", sql);
    sql("CREATE SEQUENCE beats").unwrap();
    let beats = || sql("SELECT last_value FROM beats").unwrap().parse::<u64>().unwrap();
    std::thread::scope(|scope| {
        let endless = "DO $$ BEGIN LOOP PERFORM nextval('beats'); PERFORM pg_sleep(0.01); END LOOP; END $$";
        let beating = scope.spawn(|| sql(endless));
        while beats() < 3 {}
        let serving = sql("SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO $$%'").unwrap();

        // The connection is served by a child of the server.
        postgres.pause();
        until_state_is(&serving, "T (stopped)");

        postgres.resume();
        let before = beats();
        while beats() <= before {}

        postgres.kill();
        assert!(beating.join().unwrap().is_err());
    });
}

/// proc(5): a signal that was sent takes effect a moment later.
fn until_state_is(process: &str, state: &str) {
    let status = || fs::read_to_string(Path::new("/proc").join(process).join("status")).unwrap();
    while !status().contains(&format!("State:\t{state}")) {}
}

#[test]
fn postgres_insists_on_tls_if_it_was_started_so() {
    let postgres = Postgres::options().without_fsync().tls().start().unwrap();
    assert!(postgres.tls_authority().unwrap().contains("BEGIN CERTIFICATE"));
    assert_eq!(postgres.sql("postgres", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").unwrap(), "t");
    assert!(postgres.sql("postgres?sslmode=disable", "SELECT 1").is_err());
}

#[test]
fn a_standby_follows_and_refuses_writes() {
    let primary = Postgres::options().without_fsync().tls().start().unwrap();
    primary.sql("postgres", "CREATE TABLE kept AS SELECT 7 AS n").unwrap();
    let standby = Postgres::standby_of(&primary).unwrap();
    assert_eq!(standby.sql("postgres", "SELECT n FROM kept").unwrap(), "7");
    let refused = standby.sql("postgres", "INSERT INTO kept VALUES (8)").unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
}

#[test]
fn pgbouncer_lets_anybody_of_its_postgres_into_any_database() {
    let postgres = Postgres::options().without_fsync().start().unwrap();
    let pgbouncer = Pgbouncer::start(&postgres).unwrap();
    pgbouncer.sql("postgres", "CREATE DATABASE other").unwrap();
    pgbouncer.sql("other", "CREATE ROLE somebody LOGIN PASSWORD 'secret'").unwrap();
    assert_eq!(pgbouncer.sql("other", "SELECT current_database()").unwrap(), "other");
    assert!(pgbouncer.sql("pgbouncer", "SHOW POOLS").unwrap().contains("transaction"));
    let mut psql = Command::new("psql");
    let as_somebody = pgbouncer.url_of("somebody", "secret", "other");
    let said = psql.args([&as_somebody, "-Atc", "SELECT current_user"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "somebody\n", "{said:?}");

    pgbouncer.kill();
    assert!(pgbouncer.sql("other", "SELECT 1").is_err());
    pgbouncer.restart().unwrap();
    assert_eq!(pgbouncer.sql("other", "SELECT 1").unwrap(), "1");
    postgres.restart().unwrap();
    assert_eq!(pgbouncer.sql("postgres", "SELECT 1").unwrap(), "1");
}

#[test]
fn redis_keeps_its_data_through_a_kill() {
    let redis = Redis::start().unwrap();
    redis.command(&["SET", "kept", "7"]).unwrap();
    redis.kill();
    assert!(redis.command(&["PING"]).is_err());
    redis.restart().unwrap();
    assert_eq!(redis.command(&["GET", "kept"]).unwrap(), "7");

    redis.pause();
    assert!(is_silent(redis.port(), b"PING\r\n"));
    redis.resume();
    assert!(says_something(redis.port(), b"PING\r\n"));
}

#[test]
fn redis_takes_settings_of_ones_own() {
    let redis = Redis::options().set("maxmemory", "3mb").tls().start().unwrap();
    assert_eq!(redis.command(&["CONFIG", "GET", "maxmemory"]).unwrap().trim(), "maxmemory 3145728");
    assert!(redis.tls_authority().unwrap().contains("BEGIN CERTIFICATE"));
    // A TLS alert or handshake, not a refused connection.
    let port = redis.tls_url().unwrap();
    let port = port.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
}

#[test]
fn a_replica_follows_and_refuses_writes() {
    let primary = Redis::start().unwrap();
    primary.command(&["SET", "kept", "7"]).unwrap();
    let replica = Redis::replica_of(&primary).unwrap();
    assert_eq!(replica.command(&["GET", "kept"]).unwrap(), "7");
    assert!(replica.command(&["SET", "kept", "8"]).unwrap_err().to_string().contains("READONLY"));
}

#[test]
fn sentinels_fail_over_and_the_old_primary_comes_back_as_a_replica() {
    let trio = Sentinel::start().unwrap();
    let primary = trio.primary().unwrap();
    primary.command(&["SET", "kept", "7"]).unwrap();
    primary.command(&["WAIT", "1", "0"]).unwrap();

    let killed = trio.kill_primary().unwrap();
    trio.until_failed_over(killed).unwrap();
    assert_eq!(trio.primary().unwrap().command(&["GET", "kept"]).unwrap(), "7");

    trio.restart(killed).unwrap();
    trio.until_replicating(killed).unwrap();
}

#[test]
fn a_cluster_fails_over_and_keeps_its_data_through_a_kill_of_all() {
    let cluster = Cluster::start().unwrap();
    assert_eq!(cluster.urls().len(), 6);
    // The slot of `kept`.
    let slot = cluster.nodes()[0].command(&["CLUSTER", "KEYSLOT", "kept"]).unwrap().parse().unwrap();
    let at = |index: usize| &cluster.nodes()[index];
    let primary = cluster.primary_of(slot).unwrap();
    at(primary).command(&["SET", "kept", "7"]).unwrap();
    at(primary).command(&["WAIT", "1", "0"]).unwrap();

    let killed = cluster.kill_primary_of(slot).unwrap();
    assert_eq!(killed, primary);
    cluster.until_failed_over(slot, killed).unwrap();
    let now = cluster.primary_of(slot).unwrap();
    assert_eq!(at(now).command(&["GET", "kept"]).unwrap(), "7");

    cluster.restart().unwrap();
    let now = cluster.primary_of(slot).unwrap();
    assert_eq!(at(now).command(&["GET", "kept"]).unwrap(), "7");
}

#[test]
fn vault_keeps_its_data_through_a_kill_and_can_be_sealed() {
    let vault = Vault::start().unwrap();
    vault.ask("PUT", "/v1/secret/kept", &json!({ "n": 7 })).unwrap();
    let read = || vault.ask("GET", "/v1/secret/kept", &Value::Null);

    vault.kill();
    assert!(read().is_err());
    vault.restart().unwrap();
    assert_eq!(read().unwrap()["data"]["n"], 7);

    vault.seal().unwrap();
    assert!(read().unwrap_err().to_string().contains("503"));
    vault.unseal().unwrap();
    assert_eq!(read().unwrap()["data"]["n"], 7);

    vault.pause();
    assert!(is_silent(vault.port(), b"GET /v1/sys/seal-status HTTP/1.1\r\n\r\n"));
    vault.resume();
    assert!(read().is_ok());
}

#[test]
fn an_application_logs_in_to_vault_with_its_role() {
    let vault = Vault::start().unwrap();
    let role = vault.app_role("tokenkeep", 60, 120).unwrap();
    let login = json!({ "role_id": role.role_id, "secret_id": role.secret_id });
    let login = vault.ask("PUT", "/v1/auth/approle/login", &login).unwrap();
    assert_eq!(login["auth"]["lease_duration"], 60);
    assert_eq!(login["auth"]["renewable"], true);
}

/// What the next test kills: it says where its servers are, and waits.
#[test]
#[ignore = "run in a process of its own"]
fn servers_of_a_process_that_is_killed() {
    let postgres = Postgres::options().without_fsync().start().unwrap();
    let redis = Redis::start().unwrap();
    postgres.pause();
    println!("\nports {} {}", postgres.port(), redis.port());
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn servers_end_with_the_process_that_started_them() {
    let temporary = tempfile::tempdir().unwrap();
    // Those that serve as somebody else have to pass.
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap());
    owner.args(["--ignored", "--exact", "servers_of_a_process_that_is_killed", "--nocapture"]);
    let mut owner = owner.env("TMPDIR", temporary.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ports = lines.find(|line| line.starts_with("ports ")).unwrap();
    let listens = |port: &str| TcpStream::connect(("127.0.0.1", port.parse().unwrap())).is_ok();
    let ports: Vec<&str> = ports.split(' ').skip(1).collect();
    assert!(ports.iter().all(|port| listens(port)));

    owner.kill().unwrap();
    owner.wait().unwrap();

    while ports.iter().any(|port| listens(port)) {}
    while fs::read_dir(temporary.path()).unwrap().next().is_some() {}
}
