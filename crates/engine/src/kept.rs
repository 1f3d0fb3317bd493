//! Replies that must not be lost: in the journal where there is one, in memory where it could not take them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokenkeep_core::{AttemptId, Connection, ConnectionId, refresh::Held};

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
    metrics: Arc<Metrics>,
}

impl KeptReplies {
    pub(crate) fn new(journal: Option<Journal>, metrics: Arc<Metrics>) -> Self {
        Self { journal, in_memory: Mutex::default(), metrics }
    }

    fn in_memory(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Held>>> {
        self.in_memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers `held` from now on, and makes it durable. `Err` = it is in memory only; the reason is logged.
    pub(crate) async fn keep(&self, held: Held) -> Result<(), ()> {
        let id = held.successor.id.clone();
        let attempt = held.attempt;
        let bytes = encode_held(&held);
        self.in_memory().insert(id.clone(), Arc::new(held));
        self.gauge();
        let Some(journal) = &self.journal else { return Err(()) };
        match journal.append(&id, attempt, &bytes).await {
            Ok(()) => {
                self.forget_in_memory(&id, attempt);
                Ok(())
            }
            Err(error) => {
                tracing::error!(integration = %id.integration, %error, "a reply could not be journaled");
                Err(())
            }
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

    /// The store says what became of it. The journal keeps it all the same, in case the store rolls back.
    pub(crate) fn settled(&self, id: &ConnectionId, attempt: AttemptId) {
        self.forget_in_memory(id, attempt);
        if let Some(journal) = &self.journal {
            journal.settle(id, attempt);
        }
        self.gauge();
    }

    /// Forgets every reply of `id`: its user replaced or deleted what it would bring back.
    pub(crate) fn forget(&self, id: &ConnectionId) {
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
