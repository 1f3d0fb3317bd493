//! Two clocks, never mixed: the wall says what an expiry means to others, the boot clock says how long we waited.

use std::{ops::Add, time::Duration};

use jiff::Timestamp;

/// A reading of the boot clock: time since this machine started, suspension included. It never jumps, and it means
/// nothing on another machine, so it is never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub Duration);

impl Boot {
    /// How long after `earlier` this reading was taken; zero if it was not.
    pub fn since(self, earlier: Boot) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Boot {
    type Output = Boot;
    /// Clamped to the last representable reading.
    fn add(self, by: Duration) -> Boot {
        Boot(self.0.saturating_add(by))
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, UTC. It may jump either way.
    pub wall: Timestamp,
    /// The boot clock.
    pub boot: Boot,
}

/// `at + by`, clamped to the last representable time.
pub fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `at - by`, clamped to the first representable time.
pub fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// How long it is from `from` until `to`; zero if `to` is not later.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
