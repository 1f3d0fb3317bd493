//! Counting with rows.

use std::{sync::Arc, time::Duration};

use tokenkeep_core::ports::{BoxFuture, Counter, CounterError, Limit, StoreError, Taken};

use super::{
    error::{Failure, store_error},
    records,
    session::{Access, Session},
    statement::{Statement, Value},
};

/// A counter in the database of a [`Postgres`](super::Postgres) store: one row per bucket, by the database's clock.
///
/// Each take is one statement that locks the bucket's row, reads the clock once it holds it, and is durable when
/// answered: a bucket that everybody takes from allows as many takes in a second as the disk allows commits one after
/// the other. Buckets that are full again go with [`Store::sweep`](tokenkeep_core::ports::Store::sweep).
#[derive(Clone, Debug)]
pub struct PostgresCounter {
    session: Arc<Session>,
}

// In all three, `clock` is a table of its own so that the time is asked for once; and in DO UPDATE that is when the row
// is ours.
macro_rules! clock {
    () => {
        "(SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS clock"
    };
}

/// `taken` holds the time at which the bucket will be full again: an empty one needs `$4` for it, one taken delays it
/// by `$3`.
const BUCKET: &str = concat!(
    "INSERT INTO tokenkeep.counters AS there (bucket, shape, taken, wait, expires_at)
    SELECT $1, $2, ARRAY[now + $3], 0, now + $3 FROM ",
    clock!(),
    "
    ON CONFLICT (bucket) DO UPDATE SET (shape, taken, wait, expires_at) = (
        SELECT $2, CASE WHEN room THEN ARRAY[full_at + $3] ELSE ARRAY[full_at] END,
            CASE WHEN room THEN 0 ELSE full_at + $3 - $4 - now END,
            CASE WHEN room THEN full_at + $3 ELSE full_at END
        FROM ",
    clock!(),
    ",
            LATERAL (SELECT CASE WHEN there.shape = $2 THEN least(greatest(there.taken[1], now), now + $4) ELSE now END
                AS full_at) AS bucket,
            LATERAL (SELECT full_at + $3 <= now + $4 AS room) AS verdict
    )
    RETURNING wait"
);

/// `taken` holds when each of those was taken that still count: of the last `$4`, at most `$3`.
const WINDOW: &str = concat!(
    "INSERT INTO tokenkeep.counters AS there (bucket, shape, taken, wait, expires_at)
    SELECT $1, $2, ARRAY[now], 0, now + $4 FROM ",
    clock!(),
    "
    ON CONFLICT (bucket) DO UPDATE SET (shape, taken, wait, expires_at) = (
        SELECT $2, CASE WHEN room THEN live || now ELSE there.taken END,
            CASE WHEN room THEN 0 ELSE least(live[cardinality(live) - $3 + 1] + $4 - now, $4) END,
            CASE WHEN room THEN now + $4 ELSE there.expires_at END
        FROM ",
    clock!(),
    ",
            LATERAL (SELECT coalesce(array_agg(at ORDER BY at), ARRAY[]::bigint[]) AS live
                FROM unnest(there.taken) AS at WHERE there.shape = $2 AND at > now - $4) AS past,
            LATERAL (SELECT cardinality(live) < $3 AS room) AS verdict
    )
    RETURNING wait"
);

const GIVE_BACK_TO_BUCKET: &str = "UPDATE tokenkeep.counters SET taken = ARRAY[taken[1] - $3]
    WHERE bucket = $1 AND shape = $2 RETURNING 0::bigint";

const GIVE_BACK_TO_WINDOW: &str = "UPDATE tokenkeep.counters SET taken = taken[2:]
    WHERE bucket = $1 AND shape = $2 RETURNING 0::bigint";

const SWEEP: &str = concat!(
    "WITH expired AS MATERIALIZED (
        SELECT bucket FROM tokenkeep.counters, ",
    clock!(),
    " WHERE expires_at <= now LIMIT $1 FOR UPDATE OF counters SKIP LOCKED
    ), gone AS (
        DELETE FROM tokenkeep.counters AS c USING expired WHERE c.bucket = expired.bucket RETURNING 1
    )
    SELECT count(*) FROM gone"
);

impl PostgresCounter {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session }
    }

    async fn take(&self, bucket: &str, limit: Limit) -> Result<Taken, StoreError> {
        let shape = shape(limit);
        let (sql, count, time) = match limit {
            Limit::Bucket { burst, every } => {
                let one = micros(every);
                (BUCKET, one, one.saturating_mul(burst.get().into()).min(FOREVER))
            }
            Limit::Window { count, per } => (WINDOW, count.get().into(), micros(per)),
        };
        let values = vec![Value::Text(bucket), Value::Text(&shape), Value::Number(count), Value::Number(time)];
        let rows = self.session.run(&Statement::new(sql, values), Access::Write).await?;
        match records::number(&rows).map_err(|e| store_error(&e))? {
            0 => Ok(Taken::Granted),
            wait => Ok(Taken::Wait(Duration::from_micros(wait))),
        }
    }

    async fn give_back(&self, bucket: &str, limit: Limit) -> Result<(), StoreError> {
        let shape = shape(limit);
        let mut values = vec![Value::Text(bucket), Value::Text(&shape)];
        let sql = match limit {
            Limit::Bucket { every, .. } => {
                values.push(Value::Number(micros(every)));
                GIVE_BACK_TO_BUCKET
            }
            Limit::Window { .. } => GIVE_BACK_TO_WINDOW,
        };
        self.session.run(&Statement::new(sql, values), Access::Write).await?;
        Ok(())
    }
}

/// What tells one limit from another.
fn shape(limit: Limit) -> String {
    match limit {
        Limit::Bucket { burst, every } => format!("b{burst}/{}", every.as_nanos()),
        Limit::Window { count, per } => format!("w{count}/{}", per.as_nanos()),
    }
}

impl Counter for PostgresCounter {
    fn take<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<Taken, CounterError>> {
        Box::pin(async move { self.take(bucket, limit).await.map_err(unavailable) })
    }

    fn give_back<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<(), CounterError>> {
        Box::pin(async move { self.give_back(bucket, limit).await.map_err(unavailable) })
    }
}

fn unavailable(error: StoreError) -> CounterError {
    match error {
        StoreError::Unavailable { reason, .. } | StoreError::Corrupt { reason } => CounterError { reason },
    }
}

/// Removes the buckets that are as good as new.
pub(super) async fn sweep(session: &Session) -> Result<(), Failure> {
    loop {
        let bite = i64::try_from(records::BITE).unwrap_or(i64::MAX);
        let rows = session.run(&Statement::new(SWEEP, vec![Value::Number(bite)]), Access::Write).await?;
        if records::number(&rows).map_err(|e| Failure::InDoubt(store_error(&e)))? < records::BITE {
            return Ok(());
        }
    }
}

/// As good as for ever, and far from where sums overflow: a thousand years.
const FOREVER: i64 = 1000 * 365 * 24 * 3600 * 1_000_000;

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).map_or(FOREVER, |micros| micros.clamp(1, FOREVER))
}
