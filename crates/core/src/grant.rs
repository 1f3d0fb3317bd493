//! What a subject allowed a client: the authorization code, the refresh token family, the live access tokens.
//!
//! All of it is one record, so that each step is one compare-and-swap. Codes and refresh tokens are not stored: number
//! `n` of a grant is `{grant}.{n}.{HMAC(seed, n)}`, so the grant recognises every genuine token it ever handed out, can
//! make a successor again that got lost on its way, and is not moved by a forged one. Number 0 is the authorization code.

use std::{collections::BTreeSet, fmt, time::Duration};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokenkeep_oauth::{
    Secret,
    issuer::{authorize::CodeChallenge, resource::Resource, scope::ScopeSet},
};
use zeroize::Zeroizing;

use crate::{ClientId, ConnectionId, GrantId, Subject, session::Session, time::after};

/// How long an authorization code is good (RFC 6749 4.1.2 allows ten minutes at most).
pub const CODE_LIFE: Duration = Duration::from_mins(1);

/// For so long after a refresh token was first presented, its predecessor still leads to it.
pub const OVERLAP: Duration = Duration::from_secs(30);

/// How many access tokens of one grant are live at once. The one that would die first gives way.
pub const MAX_LIVE: usize = 256;

/// An ended grant is remembered for so long, so that a replay is still recognised.
const REMEMBERED: Duration = Duration::from_hours(24);

const SECRET_LEN: usize = 43;

/// What a subject allowed a client.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Which.
    pub id: GrantId,
    /// Whom it was allowed.
    pub client: ClientId,
    /// Who allowed it.
    pub subject: Subject,
    /// What else is known of them.
    pub user: User,
    /// What was allowed.
    pub scope: ScopeSet,
    /// Where it may be used.
    pub resource: Resource,
    /// The tokens of the provider that the subject signed in with.
    pub connection: Option<ConnectionId>,
    /// The clients that the subject allowed to have the tokens of `connection` (RFC 8693), and to use its account there.
    pub exchangers: BTreeSet<ClientId>,
    /// What codes and refresh tokens are made from.
    pub seed: GrantSeed,
    /// When it was given.
    pub created_at: Timestamp,
    /// How far it got.
    pub stage: GrantStage,
    /// The access tokens that count, oldest first.
    pub live: Vec<LiveToken>,
    /// What makes it a session, where it is one.
    pub session: Option<Session>,
}

/// What is known of who signed in, beside the subject. For people and for rules, never an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// What the provider calls them at present.
    pub name: Option<String>,
    /// An address that the provider vouches for.
    pub email: Option<String>,
}

/// How far a grant got.
#[derive(Clone, Debug)]
pub enum GrantStage {
    /// The code was handed out.
    Coded(Code),
    /// The code was redeemed.
    Active(Family),
    /// It is over.
    Revoked {
        /// Why.
        reason: Revoked,
        /// Since when.
        at: Timestamp,
    },
}

/// What a code is checked against (RFC 6749 4.1.3, RFC 7636 4.6).
#[derive(Clone, Debug)]
pub struct Code {
    /// Where it was sent.
    pub redirect_uri: String,
    /// What the verifier must hash to.
    pub challenge: CodeChallenge,
    /// When it is dead.
    pub expires_at: Timestamp,
}

/// The refresh tokens of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The number of the newest that was handed out; 0 = none was, the client may not refresh.
    pub newest: u64,
    /// When its predecessor was first presented; of the first, when the code was redeemed.
    pub rotated_at: Timestamp,
    /// When the newest is dead, if nobody presents it before.
    pub expires_at: Timestamp,
}

/// Why a grant is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The client, the subject or the operator said so.
    Asked,
    /// Its code was redeemed a second time.
    CodeReplayed,
    /// A refresh token was presented whose successor was in use.
    RefreshTokenReplayed,
    /// The provider ended what the grant rests on.
    UpstreamEnded,
    /// Who gave it may no longer sign in.
    NotAdmitted,
}

impl Revoked {
    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::CodeReplayed => "code_replayed",
            Self::RefreshTokenReplayed => "refresh_token_replayed",
            Self::UpstreamEnded => "upstream_ended",
            Self::NotAdmitted => "not_admitted",
        }
    }

    /// Takes back what [`Revoked::as_str`] gave.
    pub fn from_stored(word: &str) -> Option<Self> {
        [Self::Asked, Self::CodeReplayed, Self::RefreshTokenReplayed, Self::UpstreamEnded, Self::NotAdmitted]
            .into_iter()
            .find(|reason| reason.as_str() == word)
    }
}

/// An access token that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveToken {
    /// Its `jti`.
    pub jti: String,
    /// When it is dead.
    pub expires_at: Timestamp,
}

/// The 256 bits that a grant's codes and refresh tokens are made from.
#[derive(Clone)]
pub struct GrantSeed(Zeroizing<[u8; 32]>);

