//! The one suite, on a server, on a partitioned table, through a pooler; and the faults on purpose.

use std::sync::Arc;

use tokenkeep_store::{
    Postgres, PostgresOptions,
    conformance::{Fault, run_all, verdict},
};

use crate::support::Database;

async fn all_pass(database: Database, store: Postgres) {
    let store = Arc::new(store);
    let report = run_all(async || database.fixture(&store).await).await;
    let unpassed: Vec<_> = report.outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    assert!(unpassed.is_empty(), "{unpassed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_directly() {
    let database = Database::hasty().await;
    let store = database.store().await;
    assert!(!store.is_pooled());
    all_pass(database, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_through_a_pooler() {
    let database = Database::hasty().await;
    let store = database.pooled_store().await;
    all_pass(database, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_in_partitions() {
    let database = Database::hasty().await;
    let options = PostgresOptions { partitions: 4, ..PostgresOptions::new(database.url()) };
    let store = Postgres::connect(options).await.unwrap();
    all_pass(database, store).await;
}

/// Some installations have it so; then writers meet with serialization failures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_where_transactions_are_serializable() {
    let database = Database::hasty().await;
    database
        .execute(format!("ALTER DATABASE {} SET default_transaction_isolation = serializable", database.name))
        .await;
    let store = database.store().await;
    all_pass(database, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_caught() {
    let database = Database::hasty().await;
    let store = Arc::new(database.store().await);
    for fault in Fault::ALL {
        let found = verdict(fault, database.fixture(&store).await).await;
        // The case that fails has not come to the end of its outage.
        (database.opening())().await;
        println!("{fault:?} is caught by {}: {found}", fault.caught_by());
    }
}
