//! A sweep takes what is expired, and nothing that somebody writes meanwhile.

use std::sync::Arc;

use tokenkeep_core::ports::{Expect, Put, Record, Store as _};

use crate::support::{Fake, committed, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_while_it_is_swept_loses_nothing() {
    let fake = Fake::start().await;
    let store = Arc::new(fake.store().await);
    for round in 0..20 {
        let expired =
            Record { expires_at: Some("2026-01-01T00:00:00Z".parse().unwrap()), ..record(&format!("{round}")) };
        let version = committed(store.put(&expired, Expect::Absent).await.unwrap());
        let renewed = Record { expires_at: None, ..expired.clone() };
        let sweeper = {
            let store = store.clone();
            tokio::spawn(async move { store.sweep("2026-06-01T00:00:00Z".parse().unwrap()).await })
        };
        let put = store.put(&renewed, Expect::Version(&version)).await.unwrap();
        sweeper.await.unwrap().unwrap();
        let there = store.get(&expired.key).await.unwrap();
        match put {
            Put::Committed(version) => assert_eq!(there.map(|r| r.version), Some(version), "round {round}"),
            Put::Conflict => assert_eq!(there, None, "round {round}"),
            Put::Unknown => panic!("nothing was lost in round {round}"),
        }
    }
}
