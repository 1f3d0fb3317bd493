use std::time::Duration;

use crate::{Attempt, AttemptId, Boot};

/// How long this instance has seen somebody else's attempt stand still, on its own boot clock. No shared time is
/// needed to know that a lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    attempt: AttemptId,
    renewal: u32,
    since: Boot,
}

impl Watch {
    /// What is known after seeing `attempt` in the record at `now`.
    pub fn observe(earlier: Option<Watch>, attempt: &Attempt, now: Boot) -> Watch {
        match earlier {
            Some(watch) if watch.attempt == attempt.id && watch.renewal == attempt.renewal => watch,
            _ => Watch { attempt: attempt.id, renewal: attempt.renewal, since: now },
        }
    }

    /// How long it has stood still.
    pub fn still_for(&self, now: Boot) -> Duration {
        now.since(self.since)
    }
}
