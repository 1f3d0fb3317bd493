//! A pending connect: from the link that an application hands out to the tokens that come of it.
//!
//! Every step consumes the request and gives the next one, and the caller writes it back by compare-and-swap: of two
//! callbacks, two confirmations or two polls that come at once, one wins.

use std::{fmt, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_oauth::Secret;
use url::Url;

use crate::{ConnectId, ConnectionId, Subject, TokenSet, time::after};

/// After so many wrong confirmations there is no right one any more.
pub const MAX_REFUSED: u8 = 5;

/// How long a request waits for its user, and a result for its confirmation.
pub const REQUEST_LIFE: Duration = Duration::from_mins(10);

/// A keyed hash of something that a browser or an application must bring back.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct ProofHash(pub [u8; 32]);

impl ProofHash {
    /// Compares in constant time.
    pub(crate) fn matches(&self, other: &ProofHash) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for ProofHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofHash")
    }
}

/// A pending connect.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest {
    /// Which.
    pub id: ConnectId,
    /// What it is for; names the integration as well.
    pub connection: ConnectionId,
    /// The scope asked for, separated by spaces; `None` = the provider's default.
    pub scope: Option<String>,
    /// Where the user goes afterwards; `None` = a page of ours.
    pub return_to: Option<Url>,
    /// Whether the application must confirm whose account it is before anything is attached.
    pub confirm: bool,
    /// Whether it must be the account that the connection's subject names, as the provider says it.
    pub same_account: bool,
    /// The `redirect_uri` sent to the provider: the code exchange must repeat it (RFC 6749 4.1.3).
    pub redirect_uri: Url,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
    /// How far it got.
    pub stage: Stage,
}

/// How far a connect got.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Nobody has opened the link yet.
    Pending(Outbound),
    /// A browser opened the link and was sent to the provider.
    Redirected {
        /// What went along.
        outbound: Outbound,
        /// The browser that opened it: only this one may come back.
        browser: ProofHash,
    },
    /// The code came back and is being exchanged. A code is good once, so this stage cannot be entered again.
    Exchanging,
    /// The tokens are there, and wait for the application to say that they are its user's.
    AwaitingConfirmation {
        /// What the provider issued.
        obtained: Box<Obtained>,
        /// What the application must bring.
        code: ProofHash,
        /// How many times something else was brought.
        refused: u8,
    },
    /// The user was shown a code and consents on another device (RFC 8628); we poll.
    DevicePolling(DevicePoll),
    /// The connection is there.
    Connected,
    /// The user, or the provider's policy, said no.
    Denied,
    /// Something went wrong.
    Failed {
        /// A stable word for it.
        code: String,
    },
}

/// What a consent brought.
#[derive(Clone, Debug, Default)]
pub struct Obtained {
    /// The connection's tokens; `None` where only the companion's were granted.
    pub tokens: Option<TokenSet>,
    /// The tokens of the companion connection (Slack: the user's, beside the bot's).
    pub companion: Option<TokenSet>,
    /// Who consented, for people.
    pub display_name: Option<String>,
}

/// What an authorization URL is built from, and what its callback is checked against.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Of what opens the link.
    pub ticket: ProofHash,
    /// Of the `state` parameter.
    pub state: ProofHash,
    /// The PKCE verifier (RFC 7636); `None` where the provider refuses PKCE.
    pub pkce_verifier: Option<Secret>,
    /// The OIDC nonce; `None` where no ID token is asked for.
    pub nonce: Option<Secret>,
}

/// What polling for a device's consent needs (RFC 8628 3.2).
#[derive(Clone, Debug)]
pub struct DevicePoll {
    /// What we poll with.
    pub device_code: Secret,
    /// What the user types in.
    pub user_code: Secret,
    /// Where the user types it in.
    pub verification_uri: String,
    /// How long to wait between polls.
    pub interval: Duration,
    /// When to poll next.
    pub next_poll_at: Timestamp,
}

/// Why a step cannot be taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It waited too long.
    #[error("this connect has expired")]
    Expired,
    /// The step was taken before, or it is not this step's turn.
    #[error("this connect is already {stage}")]
    OutOfTurn {
        /// The stage it is in.
        stage: &'static str,
    },
    /// The link is not the one handed out.
    #[error("the link is not this connect's")]
    WrongTicket,
    /// The `state` is not the one sent.
    #[error("the state is not the one this connect was started with")]
    WrongState,
    /// Another browser opened the link first, or another one came back.
    #[error("this connect belongs to another browser")]
    WrongBrowser,
    /// The confirmation names somebody else.
    #[error("this connect is for another subject")]
    WrongSubject,
    /// The confirmation code is not the one sent to the browser.
    #[error("the confirmation code is wrong")]
    WrongCode,
}

