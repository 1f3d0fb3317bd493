//! A session: a grant that a first-party backend made for its own user, bound to a connection.
//!
//! Its access tokens go to the user's browser; what they lead to is the provider's token, which stays here. When one of
//! them is refreshed, the old one lives on for a grace window, and whoever presents it meanwhile gets the same successor:
//! so two tabs that refresh at once agree, and a reply that got lost is made again.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    ClientId, Grant, Incarnation,
    grant::{Family, GrantError, GrantStage, LiveToken, Presented},
    time::{after, before},
};

/// The client that sessions are granted to. It is ours: it has no record, proves itself to nobody, and asks for nothing.
pub const SESSION_CLIENT: &str = "_sessions";

/// A token that follows its upstream dies so long before it.
pub const HEADSTART: Duration = Duration::from_mins(15);

/// But it lives for so long at least, where the upstream can be renewed meanwhile.
pub const FLOOR: Duration = Duration::from_mins(5);

/// A token is near its expiry from then on.
pub const NEAR_EXPIRY: Duration = Duration::from_mins(10);

/// What makes a grant a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// How long its tokens live.
    pub terms: Terms,
    /// The life of the connection that it was made for: a connection that was deleted, and made again under the same
    /// name, is another.
    pub incarnation: Incarnation,
    /// What was refreshed a moment ago, and what came of it.
    pub successors: Vec<Successor>,
}

/// How long a session's access tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Said by whoever made it.
    pub ttl: Option<Duration>,
    /// Whether they follow the upstream's expiry.
    pub coordinated: bool,
}

/// How long the provider's tokens are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLife {
    /// When its access token dies; `None` = never, as far as is known.
    pub expires_at: Option<Timestamp>,
    /// Whether anything can bring the next one.
    pub renewable: bool,
}

impl Terms {
    /// When a token that is issued at `now` dies, to the second: after the explicit ttl; else [`HEADSTART`] before the
    /// upstream, but not before [`FLOOR`]; else after `usual`. What follows an upstream that cannot be renewed never
    /// outlives it. Not later than `now` = it would be dead at once.
    pub fn expires_at(&self, upstream: UpstreamLife, usual: Duration, now: Timestamp) -> Timestamp {
        let followed = upstream.expires_at.filter(|_| self.coordinated);
        let end = match (self.ttl, followed) {
            (Some(ttl), _) => after(now, ttl),
            (None, Some(dies)) => before(dies, HEADSTART).max(after(now, FLOOR)),
            (None, None) => after(now, usual),
        };
        let end = match followed {
            Some(dies) if !upstream.renewable => end.min(dies),
            _ => end,
        };
        Timestamp::from_second(end.as_second()).unwrap_or(end)
    }
}

/// All that a session's access token says that its grant does not: enough to make it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionToken {
    /// Its name.
    pub jti: String,
    /// When it was issued, to the second.
    pub issued_at: Timestamp,
    /// When it is dead, to the second.
    pub expires_at: Timestamp,
    /// When the upstream's token died, as it was known then.
    pub upstream_expires_at: Option<Timestamp>,
}

impl SessionToken {
    /// What its grant remembers of it.
    pub fn live(&self) -> LiveToken {
        LiveToken { jti: self.jti.clone(), expires_at: self.expires_at }
    }
}

/// What a token was refreshed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The `jti` that was presented, or the number of the refresh token.
    pub of: String,
    /// What came of it.
    pub token: SessionToken,
    /// For so long whoever presents it gets the same.
    pub until: Timestamp,
}

/// What a refresh leads to.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The session as it is now.
    pub grant: Grant,
    /// The token to hand out.
    pub token: SessionToken,
    /// The number of the refresh token to hand out, if it was one that was presented.
    pub number: Option<u64>,
}

