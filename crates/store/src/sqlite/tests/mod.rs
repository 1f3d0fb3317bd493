//! Real faults of a real file.

mod processes;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokenkeep_core::{
    Tenant,
    ports::{
        Expect, Filter, Kind, LabelName, Put, Query, Record, RecordKey, Scope, SealingKeyId, Store, StoreError, Version,
    },
};

use super::{APPLICATION_ID, OpenError, SCHEMA_VERSION, Sqlite, open::Settings};

struct Place {
    directory: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenkeep.db");
    Place { directory, path }
}

fn record(id: &str) -> Record {
    Record {
        key: RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: id.into() },
        version: Version::default(),
        changed_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
        due_at: None,
        labels: vec![(LabelName::Subject, "s".into())],
        sealed_by: SealingKeyId("k1".into()),
        sealed: vec![7; 1000],
        deleted: false,
    }
}

fn all() -> Query {
    Query { scope: Scope::Every, kind: Kind::Connection, filter: Filter::All, limit: 1000, cursor: None }
}

async fn create(store: &Sqlite, id: &str) -> Result<Put, StoreError> {
    store.put(&record(id), Expect::Absent).await
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).busy_timeout(Duration::ZERO).connect().await.unwrap()
}

async fn execute(path: &Path, sql: &'static str) {
    let mut connection = raw(path).await;
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Opened, with one record written, and closed.
async fn used(place: &Place) {
    let store = Sqlite::open(&place.path).await.unwrap();
    assert!(matches!(create(&store, "a").await, Ok(Put::Committed(_))));
    store.close().await;
}

async fn refusal(path: &Path) -> OpenError {
    let error = Sqlite::open(path).await.expect_err("it was opened");
    println!("{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    error
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_file_is_the_owners_alone_and_says_what_it_is() {
    let place = place();
    let store = Sqlite::open(&place.path).await.unwrap();
    create(&store, "a").await.unwrap();
    let mut names: Vec<_> =
        fs::read_dir(&place.directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["tokenkeep.db", "tokenkeep.db-shm", "tokenkeep.db-wal"]);
    for name in names {
        assert_eq!(mode(&place.directory.path().join(&name)), 0o600, "{name}");
    }
    let mut connection = raw(&place.path).await;
    for (pragma, wanted) in [("application_id", APPLICATION_ID), ("user_version", SCHEMA_VERSION)] {
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"));
        let found: i32 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, wanted, "{pragma}");
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let place = place();
    used(&place).await;
    let store = Sqlite::open(&place.path).await.unwrap();
    assert!(store.get(&record("a").key).await.unwrap().is_some());
    assert_eq!(create(&store, "a").await.unwrap(), Put::Conflict);
}

#[tokio::test]
async fn the_writing_connection_waits_for_the_disk_and_overwrites() {
    let place = place();
    let mut opened = super::open::open(&place.path, &Settings::default()).await.unwrap();
    for (pragma, wanted) in [("synchronous", 2), ("secure_delete", 1)] {
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"));
        let found: i32 = sqlx::query_scalar(sql).fetch_one(&mut opened.writing).await.unwrap();
        assert_eq!(found, wanted, "{pragma}");
    }
}

#[tokio::test]
async fn garbage_is_refused() {
    let place = place();
    fs::write(&place.path, "this is no database, whatever its name may say".repeat(100)).unwrap();
    assert!(matches!(refusal(&place.path).await, OpenError::Damaged { .. }));
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    let place = place();
    fs::write(&place.path, "").unwrap();
    assert!(matches!(refusal(&place.path).await, OpenError::Foreign { application_id: 0, .. }));
    assert_eq!(fs::metadata(&place.path).unwrap().len(), 0, "the refused file was changed");
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let place = place();
    used(&place).await;
    execute(&place.path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let whole = fs::read(&place.path).unwrap();
    for length in [whole.len() - 4096, whole.len() / 2, 4096, 50] {
        fs::write(&place.path, &whole[..length]).unwrap();
        assert!(matches!(refusal(&place.path).await, OpenError::Damaged { .. }), "cut to {length}");
    }
}

#[tokio::test]
async fn a_file_with_a_broken_page_is_refused() {
    let place = place();
    used(&place).await;
    execute(&place.path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let mut bytes = fs::read(&place.path).unwrap();
    bytes[4096..8192].fill(0x55);
    fs::write(&place.path, bytes).unwrap();
    assert!(matches!(refusal(&place.path).await, OpenError::Damaged { .. }));
}

#[tokio::test]
async fn another_applications_database_is_refused() {
    let place = place();
    let mut connection =
        SqliteConnectOptions::new().filename(&place.path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE theirs (x)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert!(matches!(refusal(&place.path).await, OpenError::Foreign { application_id: 0, .. }));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = place();
    used(&place).await;
    execute(&place.path, "PRAGMA user_version = 2").await;
    assert!(matches!(refusal(&place.path).await, OpenError::Newer { found: 2, .. }));
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() {
    let place = place();
    fs::write(place.directory.path().join("tokenkeep.db-wal"), "x").unwrap();
    assert!(matches!(refusal(&place.path).await, OpenError::Missing { .. }));
}

/// Even for root: nothing can be made in there, or it is no directory, or the file is one.
#[tokio::test]
async fn a_place_where_nothing_can_be_made_is_refused() {
    let place = place();
    let file = place.directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [place.directory.path().join("no/such/directory.db"), file.join("x.db"), "/proc/tokenkeep.db".into()] {
        assert!(matches!(refusal(&path).await, OpenError::Unusable { .. }), "{}", path.display());
    }
    assert!(matches!(refusal(place.directory.path()).await, OpenError::Unusable { .. }));
}

/// Eight processes start at once on nothing. (Of one process here; SQLite's own locks make no difference.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_makes_the_database() {
    let place = place();
    let openings: Vec<_> = (0..8)
        .map(|n| {
            let path = place.path.clone();
            tokio::spawn(async move {
                let store = Sqlite::open(path).await.unwrap();
                create(&store, &n.to_string()).await.unwrap();
                store
            })
        })
        .collect();
    let mut stores = Vec::new();
    for opening in openings {
        stores.push(opening.await.unwrap());
    }
    for store in stores {
        assert_eq!(store.list(&all()).await.unwrap().records.len(), 8);
    }
    let left = fs::read_dir(&place.directory)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".new"));
    assert_eq!(left.count(), 0, "what was made aside is still there");
}

/// A page limit stands for the full disk: SQLite fails in the same way, and it holds for root too.
#[tokio::test]
async fn a_full_disk_refuses_writes_and_goes_on_reading() {
    let place = place();
    used(&place).await;
    let limit = Settings { pragmas: vec![("max_page_count", "24".into())], ..Settings::default() };
    let store = Sqlite::open_with(&place.path, &limit).await.unwrap();
    let mut written = vec!["a".to_owned()];
    let refused = loop {
        assert!(written.len() < 200, "the disk never fills");
        let id = format!("b{:03}", written.len());
        match create(&store, &id).await {
            Ok(Put::Committed(_)) => written.push(id),
            other => break other,
        }
    };
    assert!(matches!(&refused, Err(StoreError::Unavailable { reason, .. }) if reason.contains("full")), "{refused:?}");
    // Again and again, and several at once.
    let (one, two) = tokio::join!(create(&store, "x"), create(&store, "y"));
    for put in [one, two] {
        assert!(matches!(put, Err(StoreError::Unavailable { .. })), "{put:?}");
    }
    // What there is can be read, and what needs no room can be written.
    assert_eq!(store.list(&all()).await.unwrap().records.len(), written.len());
    let a = store.get(&record("a").key).await.unwrap().unwrap();
    let shorter = Record { sealed: Vec::new(), ..a.clone() };
    assert!(matches!(store.put(&shorter, Expect::Version(&a.version)).await, Ok(Put::Committed(_))));
    store.close().await;
    // With room again, nothing is missing and nothing refused has come to be.
    let store = Sqlite::open(&place.path).await.unwrap();
    let found: Vec<_> = store.list(&all()).await.unwrap().records.into_iter().map(|r| r.key.id).collect();
    assert_eq!(found, written);
}

/// `query_only` stands for the read-only directory, which does not bind root; the error is SQLite's own for both.
#[tokio::test]
async fn a_read_only_file_refuses_writes_and_goes_on_reading() {
    let place = place();
    used(&place).await;
    let read_only = Settings { pragmas: vec![("query_only", "ON".into())], ..Settings::default() };
    let store = Sqlite::open_with(&place.path, &read_only).await.unwrap();
    let put = create(&store, "b").await;
    assert!(
        matches!(&put, Err(StoreError::Unavailable { reason, .. }) if reason.contains("cannot be written")),
        "{put:?}"
    );
    let a = store.get(&record("a").key).await.unwrap().unwrap();
    let deletion = store.delete(&a, &a.version, a.changed_at).await;
    assert!(matches!(deletion, Err(StoreError::Unavailable { .. })), "{deletion:?}");
    let sweep = store.sweep(jiff::Timestamp::MAX).await;
    assert!(matches!(sweep, Err(StoreError::Unavailable { .. })), "{sweep:?}");
    assert!(store.get(&record("b").key).await.unwrap().is_none());
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_locked_database_refuses_writes_and_goes_on_reading() {
    let place = place();
    used(&place).await;
    let hasty = Settings { busy_timeout: Duration::from_millis(1), ..Settings::default() };
    let store = Sqlite::open_with(&place.path, &hasty).await.unwrap();
    let mut other = raw(&place.path).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let put = create(&store, "b").await;
    assert!(matches!(&put, Err(StoreError::Unavailable { reason, .. }) if reason.contains("lock")), "{put:?}");
    assert!(store.get(&record("a").key).await.unwrap().is_some());
    assert!(store.claim(Kind::Connection, jiff::Timestamp::MAX, 1, jiff::Timestamp::MAX).await.is_err());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert!(matches!(create(&store, "b").await, Ok(Put::Committed(_))));
}

/// One that cannot be done does not take its neighbours down. (SQLite refuses values of a gigabyte; a trigger does
/// as well.)
#[tokio::test]
async fn a_write_that_fails_spoils_no_other_of_its_transaction() {
    let place = place();
    used(&place).await;
    execute(
        &place.path,
        "CREATE TRIGGER spoil BEFORE INSERT ON records WHEN new.id = 'spoilt' BEGIN SELECT raise(ROLLBACK, 'no'); END",
    )
    .await;
    let store = Sqlite::open(&place.path).await.unwrap();
    let (one, spoilt, two) = tokio::join!(create(&store, "one"), create(&store, "spoilt"), create(&store, "two"));
    assert!(matches!(one, Ok(Put::Committed(_))), "{one:?}");
    assert!(matches!(spoilt, Err(StoreError::Unavailable { .. })), "{spoilt:?}");
    assert!(matches!(two, Ok(Put::Committed(_))), "{two:?}");
    assert!(store.get(&record("two").key).await.unwrap().is_some());
}

#[tokio::test]
async fn a_row_that_is_no_record_is_corrupt() {
    let place = place();
    used(&place).await;
    let store = Sqlite::open(&place.path).await.unwrap();
    execute(&place.path, "UPDATE records SET changed_at = 9223372036854775807").await;
    let found = store.get(&record("a").key).await;
    assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{found:?}");
}

/// Each list and claim goes by an index in the end, so that its cost does not grow with the table.
#[tokio::test]
async fn lists_go_by_indexes() {
    let place = place();
    used(&place).await;
    let mut connection = raw(&place.path).await;
    for (sql, index) in [
        (
            "SELECT * FROM records WHERE kind = 'x' AND (tenant, id) > ('t', 'i') AND NOT deleted ORDER BY tenant, id LIMIT 9",
            "autoindex",
        ),
        (
            "SELECT * FROM records WHERE kind = 'x' AND tenant = 't' AND label_subject = 's' AND id > 'i' ORDER BY tenant, id LIMIT 9",
            "by_subject",
        ),
        ("SELECT * FROM records WHERE kind = 'x' AND due_at <= 1 ORDER BY due_at, tenant, id LIMIT 9", "by_due"),
        ("DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE expires_at <= 1 LIMIT 9)", "by_expiry"),
    ] {
        let plan =
            sqlx::query_as::<_, (i32, i32, i32, String)>(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
        let plan: Vec<_> = plan.fetch_all(&mut connection).await.unwrap().into_iter().map(|step| step.3).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE") || step.starts_with("SCAN")), "{sql}: {plan:?}");
    }
}