/// What a code exchange needs; handed out once.
#[derive(Debug)]
pub struct Exchange {
    /// The request, to be saved *before* the code is sent.
    pub request: AuthorizationRequest,
    /// The PKCE verifier.
    pub pkce_verifier: Option<Secret>,
    /// The nonce that the ID token must carry.
    pub nonce: Option<Secret>,
}

/// A confirmed connect.
#[derive(Debug)]
pub struct Confirmed {
    /// The request, to be saved *after* the tokens are: if that fails, confirming again finds them.
    pub request: AuthorizationRequest,
    /// What to store in the connection.
    pub obtained: Obtained,
}

/// A step: the next request, or why there is none.
pub type Step = Result<AuthorizationRequest, StepError>;

impl AuthorizationRequest {
    /// Whether anything can still come of it at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.expires_at && !matches!(self.stage, Stage::Connected | Stage::Denied | Stage::Failed { .. })
    }

    /// Whether this ticket opens the link, and there still is something to open.
    pub fn opens_with(&self, ticket: ProofHash, now: Timestamp) -> Result<(), StepError> {
        match &self.stage {
            Stage::Pending(outbound) | Stage::Redirected { outbound, .. } => {
                if !outbound.ticket.matches(&ticket) {
                    return Err(StepError::WrongTicket);
                }
                self.check_time(now)
            }
            _ => Err(self.out_of_turn()),
        }
    }

    /// A browser opens the link. Opening it again changes nothing for that browser, and is refused to any other.
    pub fn redirect(self, ticket: ProofHash, browser: ProofHash, now: Timestamp) -> Step {
        self.opens_with(ticket, now)?;
        match &self.stage {
            Stage::Pending(outbound) => {
                let outbound = outbound.clone();
                Ok(self.at(Stage::Redirected { outbound, browser }))
            }
            Stage::Redirected { browser: first, .. } if first.matches(&browser) => Ok(self),
            Stage::Redirected { .. } => Err(StepError::WrongBrowser),
            _ => Err(self.out_of_turn()),
        }
    }

    /// The provider sent the browser back: with a code, or with an error that [`Self::denied`] or [`Self::failed`]
    /// then notes.
    pub fn came_back(mut self, state: ProofHash, browser: ProofHash, now: Timestamp) -> Result<Exchange, StepError> {
        self.check_time(now)?;
        match std::mem::replace(&mut self.stage, Stage::Exchanging) {
            Stage::Redirected { outbound, browser: first } => {
                if !outbound.state.matches(&state) {
                    return Err(StepError::WrongState);
                }
                if !first.matches(&browser) {
                    return Err(StepError::WrongBrowser);
                }
                Ok(Exchange { request: self, pkce_verifier: outbound.pkce_verifier, nonce: outbound.nonce })
            }
            stage => Err(self.at(stage).out_of_turn()),
        }
    }

    /// The tokens came, and the application must confirm them with `code`, for which it gets another
    /// [`REQUEST_LIFE`].
    pub fn await_confirmation(self, obtained: Obtained, code: ProofHash, now: Timestamp) -> Step {
        match self.stage {
            Stage::Exchanging | Stage::DevicePolling(_) => Ok(Self {
                expires_at: after(now, REQUEST_LIFE),
                stage: Stage::AwaitingConfirmation { obtained: Box::new(obtained), code, refused: 0 },
                ..self
            }),
            _ => Err(self.out_of_turn()),
        }
    }

    /// The application says that the tokens are `subject`'s.
    pub fn confirm(mut self, subject: &Subject, code: ProofHash, now: Timestamp) -> Result<Confirmed, StepError> {
        self.check_time(now)?;
        match std::mem::replace(&mut self.stage, Stage::Connected) {
            Stage::AwaitingConfirmation { obtained, code: expected, .. } => {
                if !expected.matches(&code) {
                    return Err(StepError::WrongCode);
                }
                if *subject != self.connection.subject {
                    return Err(StepError::WrongSubject);
                }
                Ok(Confirmed { request: self, obtained: *obtained })
            }
            stage => Err(self.at(stage).out_of_turn()),
        }
    }

    /// A confirmation was wrong. After [`MAX_REFUSED`] of them it is over, and what was obtained is given back.
    pub fn refuse_confirmation(self) -> Result<(Self, Option<Obtained>), StepError> {
        match self.stage {
            Stage::AwaitingConfirmation { obtained, refused, .. } if refused + 1 >= MAX_REFUSED => {
                let stage = Stage::Failed { code: "too_many_wrong_confirmations".to_owned() };
                Ok((Self { stage, ..self }, Some(*obtained)))
            }
            Stage::AwaitingConfirmation { obtained, code, refused } => {
                let stage = Stage::AwaitingConfirmation { obtained, code, refused: refused + 1 };
                Ok((Self { stage, ..self }, None))
            }
            _ => Err(self.out_of_turn()),
        }
    }

    /// The tokens came, nobody needs to confirm them, and the connection is stored.
    pub fn connected(self) -> Step {
        match self.stage {
            Stage::Exchanging | Stage::DevicePolling(_) if !self.confirm => Ok(self.at(Stage::Connected)),
            _ => Err(self.out_of_turn()),
        }
    }

    /// The user has not answered yet: the next poll is due one interval from `now`, or, where the provider said
    /// `slow_down`, after an interval that is five seconds longer from now on (RFC 8628 3.5).
    pub fn poll_later(self, slow_down: bool, now: Timestamp) -> Step {
        self.check_time(now)?;
        match self.stage {
            Stage::DevicePolling(mut poll) => {
                poll.interval += Duration::from_secs(if slow_down { 5 } else { 0 });
                poll.next_poll_at = after(now, poll.interval);
                Ok(Self { stage: Stage::DevicePolling(poll), ..self })
            }
            _ => Err(self.out_of_turn()),
        }
    }

    /// The user said no.
    pub fn denied(self) -> Step {
        if self.is_over() { Err(self.out_of_turn()) } else { Ok(self.at(Stage::Denied)) }
    }

    /// Something went wrong for good.
    pub fn failed(self, code: &str) -> Step {
        if self.is_over() { Err(self.out_of_turn()) } else { Ok(self.at(Stage::Failed { code: code.to_owned() })) }
    }

    fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Connected | Stage::Denied | Stage::Failed { .. })
    }

    fn check_time(&self, now: Timestamp) -> Result<(), StepError> {
        if now < self.expires_at { Ok(()) } else { Err(StepError::Expired) }
    }

    fn out_of_turn(&self) -> StepError {
        StepError::OutOfTurn { stage: self.stage.name() }
    }
}