impl Session {
    /// The newest that `of` led to, if that was a moment ago: whoever is two refreshes behind catches up.
    fn successor(&self, of: &str, now: Timestamp) -> Option<&SessionToken> {
        let next = |of: &str| self.successors.iter().find(|s| s.of == of && now < s.until).map(|s| &s.token);
        let mut newest = next(of)?;
        // A token leads to one that was made after it, so this ends.
        while let Some(younger) = next(&newest.jti) {
            newest = younger;
        }
        Some(newest)
    }
}

impl Grant {
    /// What the access token `jti` was refreshed to a moment ago, if that still counts.
    pub fn successor_of(&self, jti: &str, now: Timestamp) -> Option<SessionToken> {
        let token = self.session.as_ref()?.successor(jti, now)?;
        self.has_live(&token.jti, now).then(|| token.clone())
    }

    /// One more access token; those that are there stay.
    pub fn reissued(self, presented: &str, token: &SessionToken, now: Timestamp) -> Result<Self, GrantError> {
        if matches!(self.stage, GrantStage::Revoked { .. }) {
            return Err(GrantError::Revoked);
        }
        if !self.has_live(presented, now) {
            return Err(GrantError::Expired);
        }
        Ok(self.remember_beside(Some(presented), token.live(), now))
    }

    /// Puts `token` in the place of the access token that is presented, which lives on for `grace`. Where that was done a
    /// moment ago, nothing changes, and the answer is what it was.
    pub fn renewed(
        self,
        presented: &str,
        token: SessionToken,
        grace: Duration,
        now: Timestamp,
    ) -> Result<Renewed, GrantError> {
        if matches!(self.stage, GrantStage::Revoked { .. }) {
            return Err(GrantError::Revoked);
        }
        if !self.has_live(presented, now) {
            return Err(GrantError::Expired);
        }
        if let Some(token) = self.successor_of(presented, now) {
            return Ok(Renewed { grant: self, token, number: None });
        }
        let until = after(now, grace);
        let mut grant = self;
        for live in grant.live.iter_mut().filter(|live| live.jti == presented) {
            live.expires_at = live.expires_at.min(until);
        }
        Ok(Renewed { grant: grant.followed(presented.to_owned(), &token, until, now), token, number: None })
    }

    /// The same for one of the session's refresh tokens. `life`: how long the next of them lives.
    ///
    /// # Errors
    /// [`GrantError::Replayed`]: the whole session must end.
    pub fn renewed_by(
        self,
        presented: &Presented,
        life: Duration,
        token: SessionToken,
        grace: Duration,
        now: Timestamp,
    ) -> Result<Renewed, GrantError> {
        let client = self.client.clone();
        let refreshed = self.refresh(presented, &client, life, now)?;
        let (grant, number) = (refreshed.grant, Some(refreshed.number));
        let of = format!("#{}", presented.number);
        if let Some(token) = grant.successor_of(&of, now) {
            return Ok(Renewed { grant, token, number });
        }
        Ok(Renewed { grant: grant.followed(of, &token, after(now, grace), now), token, number })
    }

    fn followed(self, of: String, token: &SessionToken, until: Timestamp, now: Timestamp) -> Self {
        let mut grant = self.remember_beside(Some(&of), token.live(), now);
        if let Some(session) = &mut grant.session {
            session.successors.retain(|successor| now < successor.until && successor.of != of);
            session.successors.push(Successor { of, token: token.clone(), until });
        }
        grant
    }
}

impl Family {
    /// Of a session that begins now. `refresh_life`: how long its first refresh token lives; `None` = it has none.
    pub fn begin(refresh_life: Option<Duration>, now: Timestamp) -> Self {
        Self {
            newest: u64::from(refresh_life.is_some()),
            rotated_at: now,
            expires_at: after(now, refresh_life.unwrap_or_default()),
        }
    }
}

/// Whether `id` is the client that sessions are granted to.
pub fn is_session_client(id: &str) -> bool {
    id == SESSION_CLIENT
}

/// The client that sessions are granted to.
pub fn session_client() -> ClientId {
    ClientId::new(SESSION_CLIENT).expect("it is made of printable ASCII")
}
