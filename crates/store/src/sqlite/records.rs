//! The statements.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use tokenkeep_core::{
    Tenant,
    ports::{Filter, Kind, LabelName, Query, Record, RecordKey, Scope, SealingKeyId, Version},
};

use super::writer::Operation;
use crate::page::{Position, from_microseconds};

/// The table and its indexes. Lists are in the order of `kind, tenant, id`; each index serves one filter.
/// There is none for `sealed_by`: keys retire seldom, writes are many.
pub(super) const SCHEMA: &str = "
CREATE TABLE records (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    expires_at INTEGER,
    due_at INTEGER,
    label_provider TEXT,
    label_subject TEXT,
    label_connection TEXT,
    sealed_by TEXT NOT NULL,
    sealed BLOB NOT NULL,
    deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    UNIQUE (kind, tenant, id)
) STRICT;
CREATE INDEX by_change ON records (kind, changed_at);
CREATE INDEX by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX by_due ON records (kind, due_at, tenant, id) WHERE due_at IS NOT NULL;
CREATE INDEX by_provider ON records (kind, label_provider, tenant, id) WHERE label_provider IS NOT NULL;
CREATE INDEX by_subject ON records (kind, label_subject, tenant, id) WHERE label_subject IS NOT NULL;
CREATE INDEX by_connection ON records (kind, label_connection, tenant, id) WHERE label_connection IS NOT NULL;
";

macro_rules! columns {
    () => {
        "kind, tenant, id, version, changed_at, expires_at, due_at, \
         label_provider, label_subject, label_connection, sealed_by, sealed, deleted"
    };
}

const GET: &str = concat!("SELECT ", columns!(), " FROM records WHERE kind = ?1 AND tenant = ?2 AND id = ?3");

// SQLite draws the version itself: whichever process writes, it is never one that was there before.
const INSERT: &str = concat!(
    "INSERT INTO records (",
    columns!(),
    ") VALUES (?1, ?2, ?3, lower(hex(randomblob(16))), ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    ON CONFLICT (kind, tenant, id) DO UPDATE SET
        version = excluded.version, changed_at = excluded.changed_at, expires_at = excluded.expires_at,
        due_at = excluded.due_at, label_provider = excluded.label_provider, label_subject = excluded.label_subject,
        label_connection = excluded.label_connection, sealed_by = excluded.sealed_by, sealed = excluded.sealed,
        deleted = excluded.deleted
    WHERE records.deleted
    RETURNING version"
);

const UPDATE: &str = "UPDATE records SET
        version = lower(hex(randomblob(16))), changed_at = ?4, expires_at = ?5, due_at = ?6, label_provider = ?7,
        label_subject = ?8, label_connection = ?9, sealed_by = ?10, sealed = ?11, deleted = ?12
    WHERE kind = ?1 AND tenant = ?2 AND id = ?3 AND version = ?13
    RETURNING version";

const DUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM records WHERE kind = ?1 AND due_at <= ?2 ORDER BY due_at, tenant, id LIMIT ?3"
);

const MOVE_DUE: &str = "UPDATE records SET due_at = ?4 WHERE rowid IN
    (SELECT rowid FROM records WHERE kind = ?1 AND due_at <= ?2 ORDER BY due_at, tenant, id LIMIT ?3)";

const SWEEP: &str = "DELETE FROM records WHERE rowid IN
    (SELECT rowid FROM records WHERE expires_at <= ?1 LIMIT ?2)";

/// A record as it is written; the database adds the version.
pub(super) struct Row {
    key: RecordKey,
    changed_at: i64,
    expires_at: Option<i64>,
    due_at: Option<i64>,
    labels: [Option<String>; 3],
    sealed_by: String,
    sealed: Vec<u8>,
    deleted: bool,
}

