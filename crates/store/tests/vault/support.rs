//! A Vault to talk to, and records to put there.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokenkeep_core::{
    Tenant,
    ports::{Entropy as _, Kind, Put, Record, RecordKey, SealingKeyId, Version},
};
use tokenkeep_store::{Vault, VaultAuth, VaultOptions, VaultServer};
use tokenkeep_testkit::{FakeVault, ManualClock, SeededEntropy};

/// No two stores of a process draw the same versions.
pub fn entropy() -> Arc<SeededEntropy> {
    static SEED: AtomicU64 = AtomicU64::new(0);
    Arc::new(SeededEntropy::new(SEED.fetch_add(1 << 32, Ordering::Relaxed)))
}

pub fn server(address: impl Into<String>, token: &str, clock: &ManualClock) -> VaultServer {
    VaultServer::new(address, VaultAuth::Token(token.into()), Arc::new(clock.clone()))
}

/// A fake, and what it takes to reach it.
pub struct Fake {
    pub vault: FakeVault,
    pub clock: ManualClock,
}

impl Fake {
    pub async fn start() -> Self {
        let clock = ManualClock::default();
        Self { vault: FakeVault::start(clock.clone()).await, clock }
    }

    /// As root.
    pub fn options(&self) -> VaultOptions {
        VaultOptions::new(server(self.vault.address(), self.vault.root_token(), &self.clock), entropy())
    }

    pub fn with_auth(&self, auth: VaultAuth) -> VaultOptions {
        let server = VaultServer { auth, ..self.options().server };
        VaultOptions { server, ..self.options() }
    }

    pub async fn store(&self) -> Vault {
        Vault::connect(self.options()).await.unwrap()
    }
}

/// A path on a shared server that nobody else has.
pub fn own_path() -> String {
    let mut bytes = [0; 8];
    // The name of a temporary file is as good a source as any, and needs no further library.
    let file = tempfile::NamedTempFile::new().unwrap();
    SeededEntropy::new(u64::from(std::process::id())).fill(&mut bytes);
    format!("tokenkeep-test/{}-{:x}", file.path().file_name().unwrap().to_str().unwrap(), u64::from_le_bytes(bytes))
}

pub fn record(id: &str) -> Record {
    Record {
        key: RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: id.into() },
        version: Version::default(),
        changed_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
        due_at: None,
        labels: Vec::new(),
        sealed_by: SealingKeyId("k1".into()),
        sealed: id.as_bytes().to_vec(),
        deleted: false,
    }
}

pub fn committed(put: Put) -> Version {
    match put {
        Put::Committed(version) => version,
        other => panic!("{other:?}"),
    }
}
