use std::time::Duration;

use jiff::Timestamp;

use super::Seen;
use crate::{AttemptId, Connection, Health, LastError, Phase, time::after};

/// Why a refresh brought nothing, and whose fault that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The provider could not be reached; nothing was sent.
    Unreachable {
        /// For people; ours.
        detail: String,
    },
    /// The provider did not act on the request: it said so.
    Throttled {
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The provider refused the request for a reason that is neither the user's nor the client's authorization.
    Rejected {
        /// The OAuth error code.
        code: String,
    },
    /// The provider refuses our client: every connection of the integration is concerned.
    IntegrationRejected {
        /// The OAuth error code.
        code: String,
    },
    /// There is no outcome: a cut, a time-out, a 5xx, a reply nobody can read. The provider may have acted.
    NoOutcome {
        /// For people; ours.
        detail: String,
    },
    /// Too many connections of this integration are being refused at once; nobody is marked until a human looked.
    Paused,
    /// The refresh could not even be asked for: our own configuration lacks something.
    Misconfigured {
        /// For people; ours.
        detail: String,
    },
}

impl Fault {
    /// The stable word.
    pub fn code(&self) -> &str {
        match self {
            Fault::Unreachable { .. } => "provider_unreachable",
            Fault::Throttled { .. } => "provider_throttled",
            Fault::Rejected { code } => code,
            Fault::IntegrationRejected { .. } => "integration_rejected",
            Fault::NoOutcome { .. } => "no_outcome",
            Fault::Paused => "refresh_paused",
            Fault::Misconfigured { .. } => "integration_missing",
        }
    }

    /// A sentence for people.
    pub fn detail(&self) -> String {
        match self {
            Fault::Unreachable { detail } | Fault::NoOutcome { detail } | Fault::Misconfigured { detail } => {
                detail.clone()
            }
            Fault::Throttled { retry_after: Some(wait) } => {
                format!("the provider asked us to wait {} s", wait.as_secs())
            }
            Fault::Throttled { retry_after: None } => "the provider asked us to wait".to_owned(),
            Fault::Rejected { code } => format!("the provider refused the refresh with `{code}`"),
            Fault::IntegrationRejected { code } => format!("the provider refused our client with `{code}`"),
            Fault::Paused => "many connections of this integration were refused at once".to_owned(),
        }
    }
}

/// How an attempt that brought no tokens is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Nothing was spent, and the connection is not to blame: take the intent back.
    Release,
    /// The provider surely did not act: take the intent back, and back off.
    Failed(Fault),
    /// The provider may have acted: keep the intent, and say that no answer can come.
    Unanswered {
        /// Why not.
        fault: Fault,
        /// Whether the owner is about to replay it, rather than to back off.
        replay: bool,
    },
}

/// What is to be written, if the attempt is still the one in the record.
#[derive(Clone, Debug)]
pub enum Settled {
    /// Write this, expecting the record just seen.
    Write(Box<Connection>),
    /// The record has moved on without this attempt.
    Moved,
}

/// Writes down how `attempt` ended without a reply.
pub fn settle(seen: &Seen, attempt: AttemptId, how: &Settle, now: Timestamp) -> Settled {
    let Some(mut next) = ours(seen, attempt) else { return Settled::Moved };
    match how {
        _ if !next.is_claimed_by(attempt) => next.attempt = None,
        Settle::Release => take_back(&mut next),
        Settle::Failed(fault) => {
            take_back(&mut next);
            note(&mut next, fault, now);
        }
        Settle::Unanswered { fault, replay } => {
            if let Some(a) = next.attempt.as_mut() {
                a.phase = Phase::Unanswered;
            }
            let health = next.health.clone();
            note(&mut next, fault, now);
            if *replay {
                next.health = health;
            }
        }
    }
    next.updated_at = now;
    Settled::Write(next)
}

/// Why a connection waits for other credentials.
pub const INVALID_CREDENTIALS: &str = "invalid_credentials";

