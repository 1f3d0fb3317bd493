//! The statements about records.

use jiff::Timestamp;
use sqlx::{Row as _, postgres::PgRow};
use tokenkeep_core::{
    Tenant,
    ports::{Filter, Kind, LabelName, Query, Record, RecordKey, Scope, SealingKeyId, Version},
};

use super::statement::{Statement, Value};
use crate::page::{Position, from_microseconds};

macro_rules! columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "kind, ",
            $prefix,
            "tenant, ",
            $prefix,
            "id, ",
            $prefix,
            "version, ",
            $prefix,
            "changed_at, ",
            $prefix,
            "expires_at, ",
            $prefix,
            "due_at, ",
            $prefix,
            "label_provider, ",
            $prefix,
            "label_subject, ",
            $prefix,
            "label_connection, ",
            $prefix,
            "sealed_by, ",
            $prefix,
            "sealed, ",
            $prefix,
            "deleted"
        )
    };
}

const GET: &str =
    concat!("SELECT ", columns!(""), " FROM tokenkeep.records WHERE kind = $1 AND tenant = $2 AND id = $3");

// The server draws the version itself: whoever writes, it is never one that was there before.
const INSERT: &str = concat!(
    "INSERT INTO tokenkeep.records AS there (",
    columns!(""),
    ") VALUES ($1, $2, $3, gen_random_uuid()::text, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (kind, tenant, id) DO UPDATE SET
        version = excluded.version, changed_at = excluded.changed_at, expires_at = excluded.expires_at,
        due_at = excluded.due_at, label_provider = excluded.label_provider, label_subject = excluded.label_subject,
        label_connection = excluded.label_connection, sealed_by = excluded.sealed_by, sealed = excluded.sealed,
        deleted = excluded.deleted
    WHERE there.deleted
    RETURNING version"
);

const UPDATE: &str = "UPDATE tokenkeep.records SET
        version = gen_random_uuid()::text, changed_at = $4, expires_at = $5, due_at = $6, label_provider = $7,
        label_subject = $8, label_connection = $9, sealed_by = $10, sealed = $11, deleted = $12
    WHERE kind = $1 AND tenant = $2 AND id = $3 AND version = $13
    RETURNING version";

// What others are claiming or writing at this moment is left to them.
const CLAIM: &str = concat!(
    "WITH due AS MATERIALIZED (
        SELECT kind, tenant, id, due_at FROM tokenkeep.records WHERE kind = $1 AND due_at <= $2
        ORDER BY due_at, tenant, id LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    UPDATE tokenkeep.records AS r SET due_at = $4 FROM due
    WHERE r.kind = due.kind AND r.tenant = due.tenant AND r.id = due.id
    RETURNING ",
    columns!("r."),
    ", due.due_at"
);

const SWEEP: &str = "WITH expired AS MATERIALIZED (
        SELECT kind, tenant, id FROM tokenkeep.records WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM tokenkeep.records AS r USING expired AS e
        WHERE r.kind = e.kind AND r.tenant = e.tenant AND r.id = e.id RETURNING 1
    )
    SELECT count(*) FROM gone";

/// How many records one statement removes at most; fewer means that nothing is left.
pub(super) const BITE: u64 = 500;

pub(super) fn get(key: &RecordKey) -> Statement<'_> {
    Statement::new(GET, place(key))
}

pub(super) fn ping() -> Statement<'static> {
    Statement::new("SELECT 1 FROM tokenkeep.records LIMIT 1", Vec::new())
}

/// Writes a record that lives.
pub(super) fn put<'a>(record: &'a Record, expect: Option<&'a Version>) -> Statement<'a> {
    let label = |name| record.labels.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
    let expires_at = record.expires_at.map(Timestamp::as_microsecond);
    let due_at = record.due_at.map(Timestamp::as_microsecond);
    write(record, expires_at, due_at, LabelName::ALL.map(label), false, expect)
}

/// Writes its tombstone.
pub(super) fn bury<'a>(record: &'a Record, version: &'a Version, keep_until: Timestamp) -> Statement<'a> {
    write(record, Some(keep_until.as_microsecond()), None, [None; 3], true, Some(version))
}

fn write<'a>(
    record: &'a Record,
    expires_at: Option<i64>,
    due_at: Option<i64>,
    labels: [Option<&'a str>; 3],
    deleted: bool,
    expect: Option<&'a Version>,
) -> Statement<'a> {
    let mut values = place(&record.key);
    values.extend([
        Value::Number(record.changed_at.as_microsecond()),
        Value::MaybeNumber(expires_at),
        Value::MaybeNumber(due_at),
    ]);
    values.extend(labels.map(Value::MaybeText));
    values.extend([Value::Text(&record.sealed_by.0), Value::Bytes(&record.sealed), Value::Truth(deleted)]);
    match expect {
        None => Statement::new(INSERT, values),
        Some(version) => {
            values.push(Value::Text(&version.0));
            Statement::new(UPDATE, values)
        }
    }
}

