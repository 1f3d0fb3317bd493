//! The suite passes on honest stores, and fails on every dishonest one.

use std::{future::ready, sync::Arc};

use tokenkeep_core::ports::Store;

use super::{CASES, Fault, Faulty, Fixture, Outage, Stop, run_all};

/// The case that must catch each fault; others may as well.
fn caught_by(fault: Fault) -> &'static str {
    match fault {
        Fault::VersionIgnored => "put_needs_the_version",
        Fault::CheckedThenWritten => "no_increment_is_lost",
        Fault::VersionReused => "versions_are_never_reused",
        Fault::LabelNotMoved => "labels_move_with_the_record",
        Fault::TenantIgnored => "tenants_do_not_see_each_other",
        Fault::ExpiredServed | Fault::SweptEarly => "sweep_goes_by_the_time_it_is_told",
        Fault::ClaimTwice => "nothing_is_claimed_twice",
        Fault::ClaimChangesVersion => "a_claim_leaves_the_version_alone",
        Fault::UnavailableAsAbsent => "an_outage_is_not_absence",
        Fault::TombstoneListed => "a_tombstone_is_in_no_list_but_two",
        Fault::PagedByOffset => "paging_is_steady_while_others_come_and_go",
    }
}

fn with(fault: Fault) -> impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> {
    move |inner| Arc::new(Faulty::new(inner, fault))
}

/// What the case that must catch `fault` says of it.
async fn verdict(fault: Fault, fixture: Fixture) -> String {
    let case = CASES.iter().find(|case| case.name == caught_by(fault)).expect("the case exists");
    match (case.run)(fixture.map(with(fault))).await {
        Err(Stop::Failed(what)) => what,
        other => panic!("{} did not catch {fault:?}: {other:?}", case.name),
    }
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
            assert!(caught.contains(&caught_by(fault)), "{fault:?} is caught by {caught:?} only");
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
            println!("{fault:?} is caught by {}: {found}", caught_by(fault));
        }
    }
}
