//! The connection: one aggregate, one record, one compare-and-swap.

use std::{collections::VecDeque, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_oauth::Secret;

use crate::{
    AttemptId, ConnectionId, Generation, Incarnation, InstanceId, LoginGrant, Now, Rotation,
    time::{after, before, between},
};

/// A keyed hash of a refresh token (or of what stands in for one): enough to recognise it, useless to spend it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// What a provider issued: the newest access token, and what brings the next one.
#[derive(Clone, Debug, Default)]
pub struct TokenSet {
    /// The newest access token; `None` before the first and after clean-up dropped a dead one.
    pub access: Option<AccessToken>,
    /// What brings the next one; `None` = nothing does.
    pub renewal: Option<Renewal>,
    /// What the provider granted, separated by spaces; `None` if it never said.
    pub scope: Option<String>,
}

/// An access token of a provider.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// The token.
    pub token: Secret,
    /// `Bearer`, mostly.
    pub token_type: String,
    /// When we received it, by the receiver's wall clock.
    pub issued_at: Timestamp,
    /// When it dies; `None` = never.
    pub expires_at: Option<Timestamp>,
}

impl AccessToken {
    /// Whether the provider would still take it at `now`.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// How long it lived when it was issued; `None` = for ever.
    pub fn life(&self) -> Option<Duration> {
        self.expires_at.map(|at| between(self.issued_at, at))
    }

    /// When its refresh is due: `margin` before its end, but never more than [`MARGIN_FRACTION`] of its life.
    pub fn due_at(&self, margin: Duration) -> Option<Timestamp> {
        let (at, life) = (self.expires_at?, self.life()?);
        Some(before(at, margin.min(life.mul_f64(MARGIN_FRACTION))))
    }

    /// Whether it lives for another `min_ttl` (capped at half its life) at `now`.
    pub fn is_fresh_for(&self, min_ttl: Duration, now: Timestamp) -> bool {
        match (self.expires_at, self.life()) {
            (Some(at), Some(life)) => after(now, min_ttl.min(life / 2)) < at,
            _ => true,
        }
    }
}

/// The early-refresh margin never exceeds this fraction of a token's life: a five-minute margin on a token that
/// lives five minutes would be an endless refresh.
pub const MARGIN_FRACTION: f64 = 0.25;

/// What brings a new access token.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// What is spent for it.
    pub by: RenewBy,
    /// The keyed hash of what is spent; of a fixed word where nothing is used up.
    pub fingerprint: Fingerprint,
}

/// What is spent for a new access token.
#[derive(Clone, Debug)]
pub enum RenewBy {
    /// A refresh token (RFC 6749 6).
    RefreshToken(Secret),
    /// The integration's own credentials (RFC 6749 4.4).
    ClientCredentials,
    /// An assertion signed with the integration's key (RFC 7523), for this connection's subject.
    JwtBearer,
    /// The access token itself, while it lives (Facebook, Instagram).
    AccessToken,
    /// A username and a password, or an API key, at a provider that knows no OAuth.
    Login(LoginGrant),
}

impl Renewal {
    /// The refresh token, if that is what is spent.
    pub fn refresh_token(&self) -> Option<&Secret> {
        match &self.by {
            RenewBy::RefreshToken(token) => Some(token),
            RenewBy::ClientCredentials | RenewBy::JwtBearer | RenewBy::AccessToken | RenewBy::Login(_) => None,
        }
    }

    /// The credentials, if those are what is spent.
    pub fn login(&self) -> Option<&LoginGrant> {
        match &self.by {
            RenewBy::Login(login) => Some(login),
            RenewBy::RefreshToken(_) | RenewBy::ClientCredentials | RenewBy::JwtBearer | RenewBy::AccessToken => None,
        }
    }
}

/// Fingerprints of the refresh tokens spent last, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spent(VecDeque<Fingerprint>);

impl Spent {
    /// How many are remembered.
    pub const CAPACITY: usize = 16;

