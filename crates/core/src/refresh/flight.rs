use std::time::Duration;

use super::{
    Answer, Cause, Decision, Effect, Fault, Held, Input, Local, Outcome, Refused, Seen, Settle, Settled, Timer,
    Verdict, Watch, Written, commit, decide, refuse, settle,
};
use ulid::Ulid;

use crate::{Attempt, AttemptId, Boot, Connection, Fingerprint, Now, Phase, Rotation, ports::Version};

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
    /// Waiting for the pacing permit and the connection.
    Connecting(Box<Connection>, Version),
    /// The intent is being written; `began` was read before.
    Claiming {
        claim: Box<Connection>,
        began: Boot,
    },
    /// The answer to the claim was lost; reading, to see.
    Claimed {
        began: Boot,
    },
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

/// What is known of our claim's record while the exchange runs.
#[derive(Debug)]
enum Lease {
    /// Its version.
    Held(Version),
    /// A renewal is on its way.
    Renewing,
    /// A renewal failed in a way that only a read can tell.
    Rereading,
    /// That read could not be answered; another one comes in a while.
    Unsure,
    /// The record no longer holds our attempt. The exchange goes on all the same.
    Lost,
}

#[derive(Debug)]
struct Keeping {
    held: Box<Held>,
    journal: Journal,
    store: StoreSide,
    /// What is being written.
    writing: Option<Box<Connection>>,
    published: bool,
    /// Whether the flight came for something else.
    healing: bool,
    retries: u32,
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

/// How an attempt ended that brought no tokens.
#[derive(Clone, Debug)]
enum Ending {
    NotSent,
    Without(Settle, Fault),
    Refused { code: String },
}

#[derive(Debug)]
enum SettleStep {
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

/// How often a flight starts over before it leaves it to the next.
const MAX_RESTARTS: u32 = 4;
/// How soon a foreign attempt is looked at again.
const JOIN_POLL: Duration = Duration::from_millis(100);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CEILING: Duration = Duration::from_secs(5);

impl Flight {
    /// A refresh for `cause`. `attempt` must be fresh.
    pub fn new(cause: Cause, local: Local, attempt: AttemptId) -> Self {
        Self { cause, local, attempt, state: State::Idle, connected: false, restarts: 0, joined_since: None }
    }

    /// The rest of a flight whose reply lies in a journal: what an earlier process, or this one, could not commit.
    pub fn resume(held: Held, local: Local) -> Self {
        let mut flight = Self::new(Cause::Due, local, held.attempt);
        flight.state = State::Resuming(Box::new(held));
        flight
    }

    /// Takes in what happened, answers what to do next.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let state = std::mem::replace(&mut self.state, State::Finished);
        match (state, input) {
            (State::Finished, _) => vec![],
            (State::Idle, Input::Start) => self.read(),
            (State::Resuming(held), Input::Start) => self.commit_kept(held, false),
            (State::Reading | State::Joining, Input::Record(seen)) => self.on_record(now, seen),
            (State::Joining, Input::Timer(Timer::Retry)) => self.read(),
            (State::Connecting(record, version), Input::Connected) => {
                self.connected = true;
                self.claim(now, record, version)
            }
            (State::Connecting(connection, _), Input::Unreachable(fault)) => {
                self.finish(Outcome::Failed { connection: Some(connection), fault })
            }
            (State::Claiming { claim, began }, Input::Written(written)) => match written {
                Written::Committed(version) => self.spend(now, claim, version, began),
                Written::Conflict => self.restart(),
                Written::Unknown => {
                    self.state = State::Claimed { began };
                    vec![Effect::Read]
                }
                Written::Unavailable => self.finish(Outcome::StoreUnavailable),
            },
            (State::Claimed { began }, Input::Record(Ok(Seen::Live(record, version))))
                if record.attempt.as_ref().is_some_and(|a| a.id == self.attempt) =>
            {
                self.spend(now, record, version, began)
            }
            (State::Claimed { .. }, Input::Record(Ok(seen))) => self.on_record(now, Ok(seen)),
            (State::Claimed { .. }, Input::Record(Err(()))) => self.finish(Outcome::StoreUnavailable),
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
        match decide(&record, self.cause, &self.local, now) {
            Decision::Serve => self.finish(Outcome::Current(record)),
            Decision::Spend { .. } if self.connected => self.claim(now, record, version),
            Decision::Spend { .. } => {
                self.state = State::Connecting(record, version);
                vec![Effect::Connect]
            }
            Decision::Join => self.join(now, record),
            Decision::Unresolved { retry_in } => self.blocked(record, retry_in),
            Decision::BackOff { .. } => self.finish(Outcome::BackingOff(record)),
            Decision::Dead { reason } => self.finish(Outcome::Dead { connection: record, reason }),
            Decision::Behind => self.finish(Outcome::Behind),
        }
    }

