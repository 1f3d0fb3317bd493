//! How the schema comes to be, and who may use it.

use sqlx::{Connection, Executor, PgConnection, Row};
use tokenkeep_core::ports::{Expect, Put, Store};
use tokenkeep_store::{
    Postgres, PostgresOptions,
    postgres::{OpenError, SCHEMA_VERSION},
};

use crate::support::{Database, record};

async fn ten_at_once(url: String) {
    let openings: Vec<_> = (0..10)
        .map(|n| {
            let options = PostgresOptions { pool_size: 1, ..PostgresOptions::new(url.clone()) };
            tokio::spawn(async move {
                let store = Postgres::connect(options).await.unwrap();
                let put = store.put(&record(&n.to_string()), Expect::Absent).await.unwrap();
                assert!(matches!(put, Put::Committed(_)));
            })
        })
        .collect();
    for opening in openings {
        opening.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_may_open_an_empty_database_at_once() {
    let database = Database::new().await;
    ten_at_once(database.url()).await;
    let row = database.row("SELECT count(*), (SELECT count(*) FROM tokenkeep.schema) FROM tokenkeep.records").await;
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (10, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_may_open_an_empty_database_at_once_through_a_pooler() {
    let database = Database::new().await;
    ten_at_once(database.pooled_url()).await;
    assert_eq!(database.row("SELECT count(*) FROM tokenkeep.records").await.get::<i64, _>(0), 10);
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused_unless_it_says_otherwise() {
    let database = Database::new().await;
    database.store().await.close().await;
    let next = SCHEMA_VERSION + 1;
    // A later version has migrated, and says that ours may go on.
    database.execute(format!("UPDATE tokenkeep.schema SET version = {next}")).await;
    let store = database.store().await;
    assert!(matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
    database.execute(format!("UPDATE tokenkeep.schema SET version = {}, min_compatible = {next}", next + 1)).await;
    let refused = Postgres::connect(PostgresOptions::new(database.url())).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Newer { found, min_compatible, .. } if (*found, *min_compatible) == (next + 1, next))
    );
    assert!(refused.to_string().contains("from the future"), "{refused}");
    // Who is at work already is not disturbed.
    assert!(matches!(store.put(&record("b"), Expect::Absent).await, Ok(Put::Committed(_))));
}

#[tokio::test]
async fn the_table_is_hashed_into_as_many_partitions_as_were_asked_for() {
    let database = Database::hasty().await;
    let options = PostgresOptions { partitions: 3, ..PostgresOptions::new(database.url()) };
    let store = Postgres::connect(options).await.unwrap();
    for n in 0..30 {
        store.put(&record(&n.to_string()), Expect::Absent).await.unwrap();
    }
    let row = database.row("SELECT count(DISTINCT tableoid), count(*) FROM tokenkeep.records").await;
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (3, 30));
    // Whoever asks for something else finds what is there.
    assert!(database.store().await.ping().await.is_ok());
}

/// Each list and claim goes by an index in the end, so that its cost does not grow with the table.
#[tokio::test]
async fn lists_go_by_indexes() {
    let database = Database::new().await;
    database.store().await.close().await;
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    // The table is empty, and reading all of it would be cheapest.
    connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off").await.unwrap();
    for (rest, index) in [
        ("kind = 'x' AND (tenant, id) > ('t', 'i') AND NOT deleted ORDER BY tenant, id LIMIT 9", "records_pkey"),
        ("kind = 'x' AND tenant = 't' AND id > 'i' AND label_subject = 's' ORDER BY tenant, id LIMIT 9", "by_subject"),
        ("kind = 'x' AND due_at <= 1 ORDER BY due_at, tenant, id LIMIT 9 FOR UPDATE SKIP LOCKED", "by_due"),
        ("kind = 'x' AND changed_at >= 1", "by_change"),
        ("expires_at <= 1 LIMIT 9 FOR UPDATE SKIP LOCKED", "by_expiry"),
    ] {
        let sql = format!("EXPLAIN SELECT kind FROM tokenkeep.records WHERE {rest}");
        let plan = connection.fetch_all(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{rest}: {plan:#?}");
        assert!(
            !plan.iter().any(|step| step.contains("Sort") || step.contains("Filter: (due_at")),
            "{rest}: {plan:#?}"
        );
    }
}
