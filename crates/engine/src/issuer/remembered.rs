//! What this instance remembers of the store: for some seconds by itself, for longer while the bus tells it of every
//! change.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokenkeep_core::Boot;

use crate::cache::Lease;

/// How long something is believed without asking the store, where no bus tells of changes.
const SOFT_LIFE: Duration = Duration::from_secs(5);
/// The same while the bus does.
pub(super) const TRUSTED_LIFE: Duration = Duration::from_mins(1);

/// Values by key. What was changed is forgotten at once, and what was read before it was forgotten is not put in again.
pub(super) struct Remembered<K, V, S> {
    entries: moka::sync::Cache<K, Entry<V>, S>,
    forgotten: AtomicU64,
    lease: Arc<Lease>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    seen: Boot,
}

/// When the store was asked.
#[derive(Clone, Copy)]
pub(super) struct Question {
    at: Boot,
    forgotten: u64,
}

impl<K, V, S> Remembered<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + Default + 'static,
{
    pub(super) fn new(capacity: u64, lease: Arc<Lease>) -> Self {
        let entries = moka::sync::Cache::builder().max_capacity(capacity).build_with_hasher(S::default());
        Self { entries, forgotten: AtomicU64::new(0), lease }
    }

    /// What is remembered, if it may still be believed. Takes no lock, does no I/O.
    pub(super) fn get(&self, key: &K, now: Boot) -> Option<V> {
        self.seen(key, now).map(|(value, _)| value)
    }

    /// The same, and when the store was asked for it.
    pub(super) fn seen(&self, key: &K, now: Boot) -> Option<(V, Boot)> {
        let Entry { value, seen } = self.entries.get(key)?;
        let age = now.since(seen);
        let believed = age < SOFT_LIFE || (age < TRUSTED_LIFE && self.lease.holds(now));
        believed.then_some((value, seen))
    }

    /// To be called before the store is asked.
    pub(super) fn asking(&self, now: Boot) -> Question {
        Question { at: now, forgotten: self.forgotten.load(SeqCst) }
    }

    /// Takes the answer to `question`, unless something was forgotten since.
    pub(super) fn insert(&self, key: &K, value: V, question: Question)
    where
        K: Clone,
    {
        if self.forgotten.load(SeqCst) != question.forgotten {
            return;
        }
        self.entries.insert(key.clone(), Entry { value, seen: question.at });
        // Whoever forgot it meanwhile may have come before the insertion.
        if self.forgotten.load(SeqCst) != question.forgotten {
            self.entries.invalidate(key);
        }
    }

    pub(super) fn forget(&self, key: &K) {
        self.forgotten.fetch_add(1, SeqCst);
        self.entries.invalidate(key);
    }

    pub(super) fn forget_all(&self) {
        self.forgotten.fetch_add(1, SeqCst);
        self.entries.invalidate_all();
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.entry_count()
    }
}

impl<K, V, S> fmt::Debug for Remembered<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}
