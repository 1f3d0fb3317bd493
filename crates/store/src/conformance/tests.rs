//! The suite passes on honest stores, and fails on every dishonest one.

use std::{future::ready, sync::Arc};

use tokenkeep_core::ports::Store;

use super::{Fault, Faulty, Fixture, Outage, Stop, run_all, verdict};

fn with(fault: Fault) -> impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> {
    move |inner| Arc::new(Faulty::new(inner, fault))
}

#[cfg(feature = "memory")]
mod memory {
    use super::*;
    use crate::{Memory, conformance::Breakable};

    fn fixture() -> impl Future<Output = Fixture> {
        ready(Breakable::fixture(Arc::new(Memory::new())))
    }

    crate::conformance!(fixture);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_fault_is_caught() {
        for fault in Fault::ALL {
            let report = run_all(async || fixture().await.map(with(fault))).await;
            let caught: Vec<_> = report.failures().map(|(name, _)| name).collect();
            println!("{fault:?} is caught by {caught:?}: {}", verdict(fault, fixture().await).await);
            assert!(caught.contains(&fault.caught_by()), "{fault:?} is caught by {caught:?} only");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_broken_is_skipped_and_reported() {
        let report = run_all(async || Fixture { outage: None::<Outage>, ..fixture().await }).await;
        assert_eq!(report.failures().count(), 0, "{report:?}");
        let skipped = report.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Err(Stop::Skipped(_)))).count();
        assert_eq!(skipped, 1, "{report:?}");
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use crate::{Sqlite, conformance::Breakable};

    async fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(directory.path().join("tokenkeep.db")).await.unwrap();
        Breakable::fixture(Arc::new(store)).keeping(directory)
    }

    crate::conformance!(fixture);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_fault_is_caught() {
        for fault in Fault::ALL {
            let found = verdict(fault, fixture().await).await;
            println!("{fault:?} is caught by {}: {found}", fault.caught_by());
        }
    }
}
