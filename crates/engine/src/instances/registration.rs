//! This process's own record: made at start, renewed while it lives, and taken away when it ends.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use jiff::Timestamp;
use tokenkeep_core::{
    Boot,
    ports::{Expect, Put, Version},
};

use super::{Instance, InstancePhase, Parting, peers::SILENCE};
use crate::{Error, records::Loaded, shared::Shared};

const ATTEMPTS: usize = 4;

/// What this process knows of its own record.
#[derive(Debug)]
pub(crate) struct Registration {
    journal: Option<String>,
    started_at: Timestamp,
    /// The record as we wrote it last. Held while it is written: two renewals at once would contradict each other.
    version: tokio::sync::Mutex<Option<Version>>,
    /// The moment before the last write that was confirmed.
    confirmed_at: Mutex<Option<Boot>>,
    forgotten: AtomicBool,
}

impl Registration {
    /// `journal` is the identity of the journal's directory.
    pub(crate) fn new(journal: Option<String>, started_at: Timestamp) -> Self {
        Self {
            journal,
            started_at,
            version: tokio::sync::Mutex::default(),
            confirmed_at: Mutex::default(),
            forgotten: AtomicBool::new(false),
        }
    }

    /// Whether an operator said that this instance never comes back. It must spend nothing any more: the others treat
    /// what it claims as over.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(SeqCst)
    }

    /// Takes the operator's word.
    pub(super) fn forget(&self) {
        if !self.forgotten.swap(true, SeqCst) {
            tracing::error!(
                "an operator had this instance forgotten: it refreshes nothing any more and is not ready; restart it to \
                 begin anew under another id"
            );
        }
    }

    /// Says that this instance is there. It is no failure of the instance if that cannot be said now.
    pub(crate) async fn renew(&self, shared: &Shared, uncommitted: u64) -> Result<(), Error> {
        self.write(shared, InstancePhase::Serving, uncommitted).await
    }

    /// Says that this instance ended in order. Where it left replies in its journal, its record stays and says so:
    /// whoever reads it must not take what they answer for lost.
    pub(crate) async fn leave(&self, shared: &Shared, uncommitted: u64) -> Result<(), Error> {
        if uncommitted > 0 {
            return self.write(shared, InstancePhase::Ended, uncommitted).await;
        }
        let id = shared.instance;
        let mut version = self.version.lock().await;
        for _ in 0..ATTEMPTS {
            let Some(present) = version.as_ref() else { return Ok(()) };
            match shared.records.delete::<Instance>(&id, present, &Parting::Ended).await? {
                Put::Committed(_) => return Ok(()),
                // Somebody was faster: an operator, or whoever adopted our journal the moment it was closed.
                Put::Conflict | Put::Unknown => *version = self.present(shared).await?.unwrap_or(None),
            }
        }
        Err(Error::Conflict { what: "instance" })
    }

    /// Whether a refresh token may be spent here. Asks the store only if this instance has not been able to say for
    /// long that it is there: only then can it have been forgotten without our knowing, as after a long freeze.
    pub(crate) async fn may_spend(&self, shared: &Shared) -> bool {
        let confirmed_at = *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if confirmed_at.is_none_or(|at| shared.now().boot.since(at) >= SILENCE)
            && let Ok(Err(_)) = self.present(shared).await
        {
            self.forget();
        }
        !self.is_forgotten()
    }

    async fn write(&self, shared: &Shared, phase: InstancePhase, uncommitted: u64) -> Result<(), Error> {
        let mut version = self.version.lock().await;
        for _ in 0..ATTEMPTS {
            if self.is_forgotten() {
                return Ok(());
            }
            let now = shared.now();
            let instance = Instance {
                id: shared.instance,
                process: shared.settings.process.clone(),
                journal: self.journal.clone(),
                started_at: self.started_at,
                last_seen_at: now.wall,
                phase,
                uncommitted,
            };
            // With nothing there, `Absent`, which takes a tombstone's place: but there is none that we have not looked
            // for, except at the very start, when nobody can have known us.
            let expect = version.as_ref().map_or(Expect::Absent, Expect::Version);
            match shared.records.save(&instance, (), expect).await? {
                Put::Committed(written) => {
                    *version = Some(written);
                    *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now.boot);
                    return Ok(());
                }
                Put::Conflict | Put::Unknown => match self.present(shared).await? {
                    Ok(present) => *version = present,
                    Err(_) if phase == InstancePhase::Serving => self.forget(),
                    Err(_) => return Ok(()),
                },
            }
        }
        Err(Error::Conflict { what: "instance" })
    }

    /// The version of our record, if it is there; `Err` = somebody buried it.
    async fn present(&self, shared: &Shared) -> Result<Result<Option<Version>, Parting>, Error> {
        Ok(match shared.records.load::<Instance>(&shared.instance).await.map_err(Error::reading("instance"))? {
            Loaded::Live(stored) => Ok(Some(stored.version)),
            Loaded::Absent => Ok(None),
            Loaded::Deleted(tombstone) => Err(tombstone.remembered),
        })
    }
}
