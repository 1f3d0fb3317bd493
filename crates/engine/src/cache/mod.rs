//! L1: ready replies in this process's memory. A hit takes no lock, does no I/O and allocates nothing.

mod ready;
mod told;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokenkeep_core::{ConnectionId, Freshness, Generation, Incarnation, Now};

pub use self::ready::Ready;
pub(crate) use self::told::{Asked, Lease};
use self::{ready::millis, told::Invalidations};

/// What a look-up found.
pub(crate) enum Hit {
    /// Serve it. `check` = somebody should see soon whether it is still the newest, `refresh` = its refresh is due;
    /// both behind the reader's back, and `check` is said to one reader only.
    Serve { ready: Arc<Ready>, check: bool, refresh: bool },
    /// It is there, but whether it is still the newest must be seen first.
    Doubtful(Arc<Ready>),
    /// It is there, but not fresh enough.
    Stale(Arc<Ready>),
    /// It is not there.
    Miss,
}

#[derive(Clone)]
enum Slot {
    Ready(Arc<Ready>),
    /// Nothing may be served; nothing older than this may come back.
    Floor(Incarnation, Generation),
}

impl Slot {
    fn floor(&self) -> (Incarnation, Generation) {
        match self {
            Slot::Ready(ready) => (ready.incarnation, ready.generation),
            Slot::Floor(incarnation, generation) => (*incarnation, *generation),
        }
    }
}

/// A [`ConnectionId`] in parts, so that a look-up needs no copy.
struct Parts<'a> {
    integration: &'a str,
    tenant: &'a str,
    subject: &'a str,
}

impl Hash for Parts<'_> {
    // As ConnectionId derives it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.integration.hash(state);
        self.tenant.hash(state);
        self.subject.hash(state);
    }
}

impl equivalent::Equivalent<ConnectionId> for Parts<'_> {
    fn equivalent(&self, id: &ConnectionId) -> bool {
        self.subject == id.subject.as_str()
            && self.tenant == id.tenant.as_str()
            && self.integration == id.integration.as_str()
    }
}

/// The cache. Bounded by bytes; what is evicted is read from the store again.
pub(crate) struct Cache {
    slots: moka::sync::Cache<ConnectionId, Slot>,
    /// How long a token is served without asking the store, in milliseconds.
    soft_life: u64,
    /// The same while the lease holds.
    trusted_life: u64,
    lease: Arc<Lease>,
    invalidations: Invalidations,
}

/// Even who is told of everything looks now and then: it costs little, and no proof is without assumptions.
const TRUSTED_LIFE: Duration = Duration::from_mins(1);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("entries", &self.slots.entry_count()).finish_non_exhaustive()
    }
}

/// What an entry costs beside its body: the parsed token, the key, moka's own.
const OVERHEAD: usize = 768;

