//! How many streams are listened to at a server at once with what one client was allowed. Each takes a connection for
//! as long as its token lives, and there are so many connections for everybody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokenkeep_core::GrantId;

/// A client listens to one per session, and no user has so many sessions at once.
const AT_MOST: usize = 64;

/// How many there are now, by grant.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<Mutex<HashMap<GrantId, usize>>>);

/// One of them, until it is dropped.
pub(super) struct Listener {
    listeners: Listeners,
    grant: GrantId,
}

impl Listeners {
    /// One more; `None` = there are as many as there may be.
    pub(super) fn enter(&self, grant: GrantId) -> Option<Listener> {
        let mut counts = self.counts();
        let count = counts.entry(grant).or_default();
        if *count == AT_MOST {
            return None;
        }
        *count += 1;
        Some(Listener { listeners: self.clone(), grant })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<GrantId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut counts = self.listeners.counts();
        match counts.get_mut(&self.grant) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.grant)),
        }
    }
}
