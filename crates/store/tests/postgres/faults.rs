//! What goes wrong while it is used: never a wrong answer, and `unknown` only where nobody can know.

use std::time::Duration;

use sqlx::{Executor, Row};
use tokenkeep_core::ports::{Expect, Filter, Kind, Put, Query, Record, Scope, Store, StoreError};
use tokenkeep_services::{PgbouncerAt, PostgresAt, running};
use tokenkeep_store::{Postgres, PostgresOptions};

use crate::{
    proxy::{Cut, Proxy},
    support::{Database, read, record},
};

/// A store with a record `a`, behind a network that can be cut.
async fn behind_a_proxy(database: &Database, server: u16) -> (Proxy, Postgres, Record) {
    let proxy = Proxy::before(server).await;
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/{}", proxy.port, database.name);
    let store = Postgres::connect(PostgresOptions { pool_size: 1, ..PostgresOptions::new(url) }).await.unwrap();
    // Whatever is prepared once has been prepared after this.
    let Put::Committed(_) = store.put(&record("a"), Expect::Absent).await.unwrap() else { panic!("not created") };
    let a = read(&store, "a").await.unwrap();
    let Put::Committed(_) = store.put(&a, Expect::Version(&a.version)).await.unwrap() else { panic!("not replaced") };
    let a = read(&store, "a").await.unwrap();
    (proxy, store, a)
}