impl Row {
    pub(super) fn alive(record: &Record) -> Self {
        let label = |name| record.labels.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        Self {
            key: record.key.clone(),
            changed_at: record.changed_at.as_microsecond(),
            expires_at: record.expires_at.map(Timestamp::as_microsecond),
            due_at: record.due_at.map(Timestamp::as_microsecond),
            labels: LabelName::ALL.map(label),
            sealed_by: record.sealed_by.0.clone(),
            sealed: record.sealed.clone(),
            deleted: false,
        }
    }

    pub(super) fn tombstone(record: &Record, keep_until: Timestamp) -> Self {
        Self {
            expires_at: Some(keep_until.as_microsecond()),
            due_at: None,
            labels: [const { None }; 3],
            deleted: true,
            ..Self::alive(record)
        }
    }
}

/// Writes a row where there is none (or a tombstone), or in the place of one version.
pub(super) struct Write {
    pub(super) row: Row,
    pub(super) expect: Option<Version>,
}

impl Operation for Write {
    /// None: something else was there.
    type Done = Option<Version>;

    async fn run(&self, transaction: &mut SqliteConnection) -> Result<Self::Done, sqlx::Error> {
        let row = &self.row;
        let [provider, subject, connection] = &row.labels;
        let sql = if self.expect.is_some() { UPDATE } else { INSERT };
        let mut statement = sqlx::query_scalar::<_, String>(sql)
            .bind(row.key.kind.as_str())
            .bind(row.key.tenant.as_str())
            .bind(&row.key.id)
            .bind(row.changed_at)
            .bind(row.expires_at)
            .bind(row.due_at)
            .bind(provider)
            .bind(subject)
            .bind(connection)
            .bind(&row.sealed_by)
            .bind(&row.sealed)
            .bind(row.deleted);
        if let Some(version) = &self.expect {
            statement = statement.bind(&version.0);
        }
        Ok(statement.fetch_optional(transaction).await?.map(Version))
    }
}

/// Hands out what is due.
pub(super) struct Claim {
    pub(super) kind: Kind,
    pub(super) due_before: Timestamp,
    pub(super) limit: u32,
    pub(super) until: Timestamp,
}

impl Operation for Claim {
    type Done = Vec<Record>;

    // Two statements, since RETURNING knows no order; the transaction makes them one.
    async fn run(&self, transaction: &mut SqliteConnection) -> Result<Self::Done, sqlx::Error> {
        let (kind, due_before) = (self.kind.as_str(), self.due_before.as_microsecond());
        let due = sqlx::query(DUE).bind(kind).bind(due_before).bind(self.limit);
        let due = due.try_map(|row| record(&row)).fetch_all(&mut *transaction).await?;
        if due.is_empty() {
            return Ok(due);
        }
        let until = self.until.as_microsecond();
        let moved = sqlx::query(MOVE_DUE).bind(kind).bind(due_before).bind(self.limit).bind(until);
        moved.execute(transaction).await?;
        Ok(due.into_iter().map(|record| Record { due_at: from_microseconds(until), ..record }).collect())
    }
}

/// Removes some of what has expired.
pub(super) struct Sweep {
    pub(super) now: Timestamp,
}

impl Sweep {
    /// How many at most; fewer means that nothing is left.
    pub(super) const BITE: u64 = 500;
}

impl Operation for Sweep {
    type Done = u64;

    async fn run(&self, transaction: &mut SqliteConnection) -> Result<Self::Done, sqlx::Error> {
        let bite = i64::try_from(Self::BITE).unwrap_or(i64::MAX);
        let swept = sqlx::query(SWEEP).bind(self.now.as_microsecond()).bind(bite).execute(transaction).await?;
        Ok(swept.rows_affected())
    }
}

pub(super) async fn get(readers: &SqlitePool, key: &RecordKey) -> Result<Option<Record>, sqlx::Error> {
    let query = sqlx::query(GET).bind(key.kind.as_str()).bind(key.tenant.as_str()).bind(&key.id);
    query.try_map(|row| record(&row)).fetch_optional(readers).await
}