    /// Remembers `fingerprint` as spent, forgetting the oldest beyond [`Spent::CAPACITY`].
    pub fn push(&mut self, fingerprint: Fingerprint) {
        if !self.contains(fingerprint) {
            self.0.push_front(fingerprint);
            self.0.truncate(Self::CAPACITY);
        }
    }

    /// Whether it is among the remembered.
    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.0.contains(&fingerprint)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One subject's authorization at one integration.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Which.
    pub id: ConnectionId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The number of `tokens`.
    pub generation: Generation,
    /// What the provider issued last.
    pub tokens: TokenSet,
    /// The attempt whose reply brought this generation; `None` if it came by consent, PUT or import.
    pub committed_by: Option<AttemptId>,
    /// Refresh tokens spent before this one.
    pub spent: Spent,
    /// The intent to refresh that is written down at present.
    pub attempt: Option<Attempt>,
    /// A successor of a refresh token that lost against another one; tried once if the winner is refused.
    pub alternate: Option<Alternate>,
    /// How refreshing has gone of late.
    pub health: Health,
    /// The last thing that went wrong; kept for people until a refresh succeeds.
    pub last_error: Option<LastError>,
    /// For people.
    pub display_name: Option<String>,
    /// When this incarnation began.
    pub created_at: Timestamp,
    /// When the record was last written.
    pub updated_at: Timestamp,
    /// When a provider's reply was last committed.
    pub last_refreshed_at: Option<Timestamp>,
}

/// What is remembered of a deleted connection, so that its successor's generation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The life that ended.
    pub incarnation: Incarnation,
    /// The last generation of it.
    pub generation: Generation,
}

/// An intent to spend a refresh token, written down before the first byte goes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which.
    pub id: AttemptId,
    /// Whose.
    pub owner: InstanceId,
    /// Counted up by the owner while its exchange runs: it is still there.
    pub renewal: u32,
    /// What it spends.
    pub fingerprint: Fingerprint,
    /// When this refresh token was first about to be spent, by that owner's wall clock.
    pub first_spend_at: Timestamp,
    /// How many earlier attempts spent the same refresh token without learning the outcome.
    pub replays: u32,
    /// How far it got, as far as its owner could write it down.
    pub phase: Phase,
}

/// How far an attempt got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The owner is at it, or died at it.
    Running,
    /// The owner's exchange ended without an outcome: no reply can come any more, but the provider may have acted.
    Unanswered,
}

/// A successor that lost against another.
#[derive(Clone, Debug)]
pub struct Alternate {
    /// What it would spend.
    pub renewal: Renewal,
    /// When it was received.
    pub received_at: Timestamp,
}

/// How refreshing has gone of late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The last refresh succeeded, or none was needed yet.
    #[default]
    Healthy,
    /// It failed for a reason that may pass.
    Failing {
        /// How many times in a row.
        failures: u32,
        /// Not before this is it tried again.
        retry_at: Timestamp,
    },
    /// The provider refused for good: the user must consent again.
    ReauthRequired {
        /// A stable word for it: `invalid_grant`, `no_refresh_token`, `refresh_token_spent`, `invalid_credentials`.
        reason: String,
        /// Since when.
        since: Timestamp,
    },
}

/// Something that went wrong, for people. Never holds a secret: the code is one of ours or one of the error
/// registry's, the text is our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// A stable word.
    pub code: String,
    /// A sentence.
    pub detail: String,
    /// When.
    pub at: Timestamp,
}

/// What a connection's owner is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A consent waits for its confirmation.
    Pending,
    /// The access token is good.
    Active,
    /// The access token is good, its refresh is due.
    Expiring,
    /// The access token is dead; the next read refreshes it.
    Expired,
    /// A refresh token was spent and nobody knows what came of it.
    Unresolved,
    /// The user must consent again.
    ReauthRequired,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 6] = [
        Status::Pending,
        Status::Active,
        Status::Expiring,
        Status::Expired,
        Status::Unresolved,
        Status::ReauthRequired,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Active => "active",
            Status::Expiring => "expiring",
            Status::Expired => "expired",
            Status::Unresolved => "unresolved",
            Status::ReauthRequired => "reauth_required",
        }
    }
}

