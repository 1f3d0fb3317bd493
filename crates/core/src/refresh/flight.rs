//! The machine: reading, deciding, claiming. What follows the spend is in the rooms behind it.

mod exchange;
mod keeping;
mod settling;

use std::time::Duration;

use ulid::Ulid;

use self::{
    exchange::Lease,
    keeping::Keeping,
    settling::{Ending, SettleStep},
};
use super::{
    Cause, Decision, Effect, Heard, Held, Input, Local, Obstacle, Outcome, Seen, Sought, Timer, Verdict, Watch,
    Written, commit, decide,
};
use crate::{Attempt, AttemptId, Boot, Connection, Now, Phase, ports::Version};

/// One refresh of one connection on one instance.
///
/// Feed it [`Input::Start`], carry out what it asks for, feed back what came of it, until it asks to
/// [`Effect::Finish`]. Effects of one step are carried out at the same time, none waits for another.
#[derive(Debug)]
pub struct Flight {
    cause: Cause,
    local: Local,
    attempt: AttemptId,
    state: State,
    /// Whether a connection to the provider stands ready.
    connected: bool,
    /// How often it started over.
    restarts: u32,
    joined_since: Option<Boot>,
}

#[derive(Debug)]
enum State {
    Idle,
    /// Not begun, with a reply in hand.
    Resuming(Box<Held>),
    /// Reading, to decide.
    Reading,
    /// Looking for a copy that somebody shared; `began` was read before.
    Seeking {
        record: Box<Connection>,
        version: Version,
        began: Boot,
    },
    /// Waiting for the pacing permit and the connection.
    Connecting(Box<Connection>, Version),
    /// The intent is being written.
    Claiming {
        claim: Box<Connection>,
        ground: Ground,
    },
    /// The answer to the claim was lost; reading, to see.
    Claimed(Ground),
    /// The request is out.
    Exchanging {
        claim: Box<Connection>,
        lease: Lease,
    },
    /// The reply is in.
    Keeping(Keeping),
    /// There is no reply, and that is being written down.
    Settling {
        how: Ending,
        step: SettleStep,
    },
    /// Somebody else's attempt is running; looking again in a while.
    Joining,
    Finished,
}

/// What a claim was decided on, and when.
#[derive(Debug)]
struct Ground {
    record: Box<Connection>,
    began: Boot,
}

/// How often a flight starts over before it leaves it to the next.
const MAX_RESTARTS: u32 = 4;
/// How soon a foreign attempt is looked at again.
const JOIN_POLL: Duration = Duration::from_millis(100);
const RETRY_FIRST: Duration = Duration::from_millis(100);

impl Flight {
    /// A refresh for `cause`. `attempt` must be fresh: every claim takes the next one from there.
    pub fn new(cause: Cause, local: Local, attempt: AttemptId) -> Self {
        Self { cause, local, attempt, state: State::Idle, connected: false, restarts: 0, joined_since: None }
    }

    /// The rest of a flight whose reply lies in a journal: what an earlier process, or this one, could not commit.
    /// `attempt` must be fresh, as in [`Flight::new`]: a reply that turns out to be nobody's leads on to a refresh.
    pub fn resume(held: Held, local: Local, attempt: AttemptId) -> Self {
        let mut flight = Self::new(Cause::Due, local, attempt);
        flight.state = State::Resuming(Box::new(held));
        flight
    }

    /// What the bus tells of this connection by now.
    pub fn hear(&mut self, heard: Heard) {
        self.local.heard = heard;
    }