pub(super) async fn list(
    readers: &SqlitePool,
    query: &Query,
    after: Option<Position<'_>>,
    limit: usize,
) -> Result<Vec<Record>, sqlx::Error> {
    let mut sql = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM records"));
    push_conditions(&mut sql, query);
    match (after, &query.scope) {
        (None, _) => {}
        // The tenant is fixed already; so said, the index is used to the end.
        (Some(after), Scope::Tenant(_)) => {
            sql.push(" AND id > ").push_bind(after.id.to_owned());
        }
        (Some(after), Scope::Every) => {
            sql.push(" AND (tenant, id) > (").push_bind(after.tenant.to_owned());
            sql.push(", ").push_bind(after.id.to_owned()).push(")");
        }
    }
    sql.push(" ORDER BY tenant, id LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    sql.build().try_map(|row| record(&row)).fetch_all(readers).await
}

pub(super) async fn count(readers: &SqlitePool, query: &Query) -> Result<u64, sqlx::Error> {
    let mut sql = QueryBuilder::new("SELECT count(*) FROM records");
    push_conditions(&mut sql, query);
    let count: i64 = sql.build_query_scalar().fetch_one(readers).await?;
    Ok(count.unsigned_abs())
}

pub(super) async fn ping(readers: &SqlitePool) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1 FROM records LIMIT 1").fetch_optional(readers).await.map(drop)
}

fn push_conditions(sql: &mut QueryBuilder<Sqlite>, query: &Query) {
    sql.push(" WHERE kind = ").push_bind(query.kind.as_str());
    if let Scope::Tenant(tenant) = &query.scope {
        sql.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
    }
    match &query.filter {
        Filter::ChangedSince(since) => {
            sql.push(" AND changed_at >= ").push_bind(since.as_microsecond());
            return;
        }
        Filter::SealedBy(key) => {
            sql.push(" AND sealed_by = ").push_bind(key.0.clone());
            return;
        }
        Filter::All => {}
        Filter::Label(name, value) => {
            let column = match name {
                LabelName::Provider => " AND label_provider = ",
                LabelName::Subject => " AND label_subject = ",
                LabelName::Connection => " AND label_connection = ",
            };
            sql.push(column).push_bind(value.clone());
        }
        Filter::DueBefore(due) => {
            sql.push(" AND due_at <= ").push_bind(due.as_microsecond());
        }
        Filter::ExpiresBetween(from, to) => {
            sql.push(" AND expires_at >= ").push_bind(from.as_microsecond());
            sql.push(" AND expires_at < ").push_bind(to.as_microsecond());
        }
    }
    // Only what changed and what a key sealed is looked for among the dead.
    sql.push(" AND NOT deleted");
}

/// What a row of `columns!` holds.
fn record(row: &SqliteRow) -> Result<Record, sqlx::Error> {
    let time = |micros: i64| from_microseconds(micros).ok_or_else(|| no_record("a time out of range"));
    let mut labels = Vec::new();
    for (name, column) in LabelName::ALL.into_iter().zip(7..) {
        if let Some(value) = row.try_get(column)? {
            labels.push((name, value));
        }
    }
    Ok(Record {
        key: RecordKey {
            kind: Kind::from_stored(row.try_get(0)?).ok_or_else(|| no_record("an unknown kind"))?,
            tenant: Tenant::from_stored(row.try_get(1)?).map_err(|e| sqlx::Error::Decode(e.into()))?,
            id: row.try_get(2)?,
        },
        version: Version(row.try_get(3)?),
        changed_at: time(row.try_get(4)?)?,
        expires_at: row.try_get::<Option<i64>, _>(5)?.map(time).transpose()?,
        due_at: row.try_get::<Option<i64>, _>(6)?.map(time).transpose()?,
        labels,
        sealed_by: SealingKeyId(row.try_get(10)?),
        sealed: row.try_get(11)?,
        deleted: row.try_get(12)?,
    })
}

fn no_record(what: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}
