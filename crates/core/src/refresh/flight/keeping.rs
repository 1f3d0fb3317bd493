//! From the moment a reply is in until the record says what became of it.

use std::time::Duration;

use super::{Flight, RETRY_FIRST, State};
use crate::{
    Connection, Now,
    ports::Version,
    refresh::{Effect, Held, Input, Outcome, Seen, Timer, Verdict, Written, commit},
};

const RETRY_CEILING: Duration = Duration::from_secs(5);
/// A store that takes longer than this over a reply may be about to lose the instance that holds it.
const SHARE_FIRST: Duration = Duration::from_secs(1);
/// A shared copy may be lost, and so may a beacon: others take silence for an end after `RefreshPolicy::silence`.
const SHARE_AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Keeping {
    held: Box<Held>,
    journal: Journal,
    store: StoreSide,
    /// What is being written.
    writing: Option<Box<Connection>>,
    published: bool,
    /// Whether the flight came for something else.
    healing: bool,
    /// Whether a copy of it may lie where instances share them.
    shared: bool,
    retries: u32,
}

/// Where the record that a reply belongs to was last seen.
pub(super) enum ClaimedAt {
    Version(Version),
    /// An answer about it is on its way.
    Busy,
    Nowhere,
}

#[derive(Debug, PartialEq, Eq)]
enum Journal {
    Writing,
    Durable,
    Failed,
}

#[derive(Debug, PartialEq, Eq)]
enum StoreSide {
    /// An answer to something older is on its way.
    Busy,
    Reading,
    Writing,
    /// It cannot answer now.
    Waiting,
}

impl Keeping {
    fn new(held: Box<Held>, journal: Journal, store: StoreSide) -> Self {
        let (writing, retries) = (None, 0);
        Self { held, journal, store, writing, published: false, healing: false, shared: false, retries }
    }

    /// Readers may have it, now that it is durable.
    fn publish(&mut self) -> Option<Effect> {
        let first = !std::mem::replace(&mut self.published, true);
        first.then(|| Effect::Publish(Box::new(self.held.successor.clone())))
    }

    fn share(&mut self) -> Effect {
        self.shared = true;
        Effect::Share(self.held.clone())
    }

    /// The store cannot answer now; ask again later, with patience growing.
    fn wait(&mut self) -> Effect {
        self.store = StoreSide::Waiting;
        let pause = RETRY_FIRST.saturating_mul(2u32.saturating_pow(self.retries)).min(RETRY_CEILING);
        self.retries += 1;
        Effect::Timer(Timer::Retry, pause)
    }

    /// The record says what became of it.
    fn settled(self) -> Vec<Effect> {
        let withdraw = self.shared.then(|| Effect::Withdraw(self.held.clone()));
        withdraw.into_iter().chain([Effect::Settled(self.held)]).collect()
    }
}

impl Flight {
    /// A reply came for `claim`. `at` is where the store is with it.
    pub(super) fn keep(&mut self, held: Box<Held>, at: ClaimedAt) -> Vec<Effect> {
        let mut effects = vec![Effect::Keep(held.clone()), Effect::Timer(Timer::Share, SHARE_FIRST)];
        let mut keeping = Keeping::new(held, Journal::Writing, StoreSide::Busy);
        match at {
            ClaimedAt::Version(version) => {
                let successor = Box::new(keeping.held.successor.clone());
                keeping.store = StoreSide::Writing;
                keeping.writing = Some(successor.clone());
                effects.push(Effect::Write { connection: successor, expect: Some(version) });
            }
            ClaimedAt::Nowhere => {
                keeping.store = StoreSide::Reading;
                effects.push(Effect::Read);
            }
            ClaimedAt::Busy => {}
        }
        self.state = State::Keeping(keeping);
        effects
    }

    /// Commits a reply that a journal held when its process was gone. That process may have shared it.
    pub(super) fn commit_adopted(&mut self, held: Box<Held>) -> Vec<Effect> {
        self.state =
            State::Keeping(Keeping { shared: true, ..Keeping::new(held, Journal::Durable, StoreSide::Reading) });
        vec![Effect::Read, Effect::Timer(Timer::Share, SHARE_FIRST)]
    }

