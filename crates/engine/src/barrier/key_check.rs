use tokenkeep_core::{
    Tenant,
    ports::{
        Clock, Expect, Filter, Kind, Put, Query, Record, RecordKey, Scope, SealingKeyId, Store, StoreError, Version,
    },
};
use zeroize::Zeroizing;

use super::{Barrier, Hashes, OpenError, Place, root_key::KEY_LEN};

/// Why a store and a root key do not belong together. None of these goes away by waiting, except [`Self::Store`].
#[derive(Debug, thiserror::Error)]
pub enum KeyCheckError {
    /// The store was sealed with another root key.
    #[error(
        "wrong sealing key: this store was sealed with the key {}, but {} is configured. \
         Configure the key this store was created with, or another store; nothing was changed",
        sealed_by.0, configured.0
    )]
    WrongKey {
        /// The key it was sealed with.
        sealed_by: SealingKeyId,
        /// The key we have.
        configured: SealingKeyId,
    },
    /// There are records, but nothing that proves the key.
    #[error(
        "this store holds records but no key check record, so nothing proves that the sealing key is the right one. \
         Restore the store from a backup made by tokenkeep, or use an empty one; nothing was changed"
    )]
    MissingCheck,
    /// The key is known, but the check record is damaged.
    #[error("the store's key check record is damaged ({reason}). Restore the store from a backup; nothing was changed")]
    Damaged {
        /// For the log.
        reason: String,
    },
    /// The store did not answer. Try again later.
    #[error("the sealing key could not be checked against the store")]
    Store(#[source] StoreError),
    /// Others kept changing the record between our read and our write, or writes were never answered. Try again later.
    #[error("the key check record could not be written: the store neither took nor refused it")]
    Undecided,
}

impl From<StoreError> for KeyCheckError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The check record holds this byte and the seed of the hashes, which must outlive a root key.
const CHECK_FORMAT: u8 = 1;

/// How often a lost race is run again. Two are enough against one other; the rest is for a store that loses answers.
const ATTEMPTS: usize = 8;

/// Proves that `barrier` holds the root key of `store`: opens the check record, or, in an empty store, puts one there.
/// Returns the barrier with the hashes of this installation. Instances may start at the same time.
///
/// A check record sealed by a retired key is sealed again with the active one.
pub async fn verify_or_create(
    mut barrier: Barrier,
    store: &dyn Store,
    clock: &dyn Clock,
) -> Result<Barrier, KeyCheckError> {
    let key = check_key();
    for _ in 0..ATTEMPTS {
        if let Some(record) = store.get(&key).await?.filter(|r| !r.deleted) {
            barrier.hashes = Box::new(open(&barrier, &record)?);
            if record.sealed_by != barrier.key_id() {
                // Whoever wins this race, the record is sealed with an active key then; a loser checks on next start.
                store.put(&seal(&barrier, clock), Expect::Version(&record.version)).await?;
            }
            return Ok(barrier);
        }
        if !is_empty(store).await? {
            // Another first start may have come between the two reads.
            if store.get(&key).await?.is_none_or(|r| r.deleted) {
                return Err(KeyCheckError::MissingCheck);
            }
            continue;
        }
        match store.put(&seal(&barrier, clock), Expect::Absent).await? {
            Put::Committed(_) => return Ok(barrier),
            Put::Conflict | Put::Unknown => {}
        }
    }
    Err(KeyCheckError::Undecided)
}

fn check_key() -> RecordKey {
    RecordKey { tenant: Tenant::system(), kind: Kind::Meta, id: "sealing-key-check".to_owned() }
}

fn seal(barrier: &Barrier, clock: &dyn Clock) -> Record {
    let mut plain = Zeroizing::new([CHECK_FORMAT; 1 + KEY_LEN]);
    plain[1..].copy_from_slice(barrier.hashes.seed());
    let key = check_key();
    Record {
        sealed: barrier.seal(Place::Store, &key, &*plain),
        key,
        version: Version::default(),
        changed_at: clock.now().wall,
        expires_at: None,
        due_at: None,
        labels: Vec::new(),
        sealed_by: barrier.key_id(),
        deleted: false,
    }
}

fn open(barrier: &Barrier, record: &Record) -> Result<Hashes, KeyCheckError> {
    let damaged = |reason: &str| KeyCheckError::Damaged { reason: reason.to_owned() };
    let plain = barrier.open(Place::Store, &record.key, &record.sealed).map_err(|error| match error {
        OpenError::UnknownKey { id } => KeyCheckError::WrongKey { sealed_by: id, configured: barrier.key_id() },
        OpenError::Tampered | OpenError::Malformed | OpenError::FutureVersion { .. } => damaged(&error.to_string()),
    })?;
    match plain.split_first() {
        Some((&CHECK_FORMAT, seed)) => {
            let mut fixed = Zeroizing::new([0; KEY_LEN]);
            if seed.len() != fixed.len() {
                return Err(damaged("it has the wrong length"));
            }
            fixed.copy_from_slice(seed);
            Ok(Hashes::of_seed(fixed))
        }
        _ => Err(damaged("it was written by a later tokenkeep")),
    }
}

