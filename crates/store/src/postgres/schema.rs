//! The schema `tokenkeep`, and how it comes to be.
//!
//! It makes and migrates itself when a store is opened. One row says which version it has and which is the oldest
//! tokenkeep that may still use it, so that the version before and the version after a migration run side by side.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, postgres::PgRow};

use super::error::{code, sqlstate};

/// The schema that this version writes.
pub const SCHEMA_VERSION: i32 = 1;

/// The oldest schema version whose tokenkeep may use what this version has migrated.
const MIN_COMPATIBLE: i32 = 1;

/// The most partitions a table may be given.
pub(super) const MAX_PARTITIONS: u16 = 256;

/// What a tokenkeep schema says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: i32,
    pub(super) min_compatible: i32,
}

impl Found {
    /// Whether it was migrated too far for this version.
    pub(super) fn is_from_the_future(self) -> bool {
        self.version > SCHEMA_VERSION && self.min_compatible > SCHEMA_VERSION
    }
}

/// The table and its indexes. Lists are in the order of `kind, tenant, id`; each index serves one filter. There is
/// none for `sealed_by`: keys retire seldom, writes are many. Nor is there one for what a counter forgets: counters
/// are few, and without it each take stays on its page.
const TABLES: &str = r#"
CREATE TABLE tokenkeep.schema (
    one boolean PRIMARY KEY CHECK (one),
    version integer NOT NULL,
    min_compatible integer NOT NULL
);
CREATE TABLE tokenkeep.records (
    kind text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    changed_at bigint NOT NULL,
    expires_at bigint,
    due_at bigint,
    label_provider text COLLATE "C",
    label_subject text COLLATE "C",
    label_connection text COLLATE "C",
    sealed_by text COLLATE "C" NOT NULL,
    sealed bytea NOT NULL,
    deleted boolean NOT NULL,
    PRIMARY KEY (kind, tenant, id)
) {partitioned};
CREATE INDEX by_change ON tokenkeep.records (kind, changed_at);
CREATE INDEX by_expiry ON tokenkeep.records (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX by_due ON tokenkeep.records (kind, due_at, tenant, id) WHERE due_at IS NOT NULL;
CREATE INDEX by_provider ON tokenkeep.records (kind, label_provider, tenant, id) WHERE label_provider IS NOT NULL;
CREATE INDEX by_subject ON tokenkeep.records (kind, label_subject, tenant, id) WHERE label_subject IS NOT NULL;
CREATE INDEX by_connection ON tokenkeep.records (kind, label_connection, tenant, id) WHERE label_connection IS NOT NULL;
CREATE TABLE tokenkeep.counters (
    bucket text COLLATE "C" PRIMARY KEY,
    shape text COLLATE "C" NOT NULL,
    taken bigint[] NOT NULL,
    wait bigint NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 50);
"#;

/// What the schema says, if there is one.
pub(super) async fn find(connection: &mut PgConnection) -> Result<Option<Found>, sqlx::Error> {
    let there = one(connection, "SELECT to_regclass('tokenkeep.schema') IS NOT NULL").await?;
    if !there.try_get::<bool, _>(0)? {
        return Ok(None);
    }
    let row = one(connection, "SELECT version, min_compatible FROM tokenkeep.schema").await?;
    Ok(Some(Found { version: row.try_get(0)?, min_compatible: row.try_get(1)? }))
}

/// Makes the schema, or brings it to this version; answers what it then is.
///
/// Any number of instances may do so at once: a lock lets one of them go first and the others find it done. Where
/// locks mean nothing, one makes the tables and the others fail, look again and find them.
pub(super) async fn migrate(connection: &mut PgConnection, partitions: u16) -> Result<Found, sqlx::Error> {
    const TRIES: u32 = 10;
    let mut tries = 1;
    loop {
        match migrate_once(connection, partitions).await {
            Err(error) if tries < TRIES && is_raced(&error) => tries += 1,
            ended => return ended,
        }
    }
}

async fn migrate_once(connection: &mut PgConnection, partitions: u16) -> Result<Found, sqlx::Error> {
    // Read committed: what the holder of the lock has made is seen once the lock is ours. All of it is sent unprepared
    // and in one transaction, which a pooler keeps on one connection.
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    transaction.execute(sqlx::raw_sql("SET LOCAL statement_timeout = 60000")).await?;
    // The lock ends with the transaction. The number is `tokenkp` in ASCII.
    transaction.execute(sqlx::raw_sql("SELECT pg_advisory_xact_lock(32773604352355184)")).await?;
    if let Some(found) = find(&mut transaction).await? {
        // There is no older version to migrate from yet.
        transaction.rollback().await?;
        return Ok(found);
    }
    let there = one(&mut transaction, "SELECT to_regnamespace('tokenkeep') IS NOT NULL").await?;
    if !there.try_get::<bool, _>(0)? {
        transaction.execute(sqlx::raw_sql("CREATE SCHEMA tokenkeep")).await?;
    }
    transaction.execute(sqlx::raw_sql(AssertSqlSafe(tables(partitions)))).await?;
    transaction.commit().await?;
    Ok(Found { version: SCHEMA_VERSION, min_compatible: MIN_COMPATIBLE })
}

fn tables(partitions: u16) -> String {
    let partitions = partitions.min(MAX_PARTITIONS);
    // By the id alone: every get, put and claimed record knows it, and one big tenant is spread like many small ones.
    let mut sql = TABLES.replace("{partitioned}", if partitions == 0 { "" } else { "PARTITION BY HASH (id)" });
    // Writing to a String never fails.
    for n in 0..partitions {
        let of = format!("MODULUS {partitions}, REMAINDER {n}");
        let _ =
            writeln!(sql, "CREATE TABLE tokenkeep.records_{n} PARTITION OF tokenkeep.records FOR VALUES WITH ({of});");
    }
    let _ = write!(sql, "INSERT INTO tokenkeep.schema VALUES (true, {SCHEMA_VERSION}, {MIN_COMPATIBLE});");
    sql
}

/// Whether another instance made the same at the same moment.
fn is_raced(error: &sqlx::Error) -> bool {
    const UNIQUE: &str = "23505";
    const SCHEMA_EXISTS: &str = "42P06";
    const TABLE_EXISTS: &str = "42P07";
    let raced = [code::SERIALIZATION_FAILURE, code::DEADLOCK, UNIQUE, SCHEMA_EXISTS, TABLE_EXISTS];
    sqlstate(error).is_some_and(|code| raced.contains(&code))
}

async fn one(connection: &mut PgConnection, sql: &'static str) -> Result<PgRow, sqlx::Error> {
    connection.fetch_one(sqlx::raw_sql(sql)).await
}
