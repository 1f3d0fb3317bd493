//! Replies that must not be lost: in the journal where there is one, in memory where it could not take them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokenkeep_core::{AttemptId, Connection, ConnectionId, refresh::Held};
use tokio::sync::Notify;

use crate::{
    journal::Journal,
    metrics::Metrics,
    records::{decode_held, encode_held},
};

/// The replies kept by this process.
#[derive(Debug)]
pub(crate) struct KeptReplies {
    journal: Option<Journal>,
    /// What the journal could not take, until the store has it.
    in_memory: Mutex<HashMap<ConnectionId, Arc<Held>>>,
    /// What is on its way into the journal.
    journaling: Mutex<HashMap<AttemptId, Journaling>>,
    /// Told of every reply that is not on its way any more.
    journaled: Notify,
    metrics: Arc<Metrics>,
}

/// What became of a reply while it was on its way into the journal: the store may be faster than the disk.
#[derive(Clone, Debug)]
struct Journaling {
    of: ConnectionId,
    meanwhile: Option<Meanwhile>,
}

#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Settled,
    Forgotten,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeptReplies {
    pub(crate) fn new(journal: Option<Journal>, metrics: Arc<Metrics>) -> Self {
        let (in_memory, journaling, journaled) = Default::default();
        Self { journal, in_memory, journaling, journaled, metrics }
    }

    fn in_memory(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Held>>> {
        lock(&self.in_memory)
    }

    /// Remembers `held` from now on; [`KeptReplies::keep`] makes it durable.
    pub(crate) fn remember(&self, held: Held) -> Arc<Held> {
        let held = Arc::new(held);
        let of = held.successor.id.clone();
        self.in_memory().insert(of.clone(), held.clone());
        if self.journal.is_some() {
            lock(&self.journaling).insert(held.attempt, Journaling { of, meanwhile: None });
        }
        self.gauge();
        held
    }

    /// Makes durable what is remembered. `Err` = it is in memory only; the reason is logged.
    pub(crate) async fn keep(&self, held: &Held) -> Result<(), ()> {
        let (id, attempt) = (&held.successor.id, held.attempt);
        let Some(journal) = &self.journal else { return Err(()) };
        let appended = journal.append(id, attempt, &encode_held(held)).await;
        // Under the lock, so that whatever comes from now on finds the entry in the journal.
        let mut journaling = lock(&self.journaling);
        let meanwhile = journaling.remove(&attempt).and_then(|journaling| journaling.meanwhile);
        if appended.is_ok() {
            self.forget_in_memory(id, attempt);
            match meanwhile {
                Some(Meanwhile::Settled) => journal.settle(id, attempt),
                Some(Meanwhile::Forgotten) => journal.release(id, attempt),
                None => {}
            }
        }
        drop(journaling);
        self.journaled.notify_waiters();
        self.gauge();
        appended.map_err(|error| {
            tracing::error!(integration = %id.integration, %error, "a reply could not be journaled");
        })
    }

    /// Waits until no reply is on its way into the journal. Until then one that the store has long had counts as one
    /// that only we have.
    pub(crate) async fn journaled(&self) {
        loop {
            let told = self.journaled.notified();
            if lock(&self.journaling).is_empty() {
                return;
            }
            told.await;
        }
    }

    /// The newest reply of `id` that is kept.
    pub(crate) async fn newest_of(&self, id: &ConnectionId) -> Option<Held> {
        if let Some(held) = self.in_memory().get(id) {
            return Some(held.as_ref().clone());
        }
        let entry = match self.journal.as_ref()?.newest(id).await {
            Ok(entry) => entry?,
            Err(error) => {
                tracing::error!(integration = %id.integration, %error, "a kept reply cannot be read");
                return None;
            }
        };
        match decode_held(&entry.payload) {
            Ok(held) => Some(held),
            Err(error) => {
                tracing::error!(integration = %id.integration, %error, "a kept reply cannot be read");
                None
            }
        }
    }

    /// Whether a reply is kept that `record` does not show. Asks memory only.
    pub(crate) fn may_be_ahead_of(&self, record: &Connection) -> bool {
        let in_memory = self.in_memory().get(&record.id).map(|held| held.attempt);
        let unsettled =
            in_memory.or_else(|| self.journal.as_ref().and_then(|journal| journal.newest_unsettled(&record.id)));
        unsettled.is_some_and(|attempt| record.committed_by != Some(attempt))
    }

    /// Whether the store is not known to have the reply to `attempt`, the last that was kept of `id`.
    pub(crate) fn is_unsettled(&self, id: &ConnectionId, attempt: AttemptId) -> bool {
        self.in_memory().get(id).is_some_and(|held| held.attempt == attempt)
            || self.journal.as_ref().is_some_and(|journal| journal.newest_unsettled(id) == Some(attempt))
    }

    /// Whether a reply is kept that the store does not have yet. Asks memory only.
    pub(crate) fn has_unsettled(&self, id: &ConnectionId) -> bool {
        self.in_memory().contains_key(id) || self.journal.as_ref().is_some_and(|j| j.newest_unsettled(id).is_some())
    }

    /// The store says what became of it. The journal keeps it all the same, in case the store rolls back.
    pub(crate) fn settled(&self, id: &ConnectionId, attempt: AttemptId) {
        if let Some(journaling) = lock(&self.journaling).get_mut(&attempt) {
            journaling.meanwhile.get_or_insert(Meanwhile::Settled);
        }
        self.forget_in_memory(id, attempt);
        if let Some(journal) = &self.journal {
            journal.settle(id, attempt);
        }
        self.gauge();
    }

    /// Forgets every reply of `id`: its user replaced or deleted what it would bring back.
    pub(crate) fn forget(&self, id: &ConnectionId) {
        for journaling in lock(&self.journaling).values_mut().filter(|journaling| journaling.of == *id) {
            journaling.meanwhile = Some(Meanwhile::Forgotten);
        }
        self.in_memory().remove(id);
        if let Some(journal) = &self.journal {
            while let Some(attempt) = journal.newest_attempt(id) {
                journal.release(id, attempt);
            }
        }
        self.gauge();
    }

    fn forget_in_memory(&self, id: &ConnectionId, attempt: AttemptId) {
        let mut in_memory = self.in_memory();
        if in_memory.get(id).is_some_and(|held| held.attempt == attempt) {
            in_memory.remove(id);
        }
    }

    /// How many replies the store does not have yet.
    pub(crate) fn unsettled(&self) -> usize {
        self.in_memory().len() + self.journal.as_ref().map_or(0, Journal::depth)
    }

    /// Whether a reply would be durable here; `None` = there is no journal.
    pub(crate) async fn is_writable(&self) -> Option<bool> {
        match &self.journal {
            None => None,
            Some(journal) => Some(journal.is_writable() || journal.probe().await),
        }
    }

    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    fn gauge(&self) {
        self.metrics.journal_depth.set(i64::try_from(self.unsettled()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokenkeep_core::{Fingerprint, Generation, InstanceId, id::Ulid};
    use tokenkeep_testkit::{ManualClock, SeededEntropy};

    use super::*;
    use crate::{
        barrier::{Barrier, RootKey},
        journal::Limits,
        records::tests::sample,
    };

    #[tokio::test]
    async fn what_the_store_had_before_the_disk_is_waited_for_and_then_settled() {
        let dir = tempfile::tempdir().unwrap();
        let entropy = Arc::new(SeededEntropy::default());
        let barrier = Arc::new(Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone()));
        let clock = Arc::new(ManualClock::default());
        let instance = InstanceId(Ulid::from_parts(1, 1));
        let journal = Journal::open(dir.path(), instance, Limits::default(), barrier, clock, entropy).unwrap();
        let kept = KeptReplies::new(Some(journal), Arc::default());
        kept.journaled().await;

        let successor = sample("alice");
        let (id, attempt, received_at) =
            (successor.id.clone(), AttemptId(Ulid::from_parts(1, 2)), successor.created_at);
        let (base, spent) = (Generation(0), Fingerprint([0; 16]));
        let held = kept.remember(Held { attempt, base, spent, successor, received_at });
        kept.settled(&id, attempt);
        let mut journaled = std::pin::pin!(kept.journaled());
        assert!(poll!(&mut journaled).is_pending());
        kept.keep(&held).await.unwrap();
        assert!(poll!(&mut journaled).is_ready());
        assert_eq!(kept.unsettled(), 0);
    }
}
