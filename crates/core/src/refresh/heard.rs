use std::time::Duration;

use crate::{AttemptId, Boot, Connection};

/// Somebody said on the bus that it holds a reply to this attempt, and that the record cannot take it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The attempt the reply answers.
    pub attempt: AttemptId,
    /// When it was heard, on the boot clock of this instance.
    pub at: Boot,
}

/// Whether this instance could have heard a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// There is no bus, so nobody sends any.
    NoBus,
    /// There is a bus, and it is not heard at present.
    Deaf,
    /// The bus has been heard without a gap since then.
    Since(Boot),
}

/// What the bus told this instance of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The last beacon.
    pub beacon: Option<Beacon>,
    /// What its absence means.
    pub listening: Listening,
}

impl Heard {
    /// When somebody was last heard to hold a reply that `record` lacks.
    pub(super) fn last_beacon(&self, record: &Connection) -> Option<Boot> {
        self.beacon.filter(|beacon| record.committed_by != Some(beacon.attempt)).map(|beacon| beacon.at)
    }

    /// For how long it is certain that nobody said so.
    pub(super) fn silent_for(&self, record: &Connection, now: Boot) -> Duration {
        let listened = match self.listening {
            Listening::NoBus => Duration::MAX,
            Listening::Deaf => Duration::ZERO,
            Listening::Since(since) => now.since(since),
        };
        self.last_beacon(record).map_or(listened, |at| listened.min(now.since(at)))
    }
}
