//! While the request is out: the lease is renewed, and whatever comes back is taken in.

use super::{Ending, Flight, RETRY_FIRST, State, keeping::ClaimedAt};
use crate::{
    Connection, Fingerprint, Now, Rotation,
    ports::Version,
    refresh::{Answer, Effect, Fault, Held, Input, Refused, Seen, Settle, Timer, Written},
};

/// What is known of our claim's record while the exchange runs.
#[derive(Debug)]
pub(super) enum Lease {
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

impl Flight {
    pub(super) fn exchanging(
        &mut self,
        now: Now,
        mut claim: Box<Connection>,
        lease: Lease,
        input: Input,
    ) -> Vec<Effect> {
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
                Ok(Seen::Live(record, version)) if record.is_claimed_by(self.attempt) => {
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
                let at = match lease {
                    Lease::Held(version) => ClaimedAt::Version(version),
                    Lease::Renewing | Lease::Rereading => ClaimedAt::Busy,
                    Lease::Lost | Lease::Unsure => ClaimedAt::Nowhere,
                };
                self.keep(held, at)
            }
            Answer::NotSent => self.settle(Ending::NotSent, busy),
            Answer::Lost { detail } => {
                let fault = Fault::NoOutcome { detail };
                if claim.login().is_some() {
                    // A login uses nothing up, so nothing is unresolved.
                    return self.settle(Ending::Without(Settle::Failed(fault.clone()), fault), busy);
                }
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
}