/// Writes down that the provider refused what `attempt` spent: for good, unless there is an alternate to try, or another
/// token in its place by now. `Settled::Moved` means a race, not a loss.
pub fn refuse(seen: &Seen, attempt: AttemptId, code: &str, now: Timestamp) -> Settled {
    let Some(mut next) = ours(seen, attempt) else { return Settled::Moved };
    let replayed = next.attempt.as_ref().is_some_and(|a| a.replays > 0);
    if let Some(spent) = next.attempt.take().map(|a| a.fingerprint) {
        if next.fingerprint() != Some(spent) {
            next.updated_at = now;
            return Settled::Write(next);
        }
        if let Some(alternate) = next.alternate.take() {
            next.spent.push(spent);
            next.tokens.renewal = Some(alternate.renewal);
            next.health = Health::Healthy;
            next.updated_at = now;
            return Settled::Write(next);
        }
    }
    let (reason, detail) = if next.login().is_some() {
        // Never tried again by itself: an account that is locked is worse than one that waits.
        (INVALID_CREDENTIALS, "the provider refuses the credentials; store them anew to try again".to_owned())
    } else if replayed {
        (
            "refresh_token_spent",
            format!(
                "an earlier refresh was cut off before its answer came, and the provider now refuses its refresh token with `{code}`"
            ),
        )
    } else {
        ("invalid_grant", format!("the provider refuses the refresh token with `{code}`"))
    };
    next.health = Health::ReauthRequired { reason: reason.to_owned(), since: now };
    next.last_error = Some(LastError { code: reason.to_owned(), detail, at: now });
    next.updated_at = now;
    Settled::Write(next)
}

/// The record, if `attempt` is the one written down in it.
fn ours(seen: &Seen, attempt: AttemptId) -> Option<Box<Connection>> {
    match seen {
        Seen::Live(record, _) if record.attempt.as_ref().is_some_and(|a| a.id == attempt) => Some(record.clone()),
        _ => None,
    }
}

/// Takes an intent back that surely spent nothing. An earlier attempt on the same token may still be unresolved:
/// taking ours back must not hide that.
fn take_back(next: &mut Connection) {
    match next.attempt.as_mut() {
        Some(attempt) if attempt.replays > 0 => attempt.phase = Phase::Unanswered,
        _ => next.attempt = None,
    }
}

/// Notes a failure that may pass.
fn note(next: &mut Connection, fault: &Fault, now: Timestamp) {
    let failures = match next.health {
        Health::Failing { failures, .. } => failures + 1,
        _ => 1,
    };
    let asked = match fault {
        Fault::Throttled { retry_after } => retry_after.unwrap_or_default().min(BACKOFF_CEILING),
        _ => Duration::ZERO,
    };
    next.health = Health::Failing { failures, retry_at: after(now, backoff(failures).max(asked)) };
    next.last_error = Some(LastError { code: fault.code().to_owned(), detail: fault.detail(), at: now });
}

const BACKOFF_CEILING: Duration = Duration::from_hours(6);

/// How long to wait after so many failures in a row: a second, doubling, six hours at most, so that a connection
/// nobody mends costs four calls a day.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1).saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(BACKOFF_CEILING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_connection_costs_a_handful_of_calls_a_day() {
        let day = Duration::from_hours(24);
        let (mut elapsed, mut failures) = (Duration::ZERO, 0);
        while elapsed < day * 10 {
            failures += 1;
            elapsed += backoff(failures);
        }
        let later = (1..).scan(Duration::ZERO, |sum, n| {
            *sum += backoff(failures + n);
            (*sum <= day).then_some(())
        });
        assert!(later.count() <= 4);
        assert_eq!(backoff(1), Duration::from_secs(1));
        assert_eq!(backoff(2), Duration::from_secs(2));
        assert_eq!(backoff(u32::MAX), BACKOFF_CEILING);
    }
}