impl GrantSeed {
    /// Of fresh random bytes, or of stored ones.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For sealing.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn secret(&self, n: u64) -> String {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0));
        mac.update(b"tokenkeep grant token");
        mac.update(&n.to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(mac.sign())
    }
}

impl fmt::Debug for GrantSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantSeed")
    }
}

/// A code or refresh token as it was presented: well formed, and not yet believed.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Whose it says it is.
    pub grant: GrantId,
    /// Which one it says it is; 0 = the code.
    pub number: u64,
    secret: Secret,
}

impl Presented {
    /// Reads `{grant}.{n}.{secret}`.
    pub fn parse(text: &Secret) -> Option<Self> {
        let mut parts = text.expose_secret().splitn(3, '.');
        let (grant, number, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let canonical = number == "0" || !number.starts_with(['0', '+']);
        let sane = secret.len() == SECRET_LEN && canonical;
        let (grant, number) = (grant.parse().ok()?, number.parse().ok()?);
        sane.then(|| Self { grant, number, secret: secret.into() })
    }
}

/// What a client says when it redeems a code.
#[derive(Clone, Copy, Debug)]
pub struct Redemption<'a> {
    /// Who it is, proven.
    pub client: &'a ClientId,
    /// Where it says the code was sent.
    pub redirect_uri: Option<&'a str>,
    /// What proves that it is who asked for the code.
    pub verifier: Option<&'a Secret>,
    /// The resource it names, if any.
    pub resource: Option<&'a Resource>,
}

/// Why a code or refresh token leads to nothing. Unless said otherwise nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It is no token of this grant.
    #[error("the token is not genuine")]
    Forged,
    /// It was given to another client.
    #[error("the token was issued to another client")]
    WrongClient,
    /// It, or what it was part of, is dead.
    #[error("the token has expired")]
    Expired,
    /// The grant is over.
    #[error("the grant was revoked")]
    Revoked,
    /// The code was sent elsewhere.
    #[error("the redirect_uri is not the one that the code was sent to")]
    WrongRedirectUri,
    /// The verifier is missing or not the right one.
    #[error("the code_verifier does not match")]
    WrongVerifier,
    /// It is good for another resource only.
    #[error("the grant is for another resource")]
    WrongResource,
    /// More is asked for than was granted.
    #[error("the scope goes beyond what was granted")]
    WiderScope,
    /// It was used before, by somebody who may be somebody else: the grant must be revoked for this.
    #[error("the token was used before")]
    Replayed(Revoked),
}

/// What a refresh leads to.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The grant as it is now.
    pub grant: Grant,
    /// The number of the refresh token to hand out.
    pub number: u64,
}

impl Grant {
    /// Its authorization code, or refresh token number `n`.
    pub fn token(&self, n: u64) -> Secret {
        format!("{}.{n}.{}", self.id, self.seed.secret(n)).into()
    }

    /// Whether it ever made this token. Takes the same time whatever the answer.
    fn made(&self, presented: &Presented) -> bool {
        let expected = Zeroizing::new(self.seed.secret(presented.number));
        presented.grant == self.id
            && verify_slices_are_equal(expected.as_bytes(), presented.secret.expose_secret().as_bytes()).is_ok()
    }

    /// Whether anything can still come of it.
    pub fn is_live(&self, now: Timestamp) -> bool {
        match &self.stage {
            GrantStage::Coded(code) => now < code.expires_at,
            GrantStage::Active(family) => now < family.expires_at || self.live.iter().any(|t| now < t.expires_at),
            GrantStage::Revoked { .. } => false,
        }
    }

    /// When its record becomes garbage.
    pub fn expires_at(&self) -> Timestamp {
        let tokens = self.live.iter().map(|token| token.expires_at).max();
        let end = match &self.stage {
            GrantStage::Coded(code) => code.expires_at,
            GrantStage::Active(family) => family.expires_at,
            GrantStage::Revoked { at, .. } => *at,
        };
        after(tokens.map_or(end, |tokens| tokens.max(end)), REMEMBERED)
    }

    /// Redeems the code. `refresh_life`: how long its first refresh token lives, `None` = the client gets none.
    ///
    /// # Errors
    /// A failed check leaves the code as it was. [`GrantError::Replayed`]: it was redeemed before, and what that brought
    /// must go (RFC 6749 4.1.2).
    pub fn redeem(
        self,
        presented: &Presented,
        by: Redemption<'_>,
        refresh_life: Option<Duration>,
        now: Timestamp,
    ) -> Result<Self, GrantError> {
        if presented.number != 0 || !self.made(presented) {
            return Err(GrantError::Forged);
        }
        self.check_client(by.client)?;
        self.check_resource(by.resource)?;
        match &self.stage {
            GrantStage::Revoked { .. } => Err(GrantError::Revoked),
            GrantStage::Active(_) => Err(GrantError::Replayed(Revoked::CodeReplayed)),
            GrantStage::Coded(code) => {
                if now >= code.expires_at {
                    return Err(GrantError::Expired);
                }
                if by.redirect_uri.is_some_and(|uri| uri != code.redirect_uri) {
                    return Err(GrantError::WrongRedirectUri);
                }
                if !by.verifier.is_some_and(|verifier| code.challenge.admits(verifier)) {
                    return Err(GrantError::WrongVerifier);
                }
                let family = Family {
                    newest: u64::from(refresh_life.is_some()),
                    rotated_at: now,
                    expires_at: after(now, refresh_life.unwrap_or_default()),
                };
                Ok(Self { stage: GrantStage::Active(family), ..self })
            }
        }
    }