fn place(key: &RecordKey) -> Vec<Value<'_>> {
    vec![Value::Text(key.kind.as_str()), Value::Text(key.tenant.as_str()), Value::Text(&key.id)]
}

pub(super) fn claim(kind: Kind, due_before: Timestamp, limit: u32, until: Timestamp) -> Statement<'static> {
    let values = vec![
        Value::Text(kind.as_str()),
        Value::Number(due_before.as_microsecond()),
        Value::Number(limit.into()),
        Value::Number(until.as_microsecond()),
    ];
    Statement::new(CLAIM, values)
}

/// The records of a claim, earliest first: an UPDATE returns its rows in no order.
pub(super) fn claimed(rows: &[PgRow]) -> Result<Vec<Record>, sqlx::Error> {
    let was_due = |row: &PgRow| row.try_get::<i64, _>(13);
    let mut records =
        rows.iter().map(|row| Ok((was_due(row)?, record(row)?))).collect::<Result<Vec<_>, sqlx::Error>>()?;
    records.sort_by(|(a, one), (b, other)| (a, &one.key).cmp(&(b, &other.key)));
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// Removes [`BITE`] of what has expired.
pub(super) fn sweep(now: Timestamp) -> Statement<'static> {
    let bite = i64::try_from(BITE).unwrap_or(i64::MAX);
    Statement::new(SWEEP, vec![Value::Number(now.as_microsecond()), Value::Number(bite)])
}

pub(super) fn list<'a>(query: &'a Query, after: Option<Position<'a>>, limit: usize) -> Statement<'a> {
    let mut statement = Statement::new(concat!("SELECT ", columns!(""), " FROM tokenkeep.records"), Vec::new());
    push_conditions(&mut statement, query);
    match (after, &query.scope) {
        (None, _) => {}
        // The tenant is fixed already; so said, the index is used to the end.
        (Some(after), Scope::Tenant(_)) => {
            statement.push(" AND id > ", Some(Value::Text(after.id)));
        }
        (Some(after), Scope::Every) => {
            statement.push(" AND (tenant, id) > (", Some(Value::Text(after.tenant)));
            statement.push(", ", Some(Value::Text(after.id))).push(")", None);
        }
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    statement.push(" ORDER BY tenant, id LIMIT ", Some(Value::Number(limit)));
    statement
}

pub(super) fn count(query: &Query) -> Statement<'_> {
    let mut statement = Statement::new("SELECT count(*) FROM tokenkeep.records", Vec::new());
    push_conditions(&mut statement, query);
    statement
}

fn push_conditions<'a>(statement: &mut Statement<'a>, query: &'a Query) {
    statement.push(" WHERE kind = ", Some(Value::Text(query.kind.as_str())));
    if let Scope::Tenant(tenant) = &query.scope {
        statement.push(" AND tenant = ", Some(Value::Text(tenant.as_str())));
    }
    let micros = |at: &Timestamp| Some(Value::Number(at.as_microsecond()));
    match &query.filter {
        Filter::ChangedSince(since) => {
            statement.push(" AND changed_at >= ", micros(since));
            return;
        }
        Filter::SealedBy(key) => {
            statement.push(" AND sealed_by = ", Some(Value::Text(&key.0)));
            return;
        }
        Filter::All => {}
        Filter::Label(name, value) => {
            let column = match name {
                LabelName::Provider => " AND label_provider = ",
                LabelName::Subject => " AND label_subject = ",
                LabelName::Connection => " AND label_connection = ",
            };
            statement.push(column, Some(Value::Text(value)));
        }
        Filter::DueBefore(due) => {
            statement.push(" AND due_at <= ", micros(due));
        }
        Filter::ExpiresBetween(from, to) => {
            statement.push(" AND expires_at >= ", micros(from)).push(" AND expires_at < ", micros(to));
        }
    }
    // Only what changed and what a key sealed is looked for among the dead.
    statement.push(" AND NOT deleted", None);
}

/// The version under which a write was committed, if it was.
pub(super) fn version(rows: &[PgRow]) -> Result<Option<Version>, sqlx::Error> {
    rows.first().map(|row| row.try_get(0).map(Version)).transpose()
}

/// The number that is the whole answer.
pub(super) fn number(rows: &[PgRow]) -> Result<u64, sqlx::Error> {
    let row = rows.first().ok_or_else(|| no_record("a count without a row"))?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

/// What a row of `columns!` holds.
pub(super) fn record(row: &PgRow) -> Result<Record, sqlx::Error> {
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
