//! The suite, on either engine.

use std::sync::Arc;

use tokenkeep_store::{
    Vault, VaultOptions,
    conformance::{CASES, Fault, Fixture, Hook, Outage, verdict},
};
use tokenkeep_testkit::ManualClock;

use crate::support::{Fake, entropy, own_path, server};

fn hook(act: impl Fn() + Send + Sync + 'static) -> Hook {
    Box::new(move || {
        act();
        Box::pin(std::future::ready(()))
    })
}

mod version_2 {
    use super::*;

    async fn fixture() -> Fixture {
        let fake = Arc::new(Fake::start().await);
        let (sealed, unsealed) = (Arc::clone(&fake), Arc::clone(&fake));
        let outage = Outage { begin: hook(move || sealed.vault.seal()), end: hook(move || unsealed.vault.unseal()) };
        Fixture::new(Arc::new(fake.store().await)).with_outage(outage).keeping(fake)
    }

    tokenkeep_store::conformance!(fixture);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_fault_is_caught() {
        for fault in Fault::ALL {
            let found = verdict(fault, fixture().await).await;
            println!("{fault:?} is caught by {}: {found}", fault.caught_by());
        }
    }
}

mod version_1 {
    use super::*;

    async fn store(vault: &tokenkeep_services::VaultAt) -> Arc<Vault> {
        let server = server(vault.address(), vault.root_token(), &ManualClock::default());
        let options = VaultOptions { path: own_path(), ..VaultOptions::new(server, entropy()) };
        Arc::new(Vault::connect(options).await.unwrap())
    }

    /// On the server that is everybody's, which must not be sealed.
    async fn fixture() -> Fixture {
        Fixture::new(store(&tokenkeep_services::running().vault).await)
    }

    /// On a server that may.
    async fn private_fixture() -> Fixture {
        let vault = Arc::new(tokenkeep_services::Vault::start().unwrap());
        let (sealed, unsealed) = (Arc::clone(&vault), Arc::clone(&vault));
        let outage =
            Outage { begin: hook(move || sealed.seal().unwrap()), end: hook(move || unsealed.unseal().unwrap()) };
        Fixture::new(store(&vault).await).with_outage(outage).keeping(vault)
    }

    tokenkeep_store::conformance!(fixture);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_sealed_server_is_not_absence() {
        let case = CASES.iter().find(|case| case.name == "an_outage_is_not_absence").unwrap();
        (case.run)(private_fixture().await).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_fault_is_caught() {
        for fault in Fault::ALL {
            let fixture = if fault == Fault::UnavailableAsAbsent { private_fixture().await } else { fixture().await };
            let found = verdict(fault, fixture).await;
            println!("{fault:?} is caught by {}: {found}", fault.caught_by());
        }
    }
}