    /// Nobody acts on a record older than what its journal or its cache knows of that incarnation: the newer is
    /// committed first.
    fn heal(&mut self, seen: &Seen, now: Now) -> Option<Vec<Effect>> {
        let newer = self.local.held.as_ref().filter(|held| {
            seen.live().is_none_or(|record| held.is_missing_from(record))
                && matches!(commit(seen, held, now.wall), Verdict::Write(_))
        });
        if let Some(held) = newer.cloned() {
            let publish = Effect::Publish(Box::new(held.successor.clone()));
            let mut effects = self.commit_kept(held, true);
            effects.insert(0, publish);
            return Some(effects);
        }
        let behind = seen.live().is_some_and(|record| {
            self.local
                .served
                .is_some_and(|(incarnation, served)| incarnation == record.incarnation && served > record.generation)
        });
        behind.then(|| self.finish(Outcome::Behind))
    }

    fn join(&mut self, now: Now, record: Box<Connection>) -> Vec<Effect> {
        let since = *self.joined_since.get_or_insert(now.boot);
        if self.cause == Cause::Due || now.boot.since(since) >= self.local.policy.deadline {
            return self.blocked(record, JOIN_POLL);
        }
        self.state = State::Joining;
        vec![Effect::Timer(Timer::Retry, JOIN_POLL)]
    }

    fn blocked(&mut self, connection: Box<Connection>, retry_in: Duration) -> Vec<Effect> {
        let watch = self.local.watch;
        self.finish(Outcome::Blocked { connection, watch, retry_in })
    }

    // --- claiming and spending ---

    fn claim(&mut self, now: Now, record: Box<Connection>, version: Version) -> Vec<Effect> {
        // Connecting took time, so the decision is made once more on what was read; the compare-and-swap does the rest.
        let Decision::Spend { fingerprint, first_spend_at, replays } = decide(&record, self.cause, &self.local, now)
        else {
            return self.restart();
        };
        let mut claim = record;
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
        self.state = State::Claiming { claim, began: now.boot };
        vec![effect]
    }

    fn spend(&mut self, now: Now, claim: Box<Connection>, version: Version, began: Boot) -> Vec<Effect> {
        let policy = self.local.policy;
        let not_after = began + policy.spend_within;
        let Some(renewal) = claim.tokens.renewal.clone().filter(|_| now.boot < not_after) else {
            return self.settle(Ending::NotSent, false);
        };
        self.connected = false;
        let effect = Effect::Spend { renewal, claim: claim.clone(), not_after };
        self.state = State::Exchanging { claim, lease: Lease::Held(version) };
        vec![effect, Effect::Timer(Timer::Renew, policy.lease / 3)]
    }

    // --- the exchange ---

    fn exchanging(&mut self, now: Now, mut claim: Box<Connection>, lease: Lease, input: Input) -> Vec<Effect> {
        let renew_again = Effect::Timer(Timer::Renew, self.local.policy.lease / 3);
        let (lease, effects) = match (lease, input) {
            (lease, Input::Answered(answer)) => return self.answered(now, &claim, lease, answer),
            (Lease::Held(version), Input::Timer(Timer::Renew)) => {
                if let Some(attempt) = claim.attempt.as_mut() {
                    attempt.renewal += 1;
                }
                let write = Effect::Write { connection: claim.clone(), expect: Some(version) };
                (Lease::Renewing, vec![write, renew_again])
            }
            (lease @ (Lease::Renewing | Lease::Rereading | Lease::Unsure), Input::Timer(Timer::Renew)) => {
                (lease, vec![renew_again])
            }
            (Lease::Renewing, Input::Written(Written::Committed(version))) => (Lease::Held(version), vec![]),
            (Lease::Renewing, Input::Written(_)) => (Lease::Rereading, vec![Effect::Read]),
            (Lease::Rereading, Input::Record(seen)) => match seen {
                Ok(Seen::Live(record, version)) if record.attempt.as_ref().is_some_and(|a| a.id == self.attempt) => {
                    claim = record;
                    (Lease::Held(version), vec![])
                }
                Ok(_) => (Lease::Lost, vec![]),
                Err(()) => (Lease::Unsure, vec![Effect::Timer(Timer::Retry, RETRY_FIRST)]),
            },
            (Lease::Unsure, Input::Timer(Timer::Retry)) => (Lease::Rereading, vec![Effect::Read]),
            (lease, _) => (lease, vec![]),
        };
        self.state = State::Exchanging { claim, lease };
        effects
    }

