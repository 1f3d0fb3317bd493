//! What the cache is told of the world outside: until when it would be told of every change, and which changes came
//! while an answer was on its way.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use tokenkeep_core::{Boot, ConnectionId};

use super::ready::millis;

/// When a question was put whose answer goes into the cache. What was invalidated since then is not answered by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(super) at: Boot,
    pub(super) invalidations: u64,
}

/// Until when nothing can have changed that this instance was not told of: boot clock, milliseconds; 0 = it is told
/// of nothing. The bus extends it with every message.
#[derive(Debug, Default)]
pub(crate) struct Lease(AtomicU64);

impl Lease {
    pub(crate) fn holds(&self, now: Boot) -> bool {
        self.holds_at(millis(now))
    }

    pub(super) fn holds_at(&self, now: u64) -> bool {
        now < self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, until: Option<Boot>) {
        self.0.store(until.map_or(0, millis), SeqCst);
    }
}

/// When what was last invalidated, by groups of connections. An answer that was on its way when its connection was
/// invalidated is recognised by this, although the cache had no entry to leave a floor in.
pub(super) struct Invalidations {
    pub(super) count: AtomicU64,
    last: Box<[AtomicU64]>,
}

/// Two connections of one group cost a look at the store too many, so there are many groups.
const GROUPS: usize = 16 * 1024;

impl Invalidations {
    pub(super) fn new() -> Self {
        Self { count: AtomicU64::new(0), last: std::iter::repeat_with(AtomicU64::default).take(GROUPS).collect() }
    }

    fn group(&self, id: &ConnectionId) -> &AtomicU64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        &self.last[usize::try_from(hash % GROUPS as u64).unwrap_or(0)]
    }

    pub(super) fn note(&self, id: &ConnectionId) {
        let number = self.count.fetch_add(1, SeqCst) + 1;
        self.group(id).fetch_max(number, SeqCst);
        // Whoever puts an older answer in either sees this, or is seen by what follows.
        fence(SeqCst);
    }

    pub(super) fn any_since(&self, asked: Asked, id: &ConnectionId) -> bool {
        fence(SeqCst);
        self.group(id).load(SeqCst) > asked.invalidations
    }
}