    /// Commits a reply that our journal has and the record lacks; what the flight came for is looked at again
    /// afterwards.
    pub(super) fn heal_from_journal(&mut self, held: Box<Held>) -> Vec<Effect> {
        let mut keeping = Keeping { healing: true, ..Keeping::new(held, Journal::Durable, StoreSide::Reading) };
        let publish = keeping.publish();
        self.state = State::Keeping(keeping);
        publish.into_iter().chain([Effect::Read, Effect::Timer(Timer::Share, SHARE_FIRST)]).collect()
    }

    /// Commits a reply that somebody shared. The copy may be gone the next moment, so it is made ours first.
    pub(super) fn heal_from_copy(&mut self, held: Box<Held>) -> Vec<Effect> {
        let effects = vec![Effect::Keep(held.clone()), Effect::Read, Effect::Timer(Timer::Share, SHARE_FIRST)];
        let keeping = Keeping::new(held, Journal::Writing, StoreSide::Reading);
        self.state = State::Keeping(Keeping { healing: true, shared: true, ..keeping });
        effects
    }

    pub(super) fn keeping(&mut self, now: Now, mut k: Keeping, input: Input) -> Vec<Effect> {
        let mut effects = vec![];
        match input {
            Input::Journaled(reply, result) if reply == k.held.reply() => {
                k.journal = if result.is_ok() { Journal::Durable } else { Journal::Failed };
                if k.journal == Journal::Durable {
                    effects.extend(k.publish());
                }
            }
            Input::Timer(Timer::Share) => {
                effects.extend([k.share(), Effect::Timer(Timer::Share, SHARE_AGAIN)]);
            }
            Input::Written(_) | Input::Record(_) if k.store == StoreSide::Busy => {
                k.store = StoreSide::Reading;
                effects.push(Effect::Read);
            }
            Input::Written(Written::Committed(_)) if k.store == StoreSide::Writing => {
                let written = k.writing.take().unwrap_or_else(|| Box::new(k.held.successor.clone()));
                return self.done(k, effects, written);
            }
            Input::Written(Written::Conflict | Written::Unknown) if k.store == StoreSide::Writing => {
                k.store = StoreSide::Reading;
                effects.push(Effect::Read);
            }
            Input::Written(Written::Unavailable) | Input::Record(Err(())) => {
                if k.journal == Journal::Durable {
                    effects.extend(k.publish());
                }
                if k.retries == 0 {
                    effects.push(k.share());
                }
                effects.push(k.wait());
            }
            Input::Timer(Timer::Retry) if k.store == StoreSide::Waiting => {
                k.store = StoreSide::Reading;
                effects.push(Effect::Read);
            }
            Input::Record(Ok(seen)) if k.store == StoreSide::Reading => match commit(&seen, &k.held, now.wall) {
                Verdict::Write(connection) => {
                    let expect = match seen {
                        Seen::Live(_, version) => Some(version),
                        Seen::Absent | Seen::Deleted(..) => None,
                    };
                    k.store = StoreSide::Writing;
                    k.writing = Some(connection.clone());
                    effects.push(Effect::Write { connection, expect });
                }
                Verdict::Done | Verdict::Superseded => {
                    let current = seen.live().unwrap_or(&k.held.successor).clone();
                    return self.done(k, effects, Box::new(current));
                }
                Verdict::Orphaned => {
                    effects.push(Effect::Revoke(k.held.clone()));
                    effects.extend(k.settled());
                    effects.extend(match seen {
                        Seen::Live(..) => self.read(),
                        Seen::Absent | Seen::Deleted(..) => self.finish(Outcome::Absent),
                    });
                    return effects;
                }
            },
            _ => {}
        }
        self.state = State::Keeping(k);
        effects
    }

    /// The record, which stands as `current`, says what became of the reply.
    fn done(&mut self, k: Keeping, mut effects: Vec<Effect>, current: Box<Connection>) -> Vec<Effect> {
        let ours = current.committed_by == Some(k.held.attempt);
        let healing = k.healing;
        effects.extend(k.settled());
        effects.extend(match (healing, ours) {
            (true, _) => self.restart(),
            (false, true) => self.finish(Outcome::Refreshed(current)),
            (false, false) => self.finish(Outcome::Current(current)),
        });
        effects
    }
}
