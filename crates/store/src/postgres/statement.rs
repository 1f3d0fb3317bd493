//! A statement and its values, which can be sent in two ways.
//!
//! Prepared, a statement is parsed once per connection and costs one round trip from then on. A pooler in transaction
//! mode gives every statement any connection, and what was prepared is on another; there a statement is sent whole,
//! its values written into it, which costs one round trip as well, and the server some parsing.

use std::{borrow::Cow, fmt::Write as _};

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, postgres::PgRow};

/// What stands in the place of `$1`, `$2` ...
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Bytes(&'a [u8]),
    Number(i64),
    MaybeNumber(Option<i64>),
    Truth(bool),
}

/// One statement. Every one of ours returns rows.
#[derive(Clone, Debug)]
pub(super) struct Statement<'a> {
    sql: Cow<'static, str>,
    values: Vec<Value<'a>>,
}

impl<'a> Statement<'a> {
    pub(super) fn new(sql: &'static str, values: Vec<Value<'a>>) -> Self {
        Self { sql: sql.into(), values }
    }

    /// Goes on with `sql` and, if there is one, a value.
    pub(super) fn push(&mut self, sql: &str, value: Option<Value<'a>>) -> &mut Self {
        let text = self.sql.to_mut();
        text.push_str(sql);
        if let Some(value) = value {
            self.values.push(value);
            text.push('$');
            text.push_str(&self.values.len().to_string());
        }
        self
    }

    /// Sends it prepared.
    pub(super) async fn fetch_prepared(&self, connection: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut query = sqlx::query(AssertSqlSafe(self.sql.clone()));
        for value in &self.values {
            query = match *value {
                Value::Text(text) => query.bind(text),
                Value::MaybeText(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Number(number) => query.bind(number),
                Value::MaybeNumber(number) => query.bind(number),
                Value::Truth(truth) => query.bind(truth),
            };
        }
        query.fetch_all(connection).await
    }

    /// Sends it whole, after `prefix`, in the same transaction.
    pub(super) async fn fetch_whole(
        &self,
        connection: &mut PgConnection,
        prefix: &str,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(self.whole(prefix)))).await
    }

    fn whole(&self, prefix: &str) -> String {
        let mut parts = self.sql.split('$');
        let mut sql = String::with_capacity(512);
        sql.push_str(prefix);
        sql.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = part.split_at(digits);
            let value = number.parse::<usize>().ok().and_then(|n| self.values.get(n.checked_sub(1)?));
            push_literal(&mut sql, value.copied());
            sql.push_str(rest);
        }
        sql
    }
}

/// Of texts and bytes only letters, digits and their hexadecimal form ever reach the statement, so none can end its
/// literal, whatever it holds and however the server is set.
fn push_literal(sql: &mut String, value: Option<Value<'_>>) {
    match value {
        Some(Value::Text(text) | Value::MaybeText(Some(text))) => push_text(sql, text),
        Some(Value::Bytes(bytes)) => {
            sql.push_str("decode('");
            for byte in bytes {
                push_hex(sql, *byte);
            }
            sql.push_str("', 'hex')");
        }
        Some(Value::Number(number) | Value::MaybeNumber(Some(number))) => {
            // Writing to a String never fails.
            let _ = write!(sql, "'{number}'::bigint");
        }
        Some(Value::Truth(truth)) => sql.push_str(if truth { "TRUE" } else { "FALSE" }),
        Some(Value::MaybeText(None) | Value::MaybeNumber(None)) | None => sql.push_str("NULL"),
    }
}

fn push_text(sql: &mut String, text: &str) {
    sql.push_str("E'");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            sql.push(byte.into());
        } else {
            sql.push_str("\\x");
            push_hex(sql, byte);
        }
    }
    sql.push('\'');
}

fn push_hex(sql: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    sql.push(DIGITS[usize::from(byte >> 4)].into());
    sql.push(DIGITS[usize::from(byte & 15)].into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_into_their_places() {
        let values = vec![
            Value::Text("a'b\\\"é$1"),
            Value::MaybeText(None),
            Value::Bytes(&[0, 255]),
            Value::Number(-5),
            Value::Truth(true),
        ];
        let mut statement = Statement::new("SELECT $1, $2, $3, $4, $5, $1", values);
        statement.push(" WHERE x = ", Some(Value::MaybeNumber(Some(7)))).push(" LIMIT 1", None);
        assert_eq!(
            statement.whole("SET LOCAL y = 1; "),
            "SET LOCAL y = 1; SELECT E'a\\x27b\\x5c\\x22\\xc3\\xa9\\x241', NULL, decode('00ff', 'hex'), '-5'::bigint, \
             TRUE, E'a\\x27b\\x5c\\x22\\xc3\\xa9\\x241' WHERE x = '7'::bigint LIMIT 1"
        );
    }
}
