//! What a flight and its driver say to each other.

use std::time::Duration;

use super::{Fault, Held, Obstacle, Received, ReplyId, Seen, Watch};
use crate::{Boot, Connection, Renewal, ports::Version};

/// What the driver must do.
#[derive(Debug)]
pub enum Effect {
    /// Read the record; answer [`Input::Record`].
    Read,
    /// Get the pacing permit and a fresh connection to where `renewal` is spent; answer [`Input::Connected`] or
    /// [`Input::Unreachable`]. What is spent in the end may be another one by then.
    Connect {
        /// What would be spent.
        renewal: Box<Renewal>,
    },
    /// Write the record; answer [`Input::Written`].
    Write {
        /// What.
        connection: Box<Connection>,
        /// Expecting this version, or nothing (a tombstone included) if `None`.
        expect: Option<Version>,
    },
    /// Spend on the ready connection, if the boot clock shows less than `not_after` just before the first byte;
    /// answer [`Input::Answered`]. Never given up before its outcome.
    Spend {
        /// What is spent.
        renewal: Renewal,
        /// The generation it belongs to, for the log.
        claim: Box<Connection>,
        /// When it is too late to begin.
        not_after: Boot,
    },
    /// Make this reply durable in the journal; answer [`Input::Journaled`].
    Keep(Box<Held>),
    /// Leave a sealed copy of this reply where every instance finds it, and tell the others that we hold it: the
    /// record cannot take it yet. Either may be lost on the way; it is asked for again until the record has it.
    Share(Box<Held>),
    /// No copy of this reply, or of an older one, is needed any more where every instance finds it.
    Withdraw(Box<Held>),
    /// Look for a copy that somebody shared; answer [`Input::Found`].
    Seek,
    /// The reply is durable in at least one place: readers may have it.
    Publish(Box<Connection>),
    /// Answer [`Input::Timer`] after this long.
    Timer(Timer, Duration),
    /// Revoke these tokens upstream, as well as it goes: the connection they belong to is gone.
    Revoke(Box<Held>),
    /// The record now says what became of this reply: the journal need not keep it for the store's sake. (It keeps
    /// it until the next one all the same, in case the store rolls back.)
    Settled(Box<Held>),
    /// That was all.
    Finish(Box<Outcome>),
}

/// The flight's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The lease is to be renewed.
    Renew,
    /// Look or write again.
    Retry,
    /// The record still lacks the reply: share it.
    Share,
}

/// What came of an effect.
#[derive(Debug)]
pub enum Input {
    /// Begin.
    Start,
    /// What the record shows; `Err` = the store is unavailable.
    Record(Result<Seen, ()>),
    /// The connection to the provider stands.
    Connected,
    /// It does not; nothing was sent.
    Unreachable(Fault),
    /// How the write ended.
    Written(Written),
    /// How the exchange ended.
    Answered(Answer),
    /// Whether the journal has that reply now. It may come long after the flight has turned to another one.
    Journaled(ReplyId, Result<(), ()>),
    /// The copy that lies where instances share them. `Err` = it may be that there is one: nobody answers, or what is
    /// there cannot be read. Without such a place there is none.
    Found(Result<Option<Box<Held>>, ()>),
    /// A timer ran out.
    Timer(Timer),
}

/// How a write of the record ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is there, under this version.
    Committed(Version),
    /// Something else was there.
    Conflict,
    /// The answer was lost.
    Unknown,
    /// The store could not take it; nothing changed.
    Unavailable,
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Answer {
    /// The provider issued tokens.
    Tokens(Box<Received>),
    /// The provider refused, for sure.
    Refused(Refused),
    /// Not a byte was written.
    NotSent,
    /// Nobody knows.
    Lost {
        /// For people; ours.
        detail: String,
    },
}

/// What the provider refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What was spent (`invalid_grant` or the provider's word for it).
    Grant {
        /// The OAuth error code.
        code: String,
    },
    /// Our client.
    Client {
        /// The OAuth error code.
        code: String,
    },
    /// The request.
    Request {
        /// The OAuth error code.
        code: String,
    },
    /// To act at all, for now.
    Throttled {
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// What was spent, but so many were refused at once that it is not believed.
    Suspicious,
}

/// How a flight ended.
#[derive(Debug)]
pub enum Outcome {
    /// The record needed nothing, or somebody else did it.
    Current(Box<Connection>),
    /// New tokens, committed.
    Refreshed(Box<Connection>),
    /// There is no such connection.
    Absent,
    /// Nobody may spend now.
    Blocked {
        /// As the record stands.
        connection: Box<Connection>,
        /// What we know of the attempt in the way, for the next flight.
        watch: Option<Watch>,
        /// Why not.
        obstacle: Obstacle,
        /// When it makes sense to ask again.
        retry_in: Duration,
    },
    /// It failed lately, and is not tried again yet.
    BackingOff(Box<Connection>),
    /// Only the user can help: the record says why.
    Dead {
        /// As the record stands.
        connection: Box<Connection>,
        /// The stable word.
        reason: String,
    },
    /// It failed.
    Failed {
        /// As the record stood before.
        connection: Option<Box<Connection>>,
        /// Why.
        fault: Fault,
    },
    /// The record is older than what we know, or than what the caller knows.
    Behind,
    /// The store does not answer.
    StoreUnavailable,
}
