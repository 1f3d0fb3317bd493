use jiff::Timestamp;

use super::{Held, Seen};
use crate::{Alternate, Connection, Health};

/// What becomes of a reply, given what the record shows now.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Write this, expecting the record just seen.
    Write(Box<Connection>),
    /// The record has it already, or has moved on from it.
    Done,
    /// It brought nothing that the record lacks: a younger generation stands there, with the same refresh token.
    Superseded,
    /// The connection it belongs to is gone. Revoke it upstream, then drop it.
    Orphaned,
}

/// The commit rule (ARCHITECTURE.md, "The refresh protocol"). It never looks at versions: a compare-and-swap that
/// failed is decided anew by what the record *means*.
pub fn commit(seen: &Seen, held: &Held, now: Timestamp) -> Verdict {
    let record = match seen {
        // A deletion leaves a tombstone that outlives every journal entry, so a record that is gone without one was
        // rolled back by its store.
        Seen::Absent => return Verdict::Write(Box::new(held.successor.clone())),
        Seen::Deleted(..) => return Verdict::Orphaned,
        Seen::Live(record, _) if record.incarnation != held.successor.incarnation => return Verdict::Orphaned,
        Seen::Live(record, _) => record,
    };
    let brought = held.successor.fingerprint();
    if record.committed_by == Some(held.attempt) {
        return Verdict::Done;
    }
    if held.rotated() && brought.is_some_and(|b| record.spent.contains(b) || record.fingerprint() == Some(b)) {
        return Verdict::Done;
    }
    // Generations only grow within an incarnation: an older one than the attempt was claimed on is a rollback.
    if record.generation < held.base {
        return Verdict::Write(Box::new(Connection { updated_at: now, ..held.successor.clone() }));
    }
    if held.spent_what_is_in(record) {
        return if held.rotated() || record.generation == held.base {
            Verdict::Write(Box::new(held.merge_into(record, now)))
        } else {
            Verdict::Superseded
        };
    }
    match (&held.successor.tokens.renewal, held.rotated()) {
        // The winner is known to be dead, so there is nothing to defer to.
        (Some(_), true) if matches!(record.health, Health::ReauthRequired { .. }) => {
            Verdict::Write(Box::new(held.merge_into(record, now)))
        }
        (Some(renewal), true) => {
            if record.alternate.as_ref().is_some_and(|a| a.renewal.fingerprint == renewal.fingerprint) {
                return Verdict::Done;
            }
            let alternate = Alternate { renewal: renewal.clone(), received_at: held.received_at };
            let mut next = record.clone();
            next.attempt.take_if(|a| a.id == held.attempt);
            (next.alternate, next.updated_at) = (Some(alternate), now);
            Verdict::Write(next)
        }
        _ => Verdict::Superseded,
    }
}
