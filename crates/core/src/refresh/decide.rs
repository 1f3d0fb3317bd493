use std::time::Duration;

use jiff::Timestamp;

use super::{Held, Watch};
use crate::{
    Attempt, Connection, Fingerprint, Freshness, Generation, Health, Incarnation, InstanceId, Now, Phase,
    RefreshPolicy, Rotation, freshness,
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
    /// Nobody may spend it now: what came of an earlier attempt is not known.
    Unresolved {
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

/// A reader does not wait for the preloader's long back-off, which is made for connections that nobody reads.
const READER_BACKOFF: Duration = Duration::from_mins(1);

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
        Cause::Forced => {
            let finished = record.last_refreshed_at?;
            (record.is_alive(now.wall) && finished <= now.wall && between(finished, now.wall) < policy.join_window)
                .then_some(Decision::Serve)
        }
    }
}

fn backing_off(record: &Connection, cause: Cause, now: Now) -> Option<Timestamp> {
    let Health::Failing { retry_at, .. } = record.health else { return None };
    let until = match cause {
        Cause::Forced => return None,
        Cause::Read { .. } | Cause::Reported { .. } => retry_at.min(after(record.updated_at, READER_BACKOFF)),
        Cause::Due => retry_at,
    };
    (until > now.wall).then_some(until)
}

/// Who may spend a refresh token that an earlier attempt was about to spend.
fn spend_again(record: &Connection, attempt: &Attempt, local: &Local, now: Now) -> Decision {
    let policy = &local.policy;
    // Nothing more can come of the attempt, and nothing of it lies where we have not looked.
    let over =
        attempt.phase == Phase::Unanswered || attempt.owner == local.instance || local.gone.contains(&attempt.owner);
    let still = local.watch.map_or(Duration::ZERO, |w| w.still_for(now.boot));
    if !over && still < policy.lease {
        return Decision::Join;
    }
    let spend = Decision::Spend {
        fingerprint: attempt.fingerprint,
        first_spend_at: Some(attempt.first_spend_at),
        replays: attempt.replays + 1,
    };
    let strict = || {
        if let Some(access) = record.tokens.access.as_ref().filter(|a| a.is_alive(now.wall)) {
            let dies = access.expires_at.unwrap_or(Timestamp::MAX);
            return Decision::Unresolved { retry_in: between(now.wall, dies) };
        }
        let silence = policy.lease + policy.silence;
        if over || still >= silence {
            spend.clone()
        } else {
            Decision::Unresolved { retry_in: silence.saturating_sub(still) }
        }
    };
    match record.rotation(policy) {
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