    /// Takes in what happened, answers what to do next.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let state = std::mem::replace(&mut self.state, State::Finished);
        match (state, input) {
            (State::Finished, _) => vec![],
            (State::Idle, Input::Start) => self.read(),
            (State::Resuming(held), Input::Start) => self.commit_adopted(held),
            (State::Reading | State::Joining, Input::Record(seen)) => self.on_record(now, seen),
            (State::Joining, Input::Timer(Timer::Retry)) => self.read(),
            (State::Seeking { record, version, began }, Input::Found(found)) => {
                self.on_found(now, record, version, began, found)
            }
            (State::Connecting(record, version), Input::Connected) => {
                self.connected = true;
                self.claim(now, record, version)
            }
            (State::Connecting(connection, _), Input::Unreachable(fault)) => {
                self.finish(Outcome::Failed { connection: Some(connection), fault })
            }
            (State::Claiming { claim, ground }, Input::Written(written)) => match written {
                Written::Committed(version) => self.spend(now, claim, version, &ground),
                Written::Conflict => self.restart(),
                Written::Unknown => {
                    self.state = State::Claimed(ground);
                    vec![Effect::Read]
                }
                Written::Unavailable => self.finish(Outcome::StoreUnavailable),
            },
            (State::Claimed(ground), Input::Record(Ok(Seen::Live(record, version))))
                if record.is_claimed_by(self.attempt) =>
            {
                self.spend(now, record, version, &ground)
            }
            (State::Claimed(_), Input::Record(Ok(seen))) => self.on_record(now, Ok(seen)),
            (State::Claimed(_), Input::Record(Err(()))) => self.finish(Outcome::StoreUnavailable),
            (State::Exchanging { claim, lease }, input) => self.exchanging(now, claim, lease, input),
            (State::Keeping(keeping), input) => self.keeping(now, keeping, input),
            (State::Settling { how, step }, input) => self.settling(now, how, step, input),
            // A timer that outlived the state it was set in.
            (state, _) => {
                self.state = state;
                vec![]
            }
        }
    }

    fn read(&mut self) -> Vec<Effect> {
        self.state = State::Reading;
        vec![Effect::Read]
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<Effect> {
        self.state = State::Finished;
        vec![Effect::Finish(Box::new(outcome))]
    }

    fn restart(&mut self) -> Vec<Effect> {
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS { self.finish(Outcome::StoreUnavailable) } else { self.read() }
    }

    // --- reading and deciding ---

    fn on_record(&mut self, now: Now, seen: Result<Seen, ()>) -> Vec<Effect> {
        let Ok(seen) = seen else { return self.finish(Outcome::StoreUnavailable) };
        if let Some(effects) = self.heal(&seen, now) {
            return effects;
        }
        let Seen::Live(record, version) = seen else { return self.finish(Outcome::Absent) };
        self.local.watch = record.attempt.as_ref().map(|a| Watch::observe(self.local.watch, a, now.boot));
        self.act_on(now, record, version)
    }

    fn act_on(&mut self, now: Now, record: Box<Connection>, version: Version) -> Vec<Effect> {
        match decide(&record, self.cause, &self.local, now) {
            Decision::Serve => self.finish(Outcome::Current(record)),
            Decision::Spend { .. } if self.connected => self.claim(now, record, version),
            Decision::Spend { .. } => {
                // There is something to spend: that was decided on this very record.
                let Some(renewal) = record.tokens.renewal.clone().map(Box::new) else { return self.restart() };
                self.state = State::Connecting(record, version);
                vec![Effect::Connect { renewal }]
            }
            Decision::Join => self.join(now, record),
            Decision::Seek => {
                self.state = State::Seeking { record, version, began: now.boot };
                vec![Effect::Seek]
            }
            Decision::Unresolved { obstacle, retry_in } => self.blocked(record, obstacle, retry_in),
            Decision::BackOff { .. } => self.finish(Outcome::BackingOff(record)),
            Decision::Dead { reason } => self.finish(Outcome::Dead { connection: record, reason }),
            Decision::Behind => self.finish(Outcome::Behind),
        }
    }

    /// Nobody acts on a record older than what its journal or its cache knows of that incarnation: the newer is
    /// committed first.
    fn heal(&mut self, seen: &Seen, now: Now) -> Option<Vec<Effect>> {
        if let Some(held) = self.local.held.clone().filter(|held| brings_news(held, seen, now)) {
            return Some(self.heal_from_journal(held));
        }
        let behind = seen.live().is_some_and(|record| {
            self.local
                .served
                .is_some_and(|(incarnation, served)| incarnation == record.incarnation && served > record.generation)
        });
        behind.then(|| self.finish(Outcome::Behind))
    }

    /// What was looked for since `began` was found, or not.
    fn on_found(
        &mut self,
        now: Now,
        record: Box<Connection>,
        version: Version,
        began: Boot,
        found: Result<Option<Box<Held>>, ()>,
    ) -> Vec<Effect> {
        self.local.sought =
            record.attempt.as_ref().map(|a| Sought { attempt: a.id, at: began, answered: found.is_ok() });
        let seen = Seen::Live(record, version);
        // A copy of what the record has moved on from is as good as none.
        if let Some(held) = found.ok().flatten().filter(|held| brings_news(held, &seen, now)) {
            self.local.held = Some(held.clone());
            return self.heal_from_copy(held);
        }
        let Seen::Live(record, version) = seen else { return self.read() };
        self.act_on(now, record, version)
    }

    fn join(&mut self, now: Now, record: Box<Connection>) -> Vec<Effect> {
        let since = *self.joined_since.get_or_insert(now.boot);
        if self.cause == Cause::Due || now.boot.since(since) >= self.local.policy.deadline {
            return self.blocked(record, Obstacle::Running, JOIN_POLL);
        }
        self.state = State::Joining;
        vec![Effect::Timer(Timer::Retry, JOIN_POLL)]
    }

    fn blocked(&mut self, connection: Box<Connection>, obstacle: Obstacle, retry_in: Duration) -> Vec<Effect> {
        let watch = self.local.watch;
        self.finish(Outcome::Blocked { connection, watch, obstacle, retry_in })
    }

    // --- claiming and spending ---

    fn claim(&mut self, now: Now, record: Box<Connection>, version: Version) -> Vec<Effect> {
        // Connecting took time, so the decision is made once more on what was read; the compare-and-swap does the rest.
        let Decision::Spend { fingerprint, first_spend_at, replays } = decide(&record, self.cause, &self.local, now)
        else {
            return self.restart();
        };
        // A reply is told from others by its attempt, so no two claims share one.
        self.attempt = AttemptId(Ulid::from(u128::from(self.attempt.0).wrapping_add(1)));
        let mut claim = record.clone();
        claim.attempt = Some(Attempt {
            id: self.attempt,
            owner: self.local.instance,
            renewal: 0,
            fingerprint,
            first_spend_at: first_spend_at.unwrap_or(now.wall),
            replays,
            phase: Phase::Running,
        });
        claim.updated_at = now.wall;
        let effect = Effect::Write { connection: claim.clone(), expect: Some(version) };
        self.state = State::Claiming { claim, ground: Ground { record, began: now.boot } };
        vec![effect]
    }

    fn spend(&mut self, now: Now, claim: Box<Connection>, version: Version, ground: &Ground) -> Vec<Effect> {
        let policy = self.local.policy;
        let not_after = ground.began + policy.spend_within;
        // While the claim was written, an owner thought lost may have said that it holds the reply, or we may have
        // become unable to hear it.
        let stands = || matches!(decide(&ground.record, self.cause, &self.local, now), Decision::Spend { .. });
        let Some(renewal) = claim.tokens.renewal.clone().filter(|_| now.boot < not_after && stands()) else {
            return self.settle(Ending::NotSent, false);
        };
        self.connected = false;
        let effect = Effect::Spend { renewal, claim: claim.clone(), not_after };
        self.state = State::Exchanging { claim, lease: Lease::Held(version) };
        vec![effect, Effect::Timer(Timer::Renew, policy.lease / 3)]
    }
}

/// Whether the record lacks this reply, and the commit rule would write it.
fn brings_news(held: &Held, seen: &Seen, now: Now) -> bool {
    seen.live().is_none_or(|record| held.is_missing_from(record))
        && matches!(commit(seen, held, now.wall), Verdict::Write(_))
}