async fn a_write_whose_reply_is_lost_is_unknown(server: u16) {
    let database = Database::new().await;
    let (proxy, store, a) = behind_a_proxy(&database, server).await;
    let second = Record { sealed: b"second".to_vec(), ..a.clone() };

    proxy.cut(Cut::Reply);
    assert_eq!(store.put(&second, Expect::Version(&a.version)).await.unwrap(), Put::Unknown);
    assert!(proxy.has_cut());
    let found = read(&store, "a").await.unwrap();
    assert_eq!(found.sealed, b"second", "it was committed");

    proxy.cut(Cut::Request);
    let third = Record { sealed: b"third".to_vec(), ..a };
    assert_eq!(store.put(&third, Expect::Version(&found.version)).await.unwrap(), Put::Unknown);
    assert_eq!(read(&store, "a").await.unwrap(), found, "it never arrived");

    // Deletions are writes, too.
    proxy.cut(Cut::Reply);
    let deletion = store.delete(&found, &found.version, found.changed_at).await.unwrap();
    assert_eq!(deletion, Put::Unknown);
    assert!(read(&store, "a").await.unwrap().deleted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_reply_is_lost_is_unknown_directly() {
    a_write_whose_reply_is_lost_is_unknown(running().postgres.port()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_reply_is_lost_is_unknown_through_a_pooler() {
    a_write_whose_reply_is_lost_is_unknown(running().pgbouncer.port()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_reply_is_lost_is_made_again() {
    let database = Database::new().await;
    let (proxy, store, a) = behind_a_proxy(&database, running().postgres.port()).await;
    for cut in [Cut::Request, Cut::Reply] {
        proxy.cut(cut);
        assert_eq!(read(&store, "a").await, Some(a.clone()));
        assert!(proxy.has_cut());
    }
}

/// As after a restart: each was told to go, so none has done anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_ended_are_replaced_unnoticed() {
    let database = Database::new().await;
    let store = database.store().await;
    store.put(&record("a"), Expect::Absent).await.unwrap();
    let mut version = read(&store, "a").await.unwrap().version;
    for _ in 0..3 {
        // So that there are several.
        let key = record("a").key;
        let (one, two, three) = tokio::join!(store.get(&key), store.get(&key), store.get(&key));
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        end_sessions(&database).await;
        let put = store.put(&record("a"), Expect::Version(&version)).await.unwrap();
        let Put::Committed(new) = put else { panic!("{put:?}") };
        version = new;
        end_sessions(&database).await;
        assert_eq!(read(&store, "a").await.unwrap().version, version);
    }
}

/// Ends every session but the one that says so, and waits until they have gone; some may go by themselves meanwhile.
async fn end_sessions(database: &Database) {
    let ended = database
        .row(
            "SELECT coalesce(bool_or(pg_terminate_backend(pid, 10000)), false) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    assert!(ended.get::<bool, _>(0), "there was none to end");
}

async fn trigger(database: &Database, body: &str) {
    database
        .execute(format!(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN new; END $$;
             CREATE TRIGGER fails BEFORE INSERT ON tokenkeep.records FOR EACH ROW EXECUTE FUNCTION fail()"
        ))
        .await;
}

fn reason_of(put: Result<Put, StoreError>) -> String {
    match put {
        Err(StoreError::Unavailable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn serialization_failures_are_retried_a_few_times() {
    let database = Database::new().await;
    let store = database.store().await;
    // A sequence is not rolled back, so it counts the tries.
    trigger(
        &database,
        "IF nextval('tries') < 4 THEN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END IF;
         IF currval('tries') > 4 THEN RAISE EXCEPTION 'again' USING ERRCODE = '40P01'; END IF;",
    )
    .await;
    assert!(matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
    let reason = reason_of(store.put(&record("b"), Expect::Absent).await);
    assert!(reason.contains("40P01"), "{reason}");
    let tries: i64 = database.row("SELECT last_value FROM tries").await.get(0);
    assert_eq!(tries, 4 + 9);
    assert_eq!(read(&store, "b").await, None);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_goes_on_reading() {
    let database = Database::new().await;
    let store = database.store().await;
    store.put(&record("a"), Expect::Absent).await.unwrap();
    trigger(&database, "RAISE EXCEPTION E'no\\nroom' USING ERRCODE = '53100';").await;
    let reason = reason_of(store.put(&record("b"), Expect::Absent).await);
    assert_eq!(reason, "the server's disk is full (no\\nroom, SQLSTATE 53100)");
    assert!(read(&store, "a").await.is_some());
}

#[tokio::test]
async fn a_database_made_read_only_refuses_writes_and_goes_on_reading() {
    let database = Database::new().await;
    for store in [database.store().await, database.pooled_store().await] {
        store.put(&record("a"), Expect::Absent).await.unwrap();
        database.execute(format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name)).await;
        end_sessions(&database).await;
        let reason = reason_of(store.put(&record("b"), Expect::Absent).await);
        assert!(reason.contains("takes no writes"), "{reason}");
        assert!(store.claim(Kind::Connection, jiff::Timestamp::MAX, 1, jiff::Timestamp::MAX).await.is_err());
        assert!(read(&store, "a").await.is_some());
        assert_eq!(read(&store, "b").await, None);
        let sql = format!(
            "SET transaction_read_only = off; ALTER DATABASE {} RESET default_transaction_read_only",
            database.name
        );
        database.execute(sql).await;
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up_and_changes_nothing() {
    let database = Database::new().await;
    for url in [database.url(), database.pooled_url()] {
        let options = PostgresOptions { statement_timeout: Duration::from_secs(1), ..PostgresOptions::new(url) };
        let store = Postgres::connect(options).await.unwrap();
        let mut other = database.connection().await;
        other.execute("BEGIN; LOCK TABLE tokenkeep.records").await.unwrap();
        let reason = reason_of(store.put(&record("a"), Expect::Absent).await);
        assert!(reason.contains("took too long"), "{reason}");
        assert!(store.get(&record("a").key).await.is_err());
        other.execute("ROLLBACK").await.unwrap();
        assert_eq!(read(&database.store().await, "a").await, None);
    }
}

/// SIGSTOP, and after it a kill: nothing is answered, and nothing that was answered is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_or_dies_is_unavailable_and_comes_back() {
    let server = tokenkeep_services::Postgres::start().unwrap();
    let brief = Duration::from_millis(300);
    let options = PostgresOptions {
        statement_timeout: brief,
        acquire_timeout: brief,
        pool_size: 2,
        ..PostgresOptions::new(server.url("postgres"))
    };
    let store = Postgres::connect(options).await.unwrap();
    assert!(store.describe().durable && !store.describe().may_roll_back);
    // What must be answered is asked with the usual patience.
    let patient = async || Postgres::connect(PostgresOptions::new(server.url("postgres"))).await.unwrap();
    patient().await.put(&record("a"), Expect::Absent).await.unwrap();
    let a = read(&patient().await, "a").await.unwrap();
    until_answered(&store).await;

    server.pause();
    // In its own process the write may or may not go on once it is resumed.
    let put = store.put(&record("b"), Expect::Absent).await;
    assert!(matches!(put, Ok(Put::Unknown) | Err(StoreError::Unavailable { .. })), "{put:?}");
    assert!(matches!(store.get(&a.key).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable { .. })));
    server.resume();
    until_answered(&store).await;
    assert_eq!(read(&patient().await, "a").await, Some(a.clone()));

    server.kill();
    assert!(matches!(store.get(&a.key).await, Err(StoreError::Unavailable { .. })));
    let put = store.put(&record("c"), Expect::Absent).await;
    assert!(matches!(put, Err(StoreError::Unavailable { .. })), "{put:?}");
    server.restart().unwrap();
    until_answered(&store).await;
    assert_eq!(read(&patient().await, "a").await, Some(a));
    assert_eq!(read(&patient().await, "c").await, None);
}

/// Each ping waits for a connection, so this is no busy loop.
async fn until_answered(store: &Postgres) {
    for _ in 0..100 {
        if store.ping().await.is_ok() {
            return;
        }
    }
    panic!("it does not come back");
}

/// The pooler may lead to a replica without anybody's connection breaking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_neither_opened_nor_read() {
    let primary = tokenkeep_services::Postgres::options().without_fsync().start().unwrap();
    let replica = tokenkeep_services::Postgres::standby_of(&primary).unwrap();
    let store = Postgres::connect(PostgresOptions::new(primary.url("postgres"))).await.unwrap();
    assert!(store.describe().may_roll_back, "it has a standby that may be behind");
    assert!(!store.describe().durable, "it does not wait for its disk");
    let refused = Postgres::connect(PostgresOptions::new(replica.url("postgres"))).await.unwrap_err();
    assert!(refused.to_string().contains("takes no writes: it is a replica"), "{refused}");

    // The same address, now another server.
    let proxy = Proxy::before(primary.port()).await;
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/postgres", proxy.port);
    for pooled in [false, true] {
        let options = PostgresOptions {
            pooled: Some(pooled),
            acquire_timeout: Duration::from_secs(1),
            ..PostgresOptions::new(url.clone())
        };
        let store = Postgres::connect(options).await.unwrap();
        assert_eq!(read(&store, "a").await, None);
        proxy.lead_to(replica.port());
        let found = store.get(&record("a").key).await;
        let Err(StoreError::Unavailable { reason, .. }) = found else { panic!("{found:?}") };
        assert!(reason.contains("replica") || reason.contains("recovery"), "{reason}");
        proxy.lead_to(primary.port());
        until_answered(&store).await;
    }
}

#[tokio::test]
async fn a_row_that_is_no_record_is_corrupt() {
    let database = Database::new().await;
    let store = database.store().await;
    store.put(&record("a"), Expect::Absent).await.unwrap();
    database.execute("UPDATE tokenkeep.records SET changed_at = 9223372036854775807").await;
    let found = store.get(&record("a").key).await;
    assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{found:?}");
    let all = Query { scope: Scope::Every, kind: Kind::Connection, filter: Filter::All, limit: 1, cursor: None };
    assert!(matches!(store.list(&all).await, Err(StoreError::Corrupt { .. })));
}

/// What is sent whole is logged whole by a server that logs statements, so nothing of it may be an error's text.
#[tokio::test]
async fn a_reason_repeats_nothing_of_what_was_written() {
    let database = Database::new().await;
    let store = database.pooled_store().await;
    database.execute("ALTER TABLE tokenkeep.records ADD CHECK (sealed_by <> 'canary-key')").await;
    let sealed_by = tokenkeep_core::ports::SealingKeyId("canary-key".into());
    let canary = Record { sealed: b"canary".to_vec(), sealed_by, ..record("canary-id") };
    let reason = reason_of(store.put(&canary, Expect::Absent).await);
    assert!(reason.contains("check constraint"), "{reason}");
    assert!(!reason.contains("canary"), "{reason}");
    // What names the places says nothing of who may enter them.
    let places = [PostgresAt::clone(&running().postgres).url("x"), PgbouncerAt::clone(&running().pgbouncer).url("x")];
    for url in places {
        assert!(!format!("{:?}", PostgresOptions::new(url)).contains("postgres:postgres"));
    }
    assert!(!store.describe().location.contains('@'));
}