async fn is_empty(store: &dyn Store) -> Result<bool, StoreError> {
    for kind in Kind::ALL {
        let query = Query { scope: Scope::Every, kind, filter: Filter::All, limit: 1, cursor: None };
        if !store.list(&query).await?.records.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tokenkeep_core::ports::Entropy;
    use tokenkeep_store::{
        Memory,
        layers::{Answer, Call, Layer, Layered, Pending},
    };
    use tokenkeep_testkit::{ManualClock, SeededEntropy};

    use super::*;
    use crate::barrier::tests::root;

    fn barrier(active: u8, retired: &[u8]) -> Barrier {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(u64::from(active)));
        let retired: Vec<_> = retired.iter().map(|byte| root(*byte)).collect();
        Barrier::new(&root(active), &retired, entropy)
    }

    async fn check(barrier: Barrier, store: &dyn Store) -> Result<Barrier, KeyCheckError> {
        verify_or_create(barrier, store, &ManualClock::default()).await
    }

    async fn put_something(store: &dyn Store) {
        let key = RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: "google/alice".to_owned() };
        let record = Record { key, ..seal(&barrier(1, &[]), &ManualClock::default()) };
        store.put(&record, Expect::Absent).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_start_makes_the_record_and_the_next_one_opens_it() {
        let store = Memory::new();
        check(barrier(1, &[]), &store).await.unwrap();
        put_something(&store).await;
        check(barrier(1, &[]), &store).await.unwrap();
    }

    #[tokio::test]
    async fn another_root_key_is_refused_and_changes_nothing() {
        let store = Memory::new();
        check(barrier(1, &[]), &store).await.unwrap();
        let before = store.get(&check_key()).await.unwrap();
        let error = check(barrier(2, &[]), &store).await.unwrap_err();
        let KeyCheckError::WrongKey { sealed_by, configured } = &error else { panic!("{error:?}") };
        assert_eq!((sealed_by, configured), (&root(1).id(), &root(2).id()));
        assert_eq!(store.get(&check_key()).await.unwrap(), before);
    }

    #[tokio::test]
    async fn records_without_a_check_are_refused() {
        let store = Memory::new();
        put_something(&store).await;
        assert!(matches!(check(barrier(1, &[]), &store).await, Err(KeyCheckError::MissingCheck)));
        assert_eq!(store.get(&check_key()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn damage_is_not_a_wrong_key() {
        let store = Memory::new();
        check(barrier(1, &[]), &store).await.unwrap();
        let mut record = store.get(&check_key()).await.unwrap().unwrap();
        *record.sealed.last_mut().unwrap() ^= 1;
        let version = record.version.clone();
        store.put(&record, Expect::Version(&version)).await.unwrap();
        assert!(matches!(check(barrier(1, &[]), &store).await, Err(KeyCheckError::Damaged { .. })));
    }

    #[tokio::test]
    async fn hashes_outlive_the_root_key() {
        let store = Memory::new();
        let hash = |barrier: &Barrier| barrier.hashes().api_key("tk_abc");
        let first = hash(&check(barrier(1, &[]), &store).await.unwrap());
        let rotated = check(barrier(2, &[1]), &store).await.unwrap();
        assert_eq!(hash(&rotated), first);
        // The record is sealed with the new key now, so the old one may go.
        let later = check(barrier(2, &[]), &store).await.unwrap();
        assert_eq!(hash(&later), first);
        assert_ne!(hash(&barrier(2, &[])), first);
    }

    /// Another instance starts for the first time just before this one's call of `operation`.
    #[derive(Debug)]
    struct Rival {
        store: Arc<Memory>,
        operation: &'static str,
        root: u8,
        done: AtomicBool,
    }

    impl Layer for Rival {
        fn call<'a, T: Answer + 'a>(&'a self, call: Call, future: Pending<'a, T>) -> Pending<'a, T> {
            Box::pin(async move {
                if call.operation == self.operation && !self.done.swap(true, Ordering::SeqCst) {
                    check(barrier(self.root, &[]), &*self.store).await.unwrap();
                    put_something(&*self.store).await;
                }
                future.await
            })
        }
    }

    #[tokio::test]
    async fn first_starts_may_race() {
        for operation in ["get", "list", "put"] {
            for (rival, agree) in [(1, true), (2, false)] {
                let store = Arc::new(Memory::new());
                let layer = Rival { store: store.clone(), operation, root: rival, done: AtomicBool::new(false) };
                let result = check(barrier(1, &[]), &Layered::around(store, layer)).await;
                match result {
                    Ok(_) => assert!(agree, "{operation}"),
                    Err(KeyCheckError::WrongKey { .. }) => assert!(!agree, "{operation}"),
                    Err(other) => panic!("{operation}: {other}"),
                }
            }
        }
    }
}