    /// Presents a refresh token. `life`: how long the one that is handed out lives.
    ///
    /// # Errors
    /// [`GrantError::Replayed`]: the whole family must be revoked.
    pub fn refresh(
        self,
        presented: &Presented,
        client: &ClientId,
        life: Duration,
        now: Timestamp,
    ) -> Result<Refreshed, GrantError> {
        if presented.number == 0 || !self.made(presented) {
            return Err(GrantError::Forged);
        }
        self.check_client(client)?;
        let family = match &self.stage {
            GrantStage::Revoked { .. } => return Err(GrantError::Revoked),
            // It made this token, so the record lost what was written since.
            GrantStage::Coded(_) => Family { newest: presented.number, rotated_at: now, expires_at: after(now, life) },
            GrantStage::Active(family) => *family,
        };
        if now >= family.expires_at {
            return Err(GrantError::Expired);
        }
        let n = presented.number;
        let (family, number) = if n >= family.newest {
            // Genuine and ahead of the record: the store lost what was written since, and we go on from there.
            (Family { newest: n + 1, rotated_at: now, expires_at: after(now, life) }, n + 1)
        } else if n + 1 == family.newest || (n + 2 == family.newest && now < after(family.rotated_at, OVERLAP)) {
            (family, n + 1)
        } else {
            return Err(GrantError::Replayed(Revoked::RefreshTokenReplayed));
        };
        Ok(Refreshed { grant: Self { stage: GrantStage::Active(family), ..self }, number })
    }

    /// What a request may have of this grant: all of it, or the part it asks for (RFC 6749 6).
    pub fn narrowed(&self, scope: Option<&ScopeSet>, resource: Option<&Resource>) -> Result<ScopeSet, GrantError> {
        self.check_resource(resource)?;
        match scope {
            None => Ok(self.scope.clone()),
            Some(asked) if asked.is_subset(&self.scope) => Ok(asked.clone()),
            Some(_) => Err(GrantError::WiderScope),
        }
    }

    /// An access token was made. The one that would die first gives way if there are too many.
    pub fn remember(self, token: LiveToken, now: Timestamp) -> Self {
        self.remember_beside(None, token, now)
    }

    /// The same where `presented` must not be the one that gives way: whoever shows it goes on using it.
    pub(crate) fn remember_beside(mut self, presented: Option<&str>, token: LiveToken, now: Timestamp) -> Self {
        self.live.retain(|live| now < live.expires_at);
        if self.live.len() >= MAX_LIVE {
            let others = self.live.iter().enumerate().filter(|(_, live)| Some(&*live.jti) != presented);
            if let Some((first, _)) = others.min_by_key(|(_, live)| live.expires_at) {
                self.live.remove(first);
            }
        }
        self.live.push(token);
        self
    }

    /// Whether the access token of this `jti` counts.
    pub fn has_live(&self, jti: &str, now: Timestamp) -> bool {
        self.lives_until(jti, now).is_some()
    }

    /// When the access token of this `jti` dies, if it counts.
    pub fn lives_until(&self, jti: &str, now: Timestamp) -> Option<Timestamp> {
        let live = self.live.iter().find(|token| token.jti == jti && now < token.expires_at)?;
        matches!(self.stage, GrantStage::Active(_)).then_some(live.expires_at)
    }

    /// One access token counts no more; `None` = it did not count before.
    pub fn forget(&self, jti: &str) -> Option<Self> {
        let at = self.live.iter().position(|token| token.jti == jti)?;
        let mut grant = self.clone();
        grant.live.remove(at);
        Some(grant)
    }

    /// Ends it, and all that it handed out; `None` = it has ended before.
    pub fn revoke(&self, reason: Revoked, now: Timestamp) -> Option<Self> {
        if matches!(self.stage, GrantStage::Revoked { .. }) {
            return None;
        }
        Some(Self { stage: GrantStage::Revoked { reason, at: now }, live: Vec::new(), ..self.clone() })
    }

    /// Whether `client` may know of `presented` at all: it is genuine and that client's.
    pub fn belongs(&self, presented: &Presented, client: &ClientId) -> bool {
        self.made(presented) && self.client == *client
    }

    fn check_client(&self, client: &ClientId) -> Result<(), GrantError> {
        if self.client == *client { Ok(()) } else { Err(GrantError::WrongClient) }
    }

    fn check_resource(&self, resource: Option<&Resource>) -> Result<(), GrantError> {
        match resource {
            Some(resource) if *resource != self.resource => Err(GrantError::WrongResource),
            _ => Ok(()),
        }
    }
}
