//! Writing down that an attempt brought no reply.

use super::{Flight, State};
use crate::{
    Connection, Now,
    refresh::{Effect, Fault, Input, Outcome, Seen, Settle, Settled, Written, refuse, settle},
};

/// How an attempt ended that brought no tokens.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    NotSent,
    Without(Settle, Fault),
    Refused { code: String },
}

#[derive(Debug)]
pub(super) enum SettleStep {
    /// An answer to something older is on its way.
    Busy,
    Reading,
    Writing(Box<Connection>),
}

/// What the record shows once an attempt's end is written down.
enum After {
    Stands(Box<Connection>),
    Gone,
    Unknown,
}

impl Flight {
    pub(super) fn settle(&mut self, how: Ending, busy: bool) -> Vec<Effect> {
        let step = if busy { SettleStep::Busy } else { SettleStep::Reading };
        self.state = State::Settling { how, step };
        if busy { vec![] } else { vec![Effect::Read] }
    }

    pub(super) fn settling(&mut self, now: Now, how: Ending, step: SettleStep, input: Input) -> Vec<Effect> {
        let (step, effects) = match (step, input) {
            (SettleStep::Busy, Input::Written(_) | Input::Record(_)) => (SettleStep::Reading, vec![Effect::Read]),
            (SettleStep::Reading, Input::Record(Err(()))) => return self.settled(how, After::Unknown),
            (SettleStep::Reading, Input::Record(Ok(seen))) => {
                let settled = match &how {
                    Ending::NotSent => settle(&seen, self.attempt, &Settle::Release, now.wall),
                    Ending::Without(settle_as, _) => settle(&seen, self.attempt, settle_as, now.wall),
                    Ending::Refused { code } => refuse(&seen, self.attempt, code, now.wall),
                };
                match (settled, seen) {
                    (Settled::Write(connection), Seen::Live(_, version)) => {
                        let write = Effect::Write { connection: connection.clone(), expect: Some(version) };
                        (SettleStep::Writing(connection), vec![write])
                    }
                    (_, Seen::Live(record, _)) => return self.settled(how, After::Stands(record)),
                    (_, Seen::Absent | Seen::Deleted(..)) => return self.settled(how, After::Gone),
                }
            }
            (SettleStep::Writing(written), Input::Written(Written::Committed(_))) => {
                return self.settled(how, After::Stands(written));
            }
            (SettleStep::Writing(_), Input::Written(Written::Conflict | Written::Unknown)) => {
                (SettleStep::Reading, vec![Effect::Read])
            }
            (SettleStep::Writing(_), Input::Written(Written::Unavailable)) => return self.settled(how, After::Unknown),
            (step, _) => (step, vec![]),
        };
        self.state = State::Settling { how, step };
        effects
    }

    /// The record no longer shows the attempt as running, or the store cannot say.
    fn settled(&mut self, how: Ending, after: After) -> Vec<Effect> {
        match (how, after) {
            (_, After::Gone) => self.finish(Outcome::Absent),
            (Ending::NotSent | Ending::Without(Settle::Unanswered { replay: true, .. }, _), After::Stands(_))
            // The record moved on, an alternate took its place, or the user must come back: the next look tells.
            | (Ending::Refused { .. }, After::Stands(_)) => {
                self.restart()
            }
            (Ending::NotSent, After::Unknown) => self.finish(Outcome::StoreUnavailable),
            (Ending::Refused { code }, After::Unknown) => {
                self.finish(Outcome::Failed { connection: None, fault: Fault::Rejected { code } })
            }
            (Ending::Without(_, fault), After::Stands(connection)) => {
                self.finish(Outcome::Failed { connection: Some(connection), fault })
            }
            (Ending::Without(_, fault), After::Unknown) => self.finish(Outcome::Failed { connection: None, fault }),
        }
    }
}
