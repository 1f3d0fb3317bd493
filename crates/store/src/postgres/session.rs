//! How statements reach the server.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    PostgresOptions,
    error::{Failure, Left, left_by, reason, store_error, unavailable},
    statement::Statement,
};

/// How often a statement is sent again that others were in the way of.
const RETRIES: u32 = 8;

/// How long it steps back before the first of them; before each that follows, twice as long.
const STEP_BACK: Duration = Duration::from_millis(1);

/// How much longer than the server an answer is waited for: when it does not come by then, it is lost.
const GRACE: Duration = Duration::from_secs(1);

/// A connection that nobody used for so long is asked whether it lives, before it is used.
const STALE: Duration = Duration::from_secs(30);

/// Whether a statement may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The pool, and how to talk through it.
#[derive(Debug)]
pub(super) struct Session {
    pool: PgPool,
    pooled: bool,
    statement_timeout: Duration,
    health: Arc<Health>,
    steps: AtomicU32,
}

impl Session {
    /// No connection is made before it is needed.
    pub(super) fn new(connect: PgConnectOptions, pooled: bool, options: &PostgresOptions) -> Self {
        let health = Arc::new(Health::default());
        let (asked, refusals) = (health.clone(), health.clone());
        let pool = PgPoolOptions::new()
            .max_connections(options.pool_size.max(1))
            .acquire_timeout(options.acquire_timeout)
            // It would cost every call a round trip.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let doubtful = asked.doubts(meta.idle_for);
                Box::pin(async move { Ok(!doubtful || connection.ping().await.is_ok()) })
            })
            .after_connect(move |connection, _| {
                let health = refusals.clone();
                Box::pin(async move {
                    let primary = primary(connection).await;
                    health.refused(primary.as_ref().err().map(reason));
                    primary
                })
            })
            .connect_lazy_with(connect);
        Self { pool, pooled, statement_timeout: options.statement_timeout, health, steps: AtomicU32::new(0) }
    }

    /// Sends `statement` and gathers its rows.
    ///
    /// What provably changed nothing is sent again: a few times when others were in its way, once when the connection
    /// turned out to be dead. Of a write whose answer is lost nothing is known.
    pub(super) async fn run(&self, statement: &Statement<'_>, access: Access) -> Result<Vec<PgRow>, Failure> {
        let mut retries = 0;
        let mut reconnected = false;
        loop {
            let mut connection = self.pool.acquire().await.map_err(|e| self.unreachable(&e))?;
            let sent = timeout(self.statement_timeout + GRACE, self.send(&mut connection, statement, access));
            let error = match sent.await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) => error,
                Err(_) => {
                    self.lost(&mut connection);
                    return Err(Failure::InDoubt(unavailable("the server does not answer in time")));
                }
            };
            let left = left_by(&error);
            if matches!(left, Left::NoConnection | Left::Doubt) {
                self.lost(&mut connection);
            }
            match left {
                Left::NothingYet if retries < RETRIES => {
                    // Who waits holds no connection that others want.
                    drop(connection);
                    sleep(self.step_back(retries)).await;
                    retries += 1;
                }
                Left::NoConnection if !reconnected => reconnected = true,
                Left::Doubt if !reconnected && access == Access::Read => reconnected = true,
                Left::Doubt => return Err(Failure::InDoubt(store_error(&error))),
                Left::Nothing | Left::NothingYet | Left::NoConnection => {
                    return Err(Failure::NothingDone(store_error(&error)));
                }
            }
        }
    }

    /// Between half and one and a half times the step, spread by the golden ratio: who met do not meet again.
    fn step_back(&self, retries: u32) -> Duration {
        let spread = self.steps.fetch_add(0x9E37_79B9, Relaxed);
        (STEP_BACK * 2_u32.pow(retries)).mul_f64(0.5 + f64::from(spread) / f64::from(u32::MAX))
    }

    /// Closes what is idle now, and the rest as it comes back.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn send(
        &self,
        connection: &mut PgConnection,
        statement: &Statement<'_>,
        access: Access,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        if !self.pooled {
            return statement.fetch_prepared(connection).await;
        }
        // What a session would be told once. A replica refuses to read as if it could write, so that none answers for
        // the primary; a write it refuses anyway.
        let primary = if access == Access::Read { "SET TRANSACTION READ WRITE; " } else { "" };
        let limit = self.statement_timeout.as_millis();
        statement.fetch_whole(connection, &format!("{primary}SET LOCAL statement_timeout = {limit}; ")).await
    }

    /// It goes no further with this connection, and looks twice at those that idled meanwhile.
    fn lost(&self, connection: &mut PoolConnection<Postgres>) {
        self.health.failed();
        connection.close_on_drop();
    }

    fn unreachable(&self, error: &sqlx::Error) -> Failure {
        let refusal = self.health.refusal().filter(|_| matches!(error, sqlx::Error::PoolTimedOut));
        Failure::NothingDone(refusal.map_or_else(|| store_error(error), unavailable))
    }
}

/// Refuses a replica: what it answers may be outdated. None becomes one without breaking its connections.
pub(super) async fn primary(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let replica: bool = sqlx::Row::try_get(
        &sqlx::Executor::fetch_one(connection, sqlx::raw_sql("SELECT pg_is_in_recovery()")).await?,
        0,
    )?;
    if replica {
        Err(sqlx::Error::Configuration("the server is a replica, which takes no writes".into()))
    } else {
        Ok(())
    }
}

/// What is known of the connections.
#[derive(Debug, Default)]
struct Health(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    failed_at: Option<Instant>,
    refusal: Option<String>,
}

impl Health {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) {
        self.known().failed_at = Some(Instant::now());
    }

    /// Whether a connection that idled for so long may be dead, for all we know.
    fn doubts(&self, idle_for: Duration) -> bool {
        idle_for >= STALE || self.known().failed_at.is_some_and(|at| at.elapsed() <= idle_for)
    }

    fn refused(&self, why: Option<String>) {
        self.known().refusal = why;
    }

    fn refusal(&self) -> Option<String> {
        self.known().refusal.clone()
    }
}
