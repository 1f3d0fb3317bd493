//! What is not opened, and why; each in one sentence that names the place.

use std::{fmt::Display, time::Duration};

use tokenkeep_core::ports::{Expect, Put, Store};
use tokenkeep_services::running;
use tokenkeep_store::{Postgres, PostgresOptions, postgres::OpenError};
use tokio::net::TcpListener;

use crate::support::{Database, record};

async fn refusal(url: impl Display) -> OpenError {
    refusal_of(PostgresOptions::new(url.to_string())).await
}

async fn refusal_of(options: PostgresOptions) -> OpenError {
    Postgres::connect(options).await.expect_err("it was opened")
}

#[tokio::test]
async fn what_is_no_url_is_refused_without_being_repeated() {
    for url in ["", "nonsense", "mysql://secret@host/x", "postgres://user:secret@host:port/x", "postgres:secret"] {
        let refusal = refusal(url).await;
        assert!(matches!(refusal, OpenError::Url), "{refusal:?}");
        assert!(!format!("{refusal} {refusal:?}").contains("secret"));
    }
}

#[tokio::test]
async fn a_wrong_password_or_user_is_refused() {
    let database = Database::new().await;
    for url in [
        database.url_of("postgres", "s3cr3t"),
        database.url_of("nobody", "s3cr3t"),
        running().pgbouncer.url_of("postgres", "s3cr3t", &database.name),
    ] {
        let refusal = refusal(url).await;
        assert!(matches!(refusal, OpenError::Credentials { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains(&database.name));
        assert!(!format!("{refusal} {refusal:?}").contains("s3cr3t"));
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_refused() {
    for url in [running().postgres.url("no_such"), running().pgbouncer.url("no_such")] {
        let refusal = refusal(url).await;
        assert!(matches!(refusal, OpenError::NoDatabase { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains("/no_such"), "{refusal}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_refused_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u:p@{}/x", listener.local_addr().unwrap());
    // Who listens and says nothing.
    let hasty = PostgresOptions { connect_timeout: Duration::from_millis(50), ..PostgresOptions::new(url.clone()) };
    let silent = refusal_of(hasty).await;
    assert!(matches!(&silent, OpenError::Unreachable { reason, .. } if reason.contains("too long")), "{silent:?}");
    drop(listener);
    let gone = refusal(&url).await;
    assert!(matches!(&gone, OpenError::Unreachable { reason, .. } if reason.contains("refused")), "{gone:?}");
    let nowhere = refusal("postgres://u:p@nowhere.invalid/x").await;
    assert!(matches!(nowhere, OpenError::Unreachable { .. }), "{nowhere:?}");
}

#[tokio::test]
async fn where_tls_is_not_agreed_upon_it_is_refused() {
    let plain = refusal(format!("{}?sslmode=require", running().postgres.url("postgres"))).await;
    assert!(matches!(plain, OpenError::Tls { .. }), "{plain:?}");

    let server = tokenkeep_services::Postgres::options().without_fsync().tls().start().unwrap();
    let url = server.url("postgres");
    let encrypted_only = refusal(format!("{url}?sslmode=disable")).await;
    assert!(matches!(encrypted_only, OpenError::Tls { .. }), "{encrypted_only:?}");
    let unknown_authority = refusal(format!("{url}?sslmode=verify-full")).await;
    assert!(matches!(unknown_authority, OpenError::Tls { .. }), "{unknown_authority:?}");

    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, server.tls_authority().unwrap()).unwrap();
    let verified = format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display());
    let store = Postgres::connect(PostgresOptions::new(verified)).await.unwrap();
    assert!(matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_refused() {
    let database = Database::new().await;
    database.execute(format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name)).await;
    for url in [database.url(), database.pooled_url()] {
        let refusal = refusal(url).await;
        assert!(matches!(refusal, OpenError::ReadOnly { .. }), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused() {
    let latin = Database::with("ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'").await;
    let refusal = refusal(latin.url()).await;
    assert!(matches!(&refusal, OpenError::Unusable { reason, .. } if reason.contains("LATIN1")), "{refusal:?}");
}

#[tokio::test]
async fn a_user_without_the_privileges_is_refused() {
    let mut database = Database::new().await;
    let user = database.user().await;
    let url = database.url_of(&user, "pw");
    let cannot_make = refusal(&url).await;
    assert!(matches!(cannot_make, OpenError::Privilege { .. }), "{cannot_make:?}");

    database.store().await.close().await;
    let cannot_enter = refusal(&url).await;
    assert!(matches!(cannot_enter, OpenError::Privilege { .. }), "{cannot_enter:?}");

    database.execute(format!("GRANT USAGE ON SCHEMA tokenkeep TO {user}")).await;
    database.execute(format!("GRANT SELECT ON ALL TABLES IN SCHEMA tokenkeep TO {user}")).await;
    let cannot_write = refusal(&url).await;
    assert!(
        matches!(&cannot_write, OpenError::Privilege { reason, .. } if reason.contains("tokenkeep.records")),
        "{cannot_write:?}"
    );

    // No more than this is needed once the schema is there.
    database.execute(format!("GRANT INSERT, UPDATE, DELETE ON tokenkeep.records, tokenkeep.counters TO {user}")).await;
    let store = Postgres::connect(PostgresOptions::new(url)).await.unwrap();
    assert!(matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
    assert_eq!(store.sweep(jiff::Timestamp::MAX).await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_does_not_wait_for_its_disk_is_described_so() {
    let store = Database::hasty().await.store().await;
    assert!(!store.describe().durable && store.describe().may_roll_back);
    let store = Database::new().await.store().await;
    assert!(store.describe().durable && !store.describe().may_roll_back);
}
