//! What a journal holds, in memory: where each entry lies and whether it is still needed.

use std::{collections::HashMap, time::Duration};

use tokenkeep_core::{AttemptId, Boot, ConnectionId};

/// How long an entry is kept after its reply is in the store, in case the store forgets it: unless the next reply of
/// the same connection gets there before.
pub(super) const INSURANCE: Duration = Duration::from_hours(24);

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) attempt: AttemptId,
    pub(super) offset: u64,
    pub(super) len: u64,
    settled_at: Option<Boot>,
}

impl Slot {
    /// Whether the store has it.
    pub(super) fn is_settled(&self) -> bool {
        self.settled_at.is_some()
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// In the order they were written; seldom more than two of a connection.
    entries: HashMap<ConnectionId, Vec<Slot>>,
    live_bytes: u64,
    unsettled: usize,
    count: usize,
}

impl Index {
    /// Notes an entry. One of the same attempt takes the place of the earlier.
    pub(super) fn insert(&mut self, id: ConnectionId, attempt: AttemptId, offset: u64, len: u64) {
        self.remove(&id, |slot| slot.attempt == attempt);
        self.entries.entry(id).or_default().push(Slot { attempt, offset, len, settled_at: None });
        self.live_bytes += len;
        self.unsettled += 1;
        self.count += 1;
    }

    /// The store has it. It is kept as insurance; earlier settled ones of the connection no longer are.
    pub(super) fn settle(&mut self, id: &ConnectionId, attempt: AttemptId, now: Boot) {
        let Some(slots) = self.entries.get_mut(id) else { return };
        let Some(at) = slots.iter().position(|slot| slot.attempt == attempt) else { return };
        if slots[at].settled_at.replace(now).is_none() {
            self.unsettled -= 1;
        }
        let offset = slots[at].offset;
        self.remove(id, |slot| slot.settled_at.is_some() && slot.offset < offset);
    }

    /// It is no longer needed at all.
    pub(super) fn release(&mut self, id: &ConnectionId, attempt: AttemptId) {
        self.remove(id, |slot| slot.attempt == attempt);
    }

    /// Drops what was insurance for long enough.
    pub(super) fn expire(&mut self, now: Boot) {
        self.retain_everywhere(|slot| slot.settled_at.is_none_or(|at| now.since(at) < INSURANCE));
    }

    fn remove(&mut self, id: &ConnectionId, which: impl Fn(&Slot) -> bool) {
        let Some(slots) = self.entries.get_mut(id) else { return };
        let dropped = slots.extract_if(.., |slot| which(slot)).collect();
        if slots.is_empty() {
            self.entries.remove(id);
        }
        self.discount(dropped);
    }

    fn retain_everywhere(&mut self, keep: impl Fn(&Slot) -> bool) {
        let mut dropped = Vec::new();
        self.entries.retain(|_, slots| {
            dropped.extend(slots.extract_if(.., |slot| !keep(slot)));
            !slots.is_empty()
        });
        self.discount(dropped);
    }

    fn discount(&mut self, dropped: Vec<Slot>) {
        for slot in dropped {
            self.live_bytes -= slot.len;
            self.count -= 1;
            self.unsettled -= usize::from(slot.settled_at.is_none());
        }
    }

    /// The entry that was written last for this connection.
    pub(super) fn newest(&self, id: &ConnectionId) -> Option<Slot> {
        self.entries.get(id)?.last().copied()
    }

    /// Every entry's offset, in the order they lie in the file.
    pub(super) fn offsets(&self) -> Vec<u64> {
        let mut offsets: Vec<u64> = self.entries.values().flatten().map(|slot| slot.offset).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Every entry moves to where `place` says that it lies now. Those it does not know are gone.
    pub(super) fn relocate(&mut self, place: &HashMap<u64, u64>) {
        self.retain_everywhere(|slot| place.contains_key(&slot.offset));
        for slot in self.entries.values_mut().flatten() {
            slot.offset = place[&slot.offset];
        }
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}
