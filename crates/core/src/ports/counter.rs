use std::{fmt, num::NonZeroU32, time::Duration};

use super::BoxFuture;

/// Counts what may happen only so often, over all instances.
///
/// Time is the counter's own: instances need not agree on it. What was granted is counted even if the answer is lost.
pub trait Counter: fmt::Debug + Send + Sync {
    /// Takes one from `bucket` (a text of 1 to 512 bytes that is no secret), or says how long there will be none.
    /// A bucket belongs to the limit it is used with: asking with another one begins it anew.
    fn take<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<Taken, CounterError>>;

    /// Gives back one that was taken from `bucket` and not used. Of a window it is the oldest that comes back, so that
    /// the others are never thought to be older than they are.
    fn give_back<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<(), CounterError>>;
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// A bucket that holds `burst` and is refilled with one every `every`.
    Bucket {
        /// How many at once.
        burst: NonZeroU32,
        /// How long one takes to come back; at least a microsecond.
        every: Duration,
    },
    /// At most `count` in any stretch of time as long as `per`, wherever it begins.
    Window {
        /// How many; at most 10,000.
        count: NonZeroU32,
        /// In how long; at least a millisecond.
        per: Duration,
    },
}

/// What a [`Counter`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It may happen now.
    Granted,
    /// Not before this long; nothing was taken.
    Wait(Duration),
}

/// Why nothing was counted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the counter is unavailable: {reason}")]
pub struct CounterError {
    /// For the log.
    pub reason: String,
}
