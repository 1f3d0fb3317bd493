//! Who asked for quiet, and until when.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokenkeep_core::{
    Boot, ConnectionId, IntegrationId,
    provider::{Api, LimitPer},
};

/// The quiet that providers asked for, as this instance heard it.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    until: Mutex<HashMap<Scope, Boot>>,
    /// Whether there is anything in it.
    asked: AtomicBool,
}

/// Who is to be quiet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    Integration(IntegrationId),
    Connection(ConnectionId),
}

impl Scope {
    /// One connection's calls, so that nobody can have others kept waiting; all calls, where the provider is known to
    /// count all of them as one.
    fn of(api: &Api, id: &ConnectionId) -> Self {
        if !api.limits.is_empty() && api.limits.iter().all(|limit| limit.per == LimitPer::All) {
            Scope::Integration(id.integration.clone())
        } else {
            Scope::Connection(id.clone())
        }
    }
}

impl Quiet {
    /// Whether nobody asked for any that is not over.
    pub(super) fn is_over(&self) -> bool {
        !self.asked.load(Relaxed)
    }

    /// The provider asks for quiet for `wait`; the longest that it asked for counts.
    pub(super) fn ask(&self, api: &Api, id: &ConnectionId, now: Boot, wait: Duration) {
        let mut asked = self.asked();
        asked.retain(|_, until| *until > now);
        let until = now + wait;
        let known = asked.entry(Scope::of(api, id)).or_insert_with(|| {
            tracing::info!(integration = %id.integration, ?wait, "the provider asks not to be called");
            until
        });
        *known = until.max(*known);
        self.asked.store(true, Relaxed);
    }

    /// Until when `id` is to be quiet; `None` = it is not.
    pub(super) fn until(&self, api: &Api, id: &ConnectionId, now: Boot) -> Option<Boot> {
        if self.is_over() {
            return None;
        }
        let mut asked = self.asked();
        let scope = Scope::of(api, id);
        let until = *asked.get(&scope)?;
        if until > now {
            return Some(until);
        }
        asked.remove(&scope);
        self.asked.store(!asked.is_empty(), Relaxed);
        None
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Scope, Boot>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
