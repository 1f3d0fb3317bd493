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
            barrier.hashes = open(&barrier, &record)?;
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
