use std::time::Duration;

use jiff::Timestamp;

use super::{Heard, Held, Watch};
use crate::{
    Attempt, AttemptId, Boot, Connection, Fingerprint, Freshness, Generation, Health, Incarnation, InstanceId, Now,
    Phase, RefreshPolicy, Rotation, freshness,
    time::{after, between},
};

/// Why a refresh is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A reader waits for a token that lives for this long.
    Read {
        /// Capped at half the token's life.
        min_ttl: Duration,
    },
    /// It is due, and nobody waits.
    Due,
    /// Somebody was told by the provider's API that the token of this generation is no good.
    Reported {
        /// The generation they were given.
        generation: Generation,
    },
    /// Its holder asked for it, and may ask again and again: it waits after a failure as a reader does.
    Asked,
    /// An operator asked for it.
    Forced,
}

/// What this instance knows beside the record.
#[derive(Clone, Debug)]
pub struct Local {
    /// Who we are.
    pub instance: InstanceId,
    /// The provider's ways and our patience.
    pub policy: RefreshPolicy,
    /// The somebody else's attempt we are watching, if any.
    pub watch: Option<Watch>,
    /// Instances that are surely gone, and whose journals we have read to the end.
    pub gone: Vec<InstanceId>,
    /// The newest generation we have served of that incarnation.
    pub served: Option<(Incarnation, Generation)>,
    /// The newest reply of this connection in our journal, or in one we adopted.
    pub held: Option<Box<Held>>,
    /// What the bus told us of this connection.
    pub heard: Heard,
    /// The last look for a shared copy, if this flight took one.
    pub sought: Option<Sought>,
}

/// A look for a reply that somebody shared, which brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// The attempt that stood in the record.
    pub attempt: AttemptId,
    /// When it began.
    pub at: Boot,
    /// Whether it is certain that there was none.
    pub answered: bool,
}

/// What to do about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: what is there is what was asked for, or is the best there will be.
    Serve,
    /// Claim, and spend.
    Spend {
        /// What would be spent.
        fingerprint: Fingerprint,
        /// When it was first about to be spent, if an earlier attempt never learnt its outcome.
        first_spend_at: Option<Timestamp>,
        /// How many such attempts there were.
        replays: u32,
    },
    /// Somebody else's attempt is running.
    Join,
    /// First see whether somebody shared the reply to an earlier attempt.
    Seek,
    /// Nobody may spend it now: what came of an earlier attempt is not known.
    Unresolved {
        /// Why not.
        obstacle: Obstacle,
        /// When that may change, as far as we can tell.
        retry_in: Duration,
    },
    /// It failed lately and is not tried again before this.
    BackOff {
        /// When it is.
        retry_at: Timestamp,
    },
    /// Only the user can help.
    Dead {
        /// The stable word.
        reason: String,
    },
    /// We are told of a generation younger than any we can see.
    Behind,
}

/// Why nobody may spend a refresh token that an earlier attempt may have spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The attempt is running, as far as we know.
    Running,
    /// The access token is alive: as long as it is, nothing need be risked.
    AccessTokenAlive,
    /// Another instance said that it holds the reply.
    ReplyElsewhere,
    /// Its owner has not been silent for long enough.
    OwnerMayReturn,
    /// Whether a copy of the reply lies in the shared cache cannot be seen.
    CopyUnknown,
}

impl Obstacle {
    /// For people.
    pub fn detail(self) -> &'static str {
        match self {
            Obstacle::Running => "another instance is at it",
            Obstacle::AccessTokenAlive => "the refresh token is not risked while the access token is alive",
            Obstacle::ReplyElsewhere => "another instance holds the provider's reply and cannot store it yet",
            Obstacle::OwnerMayReturn => "the instance that asked for it may still bring the provider's reply",
            Obstacle::CopyUnknown => "the shared cache, where a copy of the provider's reply may lie, cannot be read",
        }
    }
}

/// When a shared cache that did not answer is asked again.
const SEEK_AGAIN: Duration = Duration::from_secs(5);

/// A reader does not wait for the preloader's long back-off, which is made for connections that nobody reads.
const READER_BACKOFF: Duration = Duration::from_mins(1);
/// [`Fault::code`](super::Fault::code) of the faults that may pass without anybody's doing.
const PASSING: [&str; 3] = ["provider_unreachable", "provider_throttled", "no_outcome"];

/// What to do about `record`. `local.watch` has seen `record.attempt`.
pub fn decide(record: &Connection, cause: Cause, local: &Local, now: Now) -> Decision {
    if let Some(decision) = wanted(record, cause, &local.policy, now) {
        return decision;
    }
    let reason = match (&record.health, record.fingerprint()) {
        (Health::ReauthRequired { reason, .. }, _) => Some(reason.clone()),
        (_, None) => Some("no_refresh_token".to_owned()),
        _ => None,
    };
    if let Some(reason) = reason {
        return Decision::Dead { reason };
    }
    if let Some(retry_at) = backing_off(record, cause, now) {
        return Decision::BackOff { retry_at };
    }
    let fresh = |fingerprint| Decision::Spend { fingerprint, first_spend_at: None, replays: 0 };
    match (record.fingerprint(), &record.attempt) {
        (Some(held), Some(attempt)) if attempt.fingerprint == held => spend_again(record, attempt, local, now),
        // Somebody's on the token before this one: a provider that sees that one after this is used takes it for theft.
        (Some(_), Some(attempt)) if !is_over(attempt, local) && still(local, now) < local.policy.lease => {
            Decision::Join
        }
        (Some(held), _) => fresh(held),
        (None, _) => Decision::Dead { reason: "no_refresh_token".to_owned() },
    }
}