impl Cache {
    pub(crate) fn new(bytes: u64, soft_life: Duration, lease: Arc<Lease>) -> Self {
        let weigh = |_: &ConnectionId, slot: &Slot| match slot {
            Slot::Ready(ready) => u32::try_from(OVERHEAD + ready.body.len()).unwrap_or(u32::MAX),
            Slot::Floor(..) => u32::try_from(OVERHEAD).unwrap_or(u32::MAX),
        };
        let millis = |life: Duration| u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        Self {
            slots: moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).build(),
            soft_life: millis(soft_life),
            trusted_life: millis(soft_life.max(TRUSTED_LIFE)),
            lease,
            invalidations: Invalidations::new(),
        }
    }

    /// Looks a token up.
    pub(crate) fn get(&self, integration: &str, tenant: &str, subject: &str, min_ttl: Duration, now: Now) -> Hit {
        let Some(Slot::Ready(ready)) = self.slots.get(&Parts { integration, tenant, subject }) else {
            return Hit::Miss;
        };
        let freshness = ready.freshness(min_ttl, now);
        if freshness == Freshness::Stale {
            return Hit::Stale(ready);
        }
        let now = millis(now.boot);
        let age = ready.age(now);
        let life =
            if age >= self.soft_life / 2 && self.lease.holds_at(now) { self.trusted_life } else { self.soft_life };
        if age >= life {
            return Hit::Doubtful(ready);
        }
        // Half-way, one reader looks behind its back, so that a token in use is never waited for.
        let check = age >= life / 2 && ready.begin_check();
        Hit::Serve { check, refresh: freshness == Freshness::Early, ready }
    }

    pub(crate) fn peek(&self, id: &ConnectionId) -> Option<Arc<Ready>> {
        match self.slots.get(id) {
            Some(Slot::Ready(ready)) => Some(ready),
            _ => None,
        }
    }

    /// The newest generation known of `id`.
    pub(crate) fn floor(&self, id: &ConnectionId) -> Option<(Incarnation, Generation)> {
        self.slots.get(id).map(|slot| slot.floor())
    }

    /// To be taken before the store, or anybody else, is asked for what will be put in.
    pub(crate) fn asking(&self, now: Now) -> Asked {
        Asked { at: now.boot, invalidations: self.invalidations.count.load(SeqCst) }
    }

    /// Whether nothing was heard of `id` that the answer to `asked` may not show.
    pub(crate) fn is_answered(&self, id: &ConnectionId, asked: Asked) -> bool {
        !self.invalidations.any_since(asked, id)
    }

    /// Puts `ready` in, unless something younger is there; answers what is there now. `asked` = before `ready` was
    /// read.
    pub(crate) fn insert(&self, id: &ConnectionId, ready: Ready, asked: Asked) -> Arc<Ready> {
        let ready = Arc::new(ready);
        let entry = self.slots.entry_by_ref(id).and_upsert_with(|present| match present.map(moka::Entry::into_value) {
            Some(slot) if !may_follow(slot.floor(), (ready.incarnation, ready.generation)) => slot,
            _ => Slot::Ready(ready.clone()),
        });
        let present = match entry.into_value() {
            Slot::Ready(present) => present,
            Slot::Floor(..) => ready,
        };
        if !self.is_answered(id, asked) {
            present.doubt();
        }
        present
    }

    /// The store showed that nothing is younger than `ready`.
    pub(crate) fn confirm(&self, id: &ConnectionId, ready: &Ready, asked: Asked) {
        ready.confirm(asked);
        if !self.is_answered(id, asked) {
            ready.doubt();
        }
    }

    /// Whether something older than `next` is all that may be there.
    pub(crate) fn admits(&self, id: &ConnectionId, next: (Incarnation, Generation)) -> bool {
        self.floor(id).is_none_or(|floor| may_follow(floor, next))
    }

    /// Somebody else changed `id`: what is older than `floor` is not served any more, nor what is on its way here.
    pub(crate) fn invalidate(&self, id: &ConnectionId, incarnation: Incarnation, floor: Generation) {
        self.invalidations.note(id);
        let next = (incarnation, floor);
        self.slots.entry_by_ref(id).and_compute_with(|present| match present.map(moka::Entry::into_value) {
            Some(slot) if slot.floor() != next && may_follow(slot.floor(), next) => {
                moka::ops::compute::Op::Put(Slot::Floor(incarnation, floor))
            }
            _ => moka::ops::compute::Op::Nop,
        });
    }

    /// Somebody else changed `id`, and it cannot be seen how: the next reader looks.
    pub(crate) fn doubt(&self, id: &ConnectionId) {
        self.invalidations.note(id);
        if let Some(ready) = self.peek(id) {
            ready.doubt();
        }
    }

    /// Serves `id` no longer, and nothing older than `floor`.
    pub(crate) fn remove(&self, id: &ConnectionId, incarnation: Incarnation, floor: Generation) {
        self.invalidations.note(id);
        self.slots.insert(id.clone(), Slot::Floor(incarnation, floor));
    }

    /// The connection is gone: what was served of it must not come back.
    pub(crate) fn remove_deleted(&self, id: &ConnectionId) {
        if let Some(ready) = self.peek(id) {
            self.remove(id, ready.incarnation, ready.generation.next());
        }
    }

    /// Forgets dead tokens and old floors; answers how many.
    pub(crate) fn sweep(&self, now: Now) -> usize {
        let dead: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| match slot {
                Slot::Ready(ready) => !ready.is_alive(now),
                Slot::Floor(..) => true,
            })
            .map(|(id, _)| id)
            .collect();
        for id in &dead {
            self.slots.invalidate(id.as_ref());
        }
        dead.len()
    }

    /// How many tokens and floors there are. Counts exactly, so it is not for the hot path.
    pub(crate) fn entries(&self) -> u64 {
        self.slots.run_pending_tasks();
        self.slots.entry_count()
    }
}

/// Whether `next` may take the place of what set `floor`. Generations go on across lives; where a store has forgotten
/// a deleted connection, the younger life wins.
fn may_follow(floor: (Incarnation, Generation), next: (Incarnation, Generation)) -> bool {
    if floor.0 == next.0 { next.1 >= floor.1 } else { next.1 > floor.1 || next.0 > floor.0 }
}

#[cfg(test)]
mod tests;