impl Connection {
    /// Whether the access token is alive at `now`.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.tokens.access.as_ref().is_some_and(|a| a.is_alive(now))
    }

    /// The fingerprint of what the next refresh would spend, if anything.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.tokens.renewal.as_ref().map(|r| r.fingerprint)
    }

    /// The credentials by which it is renewed, if it is renewed by credentials.
    pub fn login(&self) -> Option<&LoginGrant> {
        self.tokens.renewal.as_ref().and_then(Renewal::login)
    }

    /// What the provider does with what the next refresh would spend.
    pub fn rotation(&self, policy: &RefreshPolicy) -> Rotation {
        match self.tokens.renewal.as_ref().map(|r| &r.by) {
            Some(RenewBy::RefreshToken(_)) | None => policy.rotation,
            // Nothing is used up.
            Some(RenewBy::ClientCredentials | RenewBy::JwtBearer | RenewBy::AccessToken | RenewBy::Login(_)) => {
                Rotation::None
            }
        }
    }

    /// Whether `attempt` is the one that is to spend its refresh token. An attempt on an earlier one stays written
    /// down until it ended.
    pub fn is_claimed_by(&self, attempt: AttemptId) -> bool {
        self.attempt.as_ref().is_some_and(|a| a.id == attempt && self.fingerprint() == Some(a.fingerprint))
    }

    /// What its owner is told at `now`, for a provider with this early-refresh `margin` and `lease`.
    pub fn status(&self, now: Timestamp, margin: Duration, lease: Duration) -> Status {
        if matches!(self.health, Health::ReauthRequired { .. }) {
            return Status::ReauthRequired;
        }
        if let Some(attempt) = &self.attempt
            && self.fingerprint() == Some(attempt.fingerprint)
            && attempt.is_unresolved(now, lease)
        {
            return Status::Unresolved;
        }
        match &self.tokens.access {
            Some(access) if access.is_alive(now) => match access.due_at(margin) {
                Some(due) if due <= now => Status::Expiring,
                _ => Status::Active,
            },
            _ => Status::Expired,
        }
    }

    /// When the preloader should look at this connection; `None` = never. `jitter` in `0.0..1.0` spreads the load.
    pub fn next_refresh_at(&self, margin: Duration, jitter: f64) -> Option<Timestamp> {
        let access = self.tokens.access.as_ref()?;
        self.tokens.renewal.as_ref()?;
        match &self.health {
            Health::ReauthRequired { .. } => None,
            Health::Failing { retry_at, .. } => Some(*retry_at),
            Health::Healthy => {
                let (due, life) = (access.due_at(margin)?, access.life()?);
                Some(before(due, life.mul_f64(0.05 * jitter)))
            }
        }
    }
}

impl Attempt {
    /// Whether its outcome may never be learnt: it ended without one, or it is older than any lease (a guess by the
    /// wall clock, for people; who may spend next is decided on the boot clock alone).
    pub fn is_unresolved(&self, now: Timestamp, lease: Duration) -> bool {
        self.phase == Phase::Unanswered || after(self.first_spend_at, lease) < now
    }
}

/// What the refresh machine must know of the provider and of our patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// What the provider does with a spent refresh token.
    pub rotation: Rotation,
    /// How long before expiry a refresh is due; capped by [`MARGIN_FRACTION`].
    pub margin: Duration,
    /// How long callers wait for an exchange. The exchange itself goes on.
    pub deadline: Duration,
    /// How long an attempt counts as running without being renewed.
    pub lease: Duration,
    /// How long after the claim began its first byte may be written.
    pub spend_within: Duration,
    /// How long an owner must be silent before a strict provider's refresh token is spent a second time.
    pub silence: Duration,
    /// After a refresh, how long a forced one is answered with it.
    pub join_window: Duration,
}