/// Whether there is anything to want: `None` = yes, a refresh.
fn wanted(record: &Connection, cause: Cause, policy: &RefreshPolicy, now: Now) -> Option<Decision> {
    match cause {
        Cause::Read { min_ttl } => {
            (freshness(record, min_ttl, policy.margin, now) != Freshness::Stale).then_some(Decision::Serve)
        }
        Cause::Due => {
            let access = record.tokens.access.as_ref()?;
            access.due_at(policy.margin).is_none_or(|due| due > now.wall).then_some(Decision::Serve)
        }
        Cause::Reported { generation } if generation > record.generation => Some(Decision::Behind),
        Cause::Reported { generation } => (generation < record.generation).then_some(Decision::Serve),
        Cause::Asked | Cause::Forced => {
            let finished = record.last_refreshed_at?;
            (record.is_alive(now.wall) && finished <= now.wall && between(finished, now.wall) < policy.join_window)
                .then_some(Decision::Serve)
        }
    }
}

fn backing_off(record: &Connection, cause: Cause, now: Now) -> Option<Timestamp> {
    let Health::Failing { retry_at, .. } = record.health else { return None };
    // Only what may pass by itself is tried sooner because somebody waits: the rest is a login per minute for nothing.
    let hasty =
        record.login().is_none() || record.last_error.as_ref().is_some_and(|e| PASSING.contains(&e.code.as_str()));
    let until = match cause {
        Cause::Forced => return None,
        Cause::Read { .. } | Cause::Reported { .. } | Cause::Asked if !hasty => retry_at,
        Cause::Read { .. } | Cause::Reported { .. } | Cause::Asked => {
            retry_at.min(after(record.updated_at, READER_BACKOFF))
        }
        Cause::Due => retry_at,
    };
    (until > now.wall).then_some(until)
}

/// Who may spend a refresh token that an earlier attempt was about to spend.
fn spend_again(record: &Connection, attempt: &Attempt, local: &Local, now: Now) -> Decision {
    let policy = &local.policy;
    let rotation = record.rotation(policy);
    let over = is_over(attempt, local);
    let still = still(local, now);
    let running = !over && still < policy.lease;
    let last_beacon = local.heard.last_beacon(record);
    if running && last_beacon.is_none() {
        return Decision::Join;
    }
    let sought = local.sought.filter(|s| s.attempt == attempt.id && last_beacon.is_none_or(|beacon| beacon <= s.at));
    if sought.is_none() && may_be_shared(attempt, rotation, local) {
        return Decision::Seek;
    }
    if running {
        return Decision::Join;
    }
    let spend = Decision::Spend {
        fingerprint: attempt.fingerprint,
        first_spend_at: Some(attempt.first_spend_at),
        replays: attempt.replays + 1,
    };
    let strict = || {
        let unresolved = |obstacle, retry_in| Decision::Unresolved { obstacle, retry_in };
        if let Some(access) = record.tokens.access.as_ref().filter(|a| a.is_alive(now.wall)) {
            let dies = access.expires_at.unwrap_or(Timestamp::MAX);
            return unresolved(Obstacle::AccessTokenAlive, between(now.wall, dies));
        }
        if sought.is_some_and(|s| !s.answered) {
            return unresolved(Obstacle::CopyUnknown, SEEK_AGAIN);
        }
        // Whoever says that it holds the reply is believed, even where the attempt's owner is gone: it may have found
        // a copy that is lost by now.
        let told = last_beacon.map_or(Duration::ZERO, |at| policy.silence.saturating_sub(now.boot.since(at)));
        if !told.is_zero() {
            return unresolved(Obstacle::ReplyElsewhere, told);
        }
        let untold = policy.silence.saturating_sub(local.heard.silent_for(record, now.boot));
        let missing = match over {
            true if attempt.replays == 0 => Duration::ZERO,
            // That one is over; the owners of those before it were only silent for too long, and may be back.
            true => untold,
            false => (policy.lease + policy.silence).saturating_sub(still).max(untold),
        };
        if missing.is_zero() { spend.clone() } else { unresolved(Obstacle::OwnerMayReturn, missing) }
    };
    match rotation {
        Rotation::None | Rotation::Overlap | Rotation::Predecessor => spend,
        Rotation::Grace { window, .. } => {
            // The window is judged by the wall clock, the only one that another machine can have written down. A clock
            // that went backwards tells nothing, and one that we have watched longer than it says is wrong.
            let elapsed =
                (attempt.first_spend_at <= now.wall).then(|| between(attempt.first_spend_at, now.wall).max(still));
            let arrives = policy.spend_within + policy.deadline;
            match elapsed {
                Some(elapsed) if attempt.replays == 0 && elapsed + arrives <= window => spend,
                _ => strict(),
            }
        }
        Rotation::Strict => strict(),
    }
}

/// Whether nothing more can come of `attempt`, and nothing of it lies where we have not looked.
fn is_over(attempt: &Attempt, local: &Local) -> bool {
    attempt.phase == Phase::Unanswered || attempt.owner == local.instance || local.gone.contains(&attempt.owner)
}

/// How long the attempt in the record has stood still.
fn still(local: &Local, now: Now) -> Duration {
    local.watch.map_or(Duration::ZERO, |watch| watch.still_for(now.boot))
}

/// Whether somebody may have shared a reply to `attempt`, or to an earlier one on the same token.
fn may_be_shared(attempt: &Attempt, rotation: Rotation, local: &Local) -> bool {
    let first = attempt.replays == 0;
    let cannot_come = attempt.phase == Phase::Unanswered || attempt.owner == local.instance;
    rotation != Rotation::None && !(first && cannot_come)
}
