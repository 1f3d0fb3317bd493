//! Databases of one's own.

use std::{fmt::Display, sync::Arc};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokenkeep_core::ports::BoxFuture;
use tokenkeep_services::{PgbouncerAt, PostgresAt, running};
use tokenkeep_store::{
    Postgres, PostgresOptions,
    conformance::{Fixture, Hook, Outage},
};

/// An empty database on the shared server, gone when this is.
pub struct Database {
    pub name: String,
    server: PostgresAt,
}

impl Database {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// With what else `CREATE DATABASE` is told.
    pub async fn with(how: &str) -> Self {
        let server = PostgresAt::clone(&running().postgres);
        let mut admin = PgConnection::connect(&server.url("postgres")).await.unwrap();
        let drawn = admin.fetch_one("SELECT 't' || replace(gen_random_uuid()::text, '-', '')").await.unwrap();
        let name: String = drawn.get(0);
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} {how}"))).await.unwrap();
        Self { name, server }
    }

    /// Whose commits wait for no disk, for tests that make many.
    pub async fn hasty() -> Self {
        let database = Self::new().await;
        database.execute(format!("ALTER DATABASE {} SET synchronous_commit = off", database.name)).await;
        database
    }

    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Through the pooler.
    pub fn pooled_url(&self) -> String {
        running().pgbouncer.url(&self.name)
    }

    pub async fn store(&self) -> Postgres {
        Postgres::connect(PostgresOptions::new(self.url())).await.unwrap()
    }

    pub async fn pooled_store(&self) -> Postgres {
        let store = Postgres::connect(PostgresOptions::new(self.pooled_url())).await.unwrap();
        assert!(store.is_pooled(), "the pooler was not noticed");
        store
    }

    pub async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    pub async fn execute(&self, sql: impl Display) {
        self.connection().await.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_string()))).await.unwrap();
    }

    /// Lets nobody in, and throws out who is.
    fn closing(&self) -> Hook {
        self.admin(
            "ALTER DATABASE {} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'",
        )
    }

    fn opening(&self) -> Hook {
        self.admin("ALTER DATABASE {} ALLOW_CONNECTIONS true")
    }

    fn admin(&self, sql: &str) -> Hook {
        let (url, sql) = (self.server.url("postgres"), sql.replace("{}", &self.name));
        Box::new(move || {
            let (url, sql) = (url.clone(), sql.clone());
            Box::pin(async move {
                let mut admin = PgConnection::connect(&url).await.unwrap();
                // One by one: ALTER DATABASE must be seen by who is let in meanwhile.
                for sql in sql.split(';') {
                    admin.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
                }
            })
        })
    }

    /// One fixture after the other, all in this database: to make and drop one takes longer than most cases.
    pub async fn fixture(&self, store: &Arc<Postgres>) -> Fixture {
        // A case that failed may have left it closed.
        (self.opening())().await;
        self.execute("DELETE FROM tokenkeep.records").await;
        let outage = if store.is_pooled() {
            // What breaks is the pooler.
            Outage { begin: self.pooler(["DISABLE", "KILL"]), end: self.pooler(["ENABLE", "RESUME"]) }
        } else {
            Outage { begin: self.closing(), end: self.opening() }
        };
        Fixture::new(store.clone()).with_outage(outage)
    }

    fn pooler(&self, commands: [&'static str; 2]) -> Hook {
        let (pooler, name) = (PgbouncerAt::clone(&running().pgbouncer), self.name.clone());
        Box::new(move || -> BoxFuture<'static, ()> {
            for command in commands {
                pooler.sql("pgbouncer", &format!("{command} {name}")).unwrap();
            }
            Box::pin(std::future::ready(()))
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // What is left over costs the next run nothing but room.
        let _ = self.server.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}
