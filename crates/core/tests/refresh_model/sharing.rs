//! What instances share beside the store: a cache that may lose everything, and a bus that may lose what it carries.

use std::time::Duration;

use tokenkeep_core::{Generation, refresh::Held};

/// A copy that somebody left.
#[derive(Debug)]
pub struct Copy {
    pub held: Held,
    pub since: Duration,
}

#[derive(Debug, Default)]
pub struct SharedCache {
    pub down: bool,
    pub copy: Option<Copy>,
    floor: Generation,
}

impl SharedCache {
    /// Leaves a copy, unless a higher rank or floor is there.
    pub fn put(&mut self, held: Held, now: Duration) -> bool {
        let rank = held.successor.generation;
        let present = self.copy.as_ref().map(|copy| copy.held.successor.generation);
        if self.down || rank < self.floor || present.is_some_and(|present| rank < present) {
            return false;
        }
        // Left again, it has been there since the first time.
        let same = self.copy.take().filter(|copy| copy.held.attempt == held.attempt);
        self.copy = Some(Copy { held, since: same.map_or(now, |copy| copy.since) });
        true
    }

    /// Drops what is of a lower rank, and lets none in.
    pub fn raise(&mut self, floor: Generation) {
        if !self.down {
            self.copy.take_if(|copy| copy.held.successor.generation < floor);
            self.floor = self.floor.max(floor);
        }
    }

    /// It was restarted, or short of memory.
    pub fn lose(&mut self) {
        (self.copy, self.floor) = (None, Generation::default());
    }
}

/// At most once, and not while it is down.
#[derive(Debug, Default)]
pub struct Bus {
    pub down: bool,
}
