use jiff::Timestamp;

use crate::{AccessToken, AttemptId, Connection, Fingerprint, Generation, Health, Incarnation, Phase, Renewal};

/// What a provider's reply brought.
#[derive(Clone, Debug)]
pub struct Received {
    /// The new access token.
    pub access: AccessToken,
    /// The new refresh token; `None` if the reply had none, which keeps the old one.
    pub renewal: Option<Renewal>,
    /// The scope, if the reply said.
    pub scope: Option<String>,
}

/// A reply that reached us: it must not be lost, whatever happens to the store. This is what the journal keeps.
#[derive(Clone, Debug)]
pub struct Held {
    /// The attempt it answers.
    pub attempt: AttemptId,
    /// The generation that was current when the attempt was claimed.
    pub base: Generation,
    /// What was spent for it.
    pub spent: Fingerprint,
    /// The connection as it stands with this reply, should nothing else have changed meanwhile.
    pub successor: Connection,
    /// When it came.
    pub received_at: Timestamp,
}

/// Which reply: in one life of a connection, an attempt brings each generation once at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyId {
    attempt: AttemptId,
    incarnation: Incarnation,
    generation: Generation,
}

impl Held {
    /// Which reply it is.
    pub fn reply(&self) -> ReplyId {
        let Connection { incarnation, generation, .. } = self.successor;
        ReplyId { attempt: self.attempt, incarnation, generation }
    }

    /// What `claim`, in which `attempt` is written down, becomes with this reply.
    pub fn new(claim: &Connection, attempt: AttemptId, spent: Fingerprint, reply: Received, now: Timestamp) -> Self {
        let base = claim.generation;
        let mut held = Held { attempt, base, spent, successor: claim.clone(), received_at: now };
        held.successor.tokens.access = Some(reply.access);
        if reply.renewal.is_some() {
            held.successor.tokens.renewal = reply.renewal;
        }
        if reply.scope.is_some() {
            held.successor.tokens.scope = reply.scope;
        }
        held.finish(now);
        held.successor.generation = base.next();
        held
    }

    /// Whether the provider replaced what was spent.
    pub fn rotated(&self) -> bool {
        self.successor.fingerprint() != Some(self.spent)
    }

    /// Whether `record` still holds what was spent for this reply, or for an ancestor of it.
    pub(super) fn spent_what_is_in(&self, record: &Connection) -> bool {
        record.fingerprint().is_some_and(|f| f == self.spent || self.successor.spent.contains(f))
    }

    /// Whether `record` is older than this reply: by its generation, or because it still holds what was spent. (The
    /// generation alone does not tell: a PUT may have raised it meanwhile.)
    pub fn is_missing_from(&self, record: &Connection) -> bool {
        record.incarnation == self.successor.incarnation
            && record.committed_by != Some(self.attempt)
            && (self.successor.generation > record.generation || (self.rotated() && self.spent_what_is_in(record)))
    }

    /// `record` with this reply in place of its tokens, one generation on; everything else as `record` has it.
    pub(super) fn merge_into(&self, record: &Connection, now: Timestamp) -> Connection {
        let mut merged = Held { successor: record.clone(), ..self.clone() };
        merged.successor.tokens = self.successor.tokens.clone();
        merged.successor.generation = record.generation.next();
        merged.finish(now);
        merged.successor
    }

    /// What every commit of this reply does to the connection beside its tokens.
    fn finish(&mut self, now: Timestamp) {
        if self.rotated() {
            self.successor.spent.push(self.spent);
        }
        let next = &mut self.successor;
        // Somebody else's may be about to spend what we spent: until it ended, what we brought had better rest.
        next.attempt.take_if(|a| a.id == self.attempt || a.phase == Phase::Unanswered);
        next.committed_by = Some(self.attempt);
        next.alternate = None;
        next.health = Health::Healthy;
        next.last_error = None;
        next.last_refreshed_at = Some(self.received_at);
        next.updated_at = now;
    }
}
