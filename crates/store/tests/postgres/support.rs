//! Databases of one's own.

use std::{fmt::Display, sync::Arc};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, postgres::PgRow};
use tokenkeep_core::{
    Tenant,
    ports::{BoxFuture, Kind, LabelName, Record, RecordKey, SealingKeyId, Store, Version},
};
use tokenkeep_services::{PgbouncerAt, PostgresAt, running};
use tokenkeep_store::{
    Postgres, PostgresOptions,
    conformance::{Fixture, Hook, Outage},
};

/// An empty database on the shared server, gone when this is.
pub struct Database {
    pub name: String,
    server: PostgresAt,
    has_user: bool,
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
        Self { name, server, has_user: false }
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

    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.server.url_of(user, password, &self.name)
    }

    /// A user who may do nothing, with the password `pw`, gone with the database.
    pub async fn user(&mut self) -> String {
        let user = format!("{}_user", self.name);
        self.has_user = true;
        self.execute(format!("CREATE ROLE {user} LOGIN PASSWORD 'pw'")).await;
        user
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

    pub async fn row(&self, sql: impl Display) -> PgRow {
        self.connection().await.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql.to_string()))).await.unwrap()
    }

    /// Lets nobody in, and throws out who is.
    fn closing(&self) -> Hook {
        self.admin(
            "ALTER DATABASE {} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'",
        )
    }

    pub fn opening(&self) -> Hook {
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
        if self.has_user {
            let _ = self.server.sql("postgres", &format!("DROP ROLE {}_user", self.name));
        }
    }
}

pub fn record(id: &str) -> Record {
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

/// What is there.
pub async fn read(store: &dyn Store, id: &str) -> Option<Record> {
    store.get(&record(id).key).await.unwrap()
}