impl Stage {
    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Stage::Pending(_) => "pending",
            Stage::Redirected { .. } => "redirected",
            Stage::Exchanging => "exchanging",
            Stage::AwaitingConfirmation { .. } => "awaiting_confirmation",
            Stage::DevicePolling(_) => "device_polling",
            Stage::Connected => "connected",
            Stage::Denied => "denied",
            Stage::Failed { .. } => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IntegrationId, Tenant};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const TICKET: ProofHash = ProofHash([4; 32]);
    const STATE: ProofHash = ProofHash([1; 32]);
    const BROWSER: ProofHash = ProofHash([2; 32]);
    const CODE: ProofHash = ProofHash([3; 32]);
    const OTHER: ProofHash = ProofHash([9; 32]);

    fn request(confirm: bool) -> AuthorizationRequest {
        AuthorizationRequest {
            id: ConnectId(ulid::Ulid::nil()),
            connection: ConnectionId {
                integration: IntegrationId::new("google").unwrap(),
                tenant: Tenant::default_tenant(),
                subject: Subject::new("alice").unwrap(),
            },
            scope: None,
            return_to: None,
            confirm,
            same_account: false,
            redirect_uri: Url::parse("http://localhost:7420/oauth/callback").unwrap(),
            created_at: NOW,
            expires_at: after(NOW, REQUEST_LIFE),
            stage: Stage::Pending(Outbound {
                ticket: TICKET,
                state: STATE,
                pkce_verifier: Some("v".into()),
                nonce: None,
            }),
        }
    }

    fn device() -> AuthorizationRequest {
        let poll = DevicePoll {
            device_code: "d".into(),
            user_code: "ABCD".into(),
            verification_uri: "https://example.com/device".to_owned(),
            interval: Duration::from_secs(5),
            next_poll_at: NOW,
        };
        AuthorizationRequest { stage: Stage::DevicePolling(poll), ..request(false) }
    }

    fn exchanging(confirm: bool) -> AuthorizationRequest {
        request(confirm).redirect(TICKET, BROWSER, NOW).unwrap().came_back(STATE, BROWSER, NOW).unwrap().request
    }

    #[test]
    fn a_connect_without_confirmation() {
        let exchange = request(false).redirect(TICKET, BROWSER, NOW).unwrap().came_back(STATE, BROWSER, NOW).unwrap();
        assert!(exchange.pkce_verifier.is_some());
        let connected = exchange.request.connected().unwrap();
        assert!(matches!(connected.stage, Stage::Connected));
        assert!(!connected.is_open(NOW));
    }

    #[test]
    fn another_browser_gets_nowhere() {
        let opened = request(true).redirect(TICKET, BROWSER, NOW).unwrap();
        assert!(opened.clone().redirect(TICKET, BROWSER, NOW).is_ok(), "a reload");
        assert_eq!(opened.clone().redirect(TICKET, OTHER, NOW).unwrap_err(), StepError::WrongBrowser);
        assert_eq!(opened.clone().came_back(STATE, OTHER, NOW).unwrap_err(), StepError::WrongBrowser);
        assert_eq!(opened.came_back(OTHER, BROWSER, NOW).unwrap_err(), StepError::WrongState);
        let unopened = request(true).came_back(STATE, BROWSER, NOW).unwrap_err();
        assert_eq!(unopened, StepError::OutOfTurn { stage: "pending" });
    }

    #[test]
    fn a_callback_is_good_once() {
        let exchanging = exchanging(true);
        let again = exchanging.clone().came_back(STATE, BROWSER, NOW).unwrap_err();
        assert_eq!(again, StepError::OutOfTurn { stage: "exchanging" });
        assert_eq!(
            exchanging.redirect(TICKET, BROWSER, NOW).unwrap_err(),
            StepError::OutOfTurn { stage: "exchanging" }
        );
    }

    #[test]
    fn what_must_be_confirmed_cannot_go_around_it() {
        assert_eq!(exchanging(true).connected().unwrap_err(), StepError::OutOfTurn { stage: "exchanging" });
        let late = after(NOW, REQUEST_LIFE);
        let waiting = exchanging(true).await_confirmation(Obtained::default(), CODE, late).unwrap();
        assert!(waiting.is_open(late), "it has its own time");
        let alice = waiting.connection.subject.clone();
        let mallory = Subject::new("mallory").unwrap();
        assert_eq!(waiting.clone().confirm(&alice, OTHER, late).unwrap_err(), StepError::WrongCode);
        assert_eq!(waiting.clone().confirm(&mallory, CODE, late).unwrap_err(), StepError::WrongSubject);
        let confirmed = waiting.confirm(&alice, CODE, late).unwrap().request;
        let again = confirmed.confirm(&alice, CODE, late).unwrap_err();
        assert_eq!(again, StepError::OutOfTurn { stage: "connected" });
    }

    #[test]
    fn the_fifth_wrong_confirmation_is_the_last() {
        let mut waiting = exchanging(true).await_confirmation(Obtained::default(), CODE, NOW).unwrap();
        for _ in 1..MAX_REFUSED {
            let (next, given_back) = waiting.refuse_confirmation().unwrap();
            assert!(given_back.is_none() && next.is_open(NOW));
            waiting = next;
        }
        let (over, given_back) = waiting.refuse_confirmation().unwrap();
        assert!(given_back.is_some() && !over.is_open(NOW));
        let alice = over.connection.subject.clone();
        assert!(over.confirm(&alice, CODE, NOW).is_err());
    }

    #[test]
    fn only_its_ticket_opens_a_link() {
        assert_eq!(request(true).redirect(OTHER, BROWSER, NOW).unwrap_err(), StepError::WrongTicket);
        assert_eq!(request(true).opens_with(STATE, NOW), Err(StepError::WrongTicket));
        assert_eq!(request(true).opens_with(TICKET, NOW), Ok(()));
        assert!(exchanging(true).opens_with(TICKET, NOW).is_err());
    }

    #[test]
    fn nothing_happens_after_its_time() {
        let late = after(NOW, REQUEST_LIFE);
        assert_eq!(request(false).redirect(TICKET, BROWSER, late).unwrap_err(), StepError::Expired);
        let opened = request(false).redirect(TICKET, BROWSER, NOW).unwrap();
        assert_eq!(opened.came_back(STATE, BROWSER, late).unwrap_err(), StepError::Expired);
        assert_eq!(device().poll_later(false, late).unwrap_err(), StepError::Expired);
    }

    #[test]
    fn an_end_is_an_end() {
        for end in [request(false).denied().unwrap(), exchanging(false).failed("server_error").unwrap()] {
            assert!(end.clone().denied().is_err());
            assert!(end.clone().failed("x").is_err());
            assert!(end.clone().connected().is_err());
            assert!(end.clone().redirect(TICKET, BROWSER, NOW).is_err());
            assert!(end.await_confirmation(Obtained::default(), CODE, NOW).is_err());
        }
    }

    #[test]
    fn slow_down_slows_down_for_good() {
        let due = |request: &AuthorizationRequest| match &request.stage {
            Stage::DevicePolling(poll) => poll.next_poll_at.as_second(),
            _ => panic!("not polling"),
        };
        let polled = device().poll_later(false, NOW).unwrap();
        assert_eq!(due(&polled), 5);
        let slower = polled.poll_later(true, NOW).unwrap();
        assert_eq!(due(&slower), 10);
        assert_eq!(due(&slower.clone().poll_later(false, NOW).unwrap()), 10);
        assert!(slower.connected().is_ok());
    }
}