impl RefreshPolicy {
    /// The shipped patience for a provider with this rotation policy and margin. In a grace window, three deadlines
    /// must fit: the first exchange, the lease's end, the replay.
    pub fn new(rotation: Rotation, margin: Duration) -> Self {
        let mut policy = Self {
            rotation,
            margin,
            deadline: Duration::from_secs(10),
            lease: Duration::from_secs(15),
            spend_within: Duration::from_secs(2),
            silence: Duration::from_secs(120),
            join_window: Duration::from_secs(10),
        };
        if let Rotation::Grace { window, .. } = rotation {
            policy.deadline = policy.deadline.min(window / 3);
            policy.lease = policy.lease.min(window / 3).max(Duration::from_secs(1));
        }
        policy
    }
}

/// Whether a reader can be answered from what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Answer.
    Fresh,
    /// Answer, and refresh behind.
    Early,
    /// Not fresh enough: wait for the refresh.
    Stale,
}

/// How the access token of `connection` stands for a reader who wants it to live for `min_ttl`.
pub fn freshness(connection: &Connection, min_ttl: Duration, margin: Duration, now: Now) -> Freshness {
    match &connection.tokens.access {
        Some(access) if access.is_alive(now.wall) && access.is_fresh_for(min_ttl, now.wall) => {
            match access.due_at(margin) {
                Some(due) if due <= now.wall => Freshness::Early,
                _ => Freshness::Fresh,
            }
        }
        _ => Freshness::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(life: Option<u64>) -> AccessToken {
        let issued_at = Timestamp::UNIX_EPOCH;
        AccessToken {
            token: "secret".into(),
            token_type: "Bearer".into(),
            issued_at,
            expires_at: life.map(|s| after(issued_at, Duration::from_secs(s))),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_margin_never_exceeds_a_fraction_of_the_life() {
        let five_minutes = Duration::from_mins(5);
        assert_eq!(access(Some(3600)).due_at(five_minutes), Some(at(3300)));
        assert_eq!(access(Some(300)).due_at(five_minutes), Some(at(225)));
        assert_eq!(access(None).due_at(five_minutes), None);
    }

    #[test]
    fn a_reader_may_ask_for_half_a_life_at_most() {
        let token = access(Some(100));
        let day = Duration::from_hours(24);
        assert!(token.is_fresh_for(day, at(49)));
        assert!(!token.is_fresh_for(day, at(50)));
        assert!(token.is_fresh_for(Duration::from_secs(10), at(89)));
        assert!(!token.is_fresh_for(Duration::from_secs(10), at(90)));
        assert!(!token.is_fresh_for(Duration::ZERO, at(100)));
        assert!(access(None).is_fresh_for(day, at(1_000_000)));
    }

    #[test]
    fn the_last_sixteen_spent_tokens_are_remembered() {
        let mut spent = Spent::default();
        for n in 0..20 {
            spent.push(Fingerprint([n; 16]));
            spent.push(Fingerprint([n; 16]));
        }
        assert!(!spent.contains(Fingerprint([3; 16])));
        assert!((4..20).all(|n| spent.contains(Fingerprint([n; 16]))));
    }

    #[test]
    fn three_deadlines_fit_into_a_grace_window() {
        for seconds in [3, 30, 600] {
            let window = Duration::from_secs(seconds);
            let successor = crate::provider::Successor::Same;
            let policy = RefreshPolicy::new(Rotation::Grace { window, successor }, Duration::ZERO);
            assert!(policy.deadline * 3 <= window && policy.deadline <= Duration::from_secs(10), "{policy:?}");
        }
    }

    #[test]
    fn nothing_shows_a_token() {
        let shown = format!("{:?}", access(Some(1)));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
