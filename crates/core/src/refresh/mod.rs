//! Spending a refresh token exactly once, and never losing the answer.
//!
//! A [`Flight`] is one refresh of one connection on one instance: a state machine without I/O. Its driver carries
//! out the [`Effect`]s and feeds what came of them back as [`Input`]s. The rules it follows are pure functions of
//! their own: who may spend ([`decide`]), what becomes of a reply ([`commit`]), of a refusal ([`refuse`]), and of
//! everything in between ([`settle`]).
//!
//! The order of events, which is the whole point:
//!
//! 1. *read* the record, and decide whether there is anything to do;
//! 2. *connect* to the provider: whatever can be slow happens before anything is written down;
//! 3. *claim*: write the intent into the record by compare-and-swap. Only the winner goes on, and only if the first
//!    byte goes out within two seconds of the claim's beginning, on a clock that counts suspension too;
//! 4. *exchange*: nothing ends it but its outcome. Callers may stop waiting, the reply is still taken in;
//! 5. *keep*: the reply goes to the journal and to the record at once and is served when either has it. The
//!    compare-and-swap is repeated until the record says what became of it;
//! 6. *share*: while the record cannot take it, a sealed copy lies where every instance finds it, and the others are
//!    told. Whoever meets the attempt in the record looks for the copy before it thinks of spending again.

mod commit;
mod decide;
mod flight;
mod heard;
mod held;
mod messages;
mod pause;
mod settle;
mod watch;

pub use commit::{Verdict, commit};
pub use decide::{Cause, Decision, Local, Obstacle, Sought, decide};
pub use flight::Flight;
pub use heard::{Beacon, Heard, Listening};
pub use held::{Held, Received, ReplyId};
pub use messages::{Answer, Effect, Input, Outcome, Refused, Timer, Written};
pub use pause::{Pause, PauseVerdict};
pub use settle::{Fault, INVALID_CREDENTIALS, Settle, Settled, backoff, refuse, settle};
pub use watch::Watch;

use crate::{Connection, Deleted, ports::Version};

/// What a read of a connection's record showed.
#[derive(Clone, Debug)]
pub enum Seen {
    /// There is nothing, not even a tombstone.
    Absent,
    /// It was deleted.
    Deleted(Deleted, Version),
    /// It is there.
    Live(Box<Connection>, Version),
}

impl Seen {
    /// The connection, if it is there.
    pub fn live(&self) -> Option<&Connection> {
        match self {
            Seen::Live(connection, _) => Some(connection),
            Seen::Absent | Seen::Deleted(..) => None,
        }
    }
}