    fn answered(&mut self, now: Now, claim: &Connection, lease: Lease, answer: Answer) -> Vec<Effect> {
        let busy = matches!(lease, Lease::Renewing | Lease::Rereading);
        match answer {
            Answer::Tokens(reply) => {
                let spent = claim.attempt.as_ref().map_or(Fingerprint([0; 16]), |a| a.fingerprint);
                let held = Box::new(Held::new(claim, self.attempt, spent, *reply, now.wall));
                let successor = Box::new(held.successor.clone());
                let mut effects = vec![Effect::Keep(held.clone())];
                let (mut writing, journal) = (None, Journal::Writing);
                let store = match lease {
                    Lease::Held(version) => {
                        effects.push(Effect::Write { connection: successor.clone(), expect: Some(version) });
                        writing = Some(successor);
                        StoreSide::Writing
                    }
                    Lease::Lost | Lease::Unsure => {
                        effects.push(Effect::Read);
                        StoreSide::Reading
                    }
                    Lease::Renewing | Lease::Rereading => StoreSide::Busy,
                };
                let (published, healing, retries) = (false, false, 0);
                self.state = State::Keeping(Keeping { held, journal, store, writing, published, healing, retries });
                effects
            }
            Answer::NotSent => self.settle(Ending::NotSent, busy),
            Answer::Lost { detail } => {
                let fault = Fault::NoOutcome { detail };
                // Within a grace window the owner itself replays once, and at once.
                let replay = matches!(claim.rotation(&self.local.policy), Rotation::Grace { .. })
                    && claim.attempt.as_ref().is_some_and(|a| a.replays == 0);
                self.settle(Ending::Without(Settle::Unanswered { fault: fault.clone(), replay }, fault), busy)
            }
            Answer::Refused(refused) => {
                let ending = match refused {
                    Refused::Grant { code } => Ending::Refused { code },
                    Refused::Client { code } => Ending::Without(Settle::Release, Fault::IntegrationRejected { code }),
                    Refused::Suspicious => Ending::Without(Settle::Release, Fault::Paused),
                    Refused::Request { code } => {
                        let fault = Fault::Rejected { code };
                        Ending::Without(Settle::Failed(fault.clone()), fault)
                    }
                    Refused::Throttled { retry_after } => {
                        let fault = Fault::Throttled { retry_after };
                        Ending::Without(Settle::Failed(fault.clone()), fault)
                    }
                };
                self.settle(ending, busy)
            }
        }
    }

    // --- keeping a reply ---

    /// Commits a reply that a journal has already. `healing` = the record is known to be older, and what the flight
    /// came for is looked at again afterwards.
    fn commit_kept(&mut self, held: Box<Held>, healing: bool) -> Vec<Effect> {
        let (journal, store) = (Journal::Durable, StoreSide::Reading);
        let keeping = Keeping { held, journal, store, writing: None, published: healing, healing, retries: 0 };
        self.state = State::Keeping(keeping);
        vec![Effect::Read]
    }

    fn keeping(&mut self, now: Now, mut k: Keeping, input: Input) -> Vec<Effect> {
        let mut effects = vec![];
        match input {
            Input::Journaled(result) => {
                k.journal = if result.is_ok() { Journal::Durable } else { Journal::Failed };
                if k.journal == Journal::Durable && !std::mem::replace(&mut k.published, true) {
                    effects.push(Effect::Publish(Box::new(k.held.successor.clone())));
                }
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
                if k.journal == Journal::Durable && !std::mem::replace(&mut k.published, true) {
                    effects.push(Effect::Publish(Box::new(k.held.successor.clone())));
                }
                effects.push(wait(&mut k));
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
                    effects.push(Effect::Settled(k.held));
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
        effects.push(Effect::Settled(k.held));
        effects.extend(match (k.healing, ours) {
            (true, _) => self.restart(),
            (false, true) => self.finish(Outcome::Refreshed(current)),
            (false, false) => self.finish(Outcome::Current(current)),
        });
        effects
    }

    // --- writing down that there is no reply ---

    fn settle(&mut self, how: Ending, busy: bool) -> Vec<Effect> {
        let step = if busy { SettleStep::Busy } else { SettleStep::Reading };
        self.state = State::Settling { how, step };
        if busy { vec![] } else { vec![Effect::Read] }
    }

    fn settling(&mut self, now: Now, how: Ending, step: SettleStep, input: Input) -> Vec<Effect> {
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
                self.attempt = AttemptId(Ulid::from(u128::from(self.attempt.0).wrapping_add(1)));
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

/// The store cannot answer now; ask again later, with patience growing.
fn wait(k: &mut Keeping) -> Effect {
    k.store = StoreSide::Waiting;
    let pause = RETRY_FIRST.saturating_mul(2u32.saturating_pow(k.retries)).min(RETRY_CEILING);
    k.retries += 1;
    Effect::Timer(Timer::Retry, pause)
}
