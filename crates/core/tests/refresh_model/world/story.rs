//! The story of a run, for whoever must understand a violation.

use tokenkeep_core::refresh::Outcome;

use super::token_of;
use crate::instance::Pending;

pub(super) fn brief(pending: &Pending) -> String {
    match pending {
        Pending::Write { connection, expect } => {
            let expect = expect.as_ref().map(|v| v.0.as_str());
            let attempt = connection.attempt.as_ref().map(|a| (a.owner, a.phase, a.renewal, a.replays));
            let (generation, held) = (connection.generation, connection.fingerprint().map(token_of));
            let alternate = connection.alternate.as_ref().map(|a| token_of(a.renewal.fingerprint));
            let health = &connection.health;
            format!(
                "Write gen {generation} token {held:?} alternate {alternate:?} attempt {attempt:?} {health:?} over {expect:?}"
            )
        }
        Pending::Keep(held) => format!("Keep token {:?}", held.successor.fingerprint().map(token_of)),
        Pending::Share(held) => format!("Share token {:?}", held.successor.fingerprint().map(token_of)),
        Pending::Beacon(held) => format!("Beacon for token {:?}", held.successor.fingerprint().map(token_of)),
        Pending::Withdraw(held) => format!("Withdraw token {:?}", held.successor.fingerprint().map(token_of)),
        other => format!("{other:?}"),
    }
}

pub(super) fn brief_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Current(c) => format!("Current gen {}", c.generation),
        Outcome::Refreshed(c) => format!("Refreshed gen {}", c.generation),
        Outcome::Blocked { obstacle, retry_in, .. } => format!("Blocked for {retry_in:?}: {obstacle:?}"),
        Outcome::BackingOff(_) => "BackingOff".into(),
        Outcome::Dead { reason, .. } => format!("Dead: {reason}"),
        Outcome::Failed { fault, .. } => format!("Failed: {fault:?}"),
        Outcome::Absent => "Absent".into(),
        Outcome::Behind => "Behind".into(),
        Outcome::StoreUnavailable => "StoreUnavailable".into(),
    }
}
