//! Whether an access token counts. What was verified once is remembered by its hash, until it is dead or taken back.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{
    Boot, Client, ClientId, ClientOrigin, ConnectionId, Grant, GrantId, Incarnation, Now, Voided, grant::Revoked,
    session::is_session_client, time::after, voided::VoidedId,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        access_token::{AccessTokenClaims, AccessTokenError, Expected, parse_access_token},
        error::OAuthError,
        introspection::IntrospectionReply,
        resource::Resource,
    },
};

use super::{
    Issuer, Refused,
    remembered::{Remembered, TRUSTED_LIFE},
};
use crate::{Error, cache::Lease, records::Loaded, uniform::Uniform};

/// Clocks of instances may differ by so much, the second included that tokens are dated to.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);
/// So many tokens are remembered at once; each costs about one KiB.
const TOKENS: u64 = 50_000;

/// A token that counts.
#[derive(Debug)]
pub struct VerifiedToken {
    /// What it says.
    pub claims: AccessTokenClaims,
    /// The grant that it came from; client credentials have none.
    pub grant: Option<GrantId>,
    /// What its user signed in with at a provider, if they did at one.
    pub connection: Option<ConnectionId>,
    /// The clients that its user allowed to have those tokens (RFC 8693).
    pub exchangers: BTreeSet<ClientId>,
    /// When it is dead: sooner than it says, if a session's token was refreshed.
    pub counts_until: Timestamp,
    /// The life of the connection that a session is bound to; `None` = it is no session's token.
    pub(crate) incarnation: Option<Incarnation>,
    /// What introspection says of it (RFC 7662 2.2), ready to be sent.
    pub description: Bytes,
}

/// The tokens that were verified, by their hash.
pub(super) struct Verified {
    tokens: Remembered<[u8; 32], Arc<VerifiedToken>, Uniform>,
    doubts: Doubts,
}

/// What was taken back lately, wholly or in part: what was verified before that does not count.
#[derive(Default)]
struct Doubts {
    since: RwLock<HashMap<Origin<'static>, Boot>>,
    /// When the last one came, in nanoseconds of the boot clock: who was verified later need not look.
    last: AtomicU64,
}

/// What can be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Origin<'a> {
    Client(Cow<'a, str>),
    Grant(GrantId),
    /// A token without a grant, by its `jti`.
    Token(Cow<'a, str>),
}

/// More than this within a minute, and everything is verified anew.
const MAX_DOUBTS: usize = 100_000;

impl Doubts {
    /// `forget_all` is called where there are too many: before they go, so that none is ever without effect.
    fn add(&self, origin: Origin<'static>, now: Boot, forget_all: impl FnOnce()) {
        let mut since = self.since.write().unwrap_or_else(PoisonError::into_inner);
        if since.len() >= MAX_DOUBTS {
            forget_all();
            since.clear();
        }
        if since.len().is_power_of_two() {
            // What is older is not believed any more in any case.
            since.retain(|_, at| now.since(*at) < TRUSTED_LIFE);
        }
        since.insert(origin, now);
        self.last.fetch_max(nanos(now), SeqCst);
    }

    fn shake(&self, token: &VerifiedToken, seen: Boot) -> bool {
        if nanos(seen) > self.last.load(SeqCst) {
            return false;
        }
        let alone = || Origin::Token(Cow::Borrowed(&token.claims.jti));
        let origins = [token.grant.map_or_else(alone, Origin::Grant), Origin::Client((&token.claims.client_id).into())];
        let since = self.since.read().unwrap_or_else(PoisonError::into_inner);
        let since: &HashMap<Origin<'_>, Boot> = &since;
        origins.iter().filter_map(|origin| since.get(origin)).any(|at| seen <= *at)
    }
}

fn nanos(at: Boot) -> u64 {
    u64::try_from(at.since(Boot::default()).as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Verified {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { tokens: Remembered::new(TOKENS, lease), doubts: Doubts::default() }
    }

    /// A client was changed or removed, or what it has was taken back.
    pub(super) fn doubt_client(&self, id: &ClientId, now: Boot) {
        self.doubt(Origin::Client(id.to_string().into()), now);
    }

    /// Something of that grant was taken back: all of its tokens are verified anew.
    pub(super) fn doubt_grant(&self, id: GrantId, now: Boot) {
        self.doubt(Origin::Grant(id), now);
    }

    /// A token without a grant was taken back.
    pub(super) fn doubt_token(&self, jti: &str, now: Boot) {
        self.doubt(Origin::Token(jti.to_owned().into()), now);
    }

    pub(super) fn forget_all(&self) {
        self.tokens.forget_all();
    }

    fn doubt(&self, origin: Origin<'static>, now: Boot) {
        // An answer that is on its way was asked for before, so it is doubted, too.
        self.doubts.add(origin, now, || self.tokens.forget_all());
    }

    fn get(&self, name: &[u8; 32], now: Now) -> Option<Arc<VerifiedToken>> {
        let (token, seen) = self.tokens.seen(name, now.boot)?;
        (now.wall < token.counts_until && !self.doubts.shake(&token, seen)).then_some(token)
    }
}

impl Issuer {
    /// The hot path: the token, if it was verified a moment ago. Takes no lock, does no I/O; `None` says nothing.
    pub fn verified(&self, token: &str) -> Option<Arc<VerifiedToken>> {
        self.verified.get(&name_of(token), self.shared.now())
    }

    /// The token, if it counts: for any of our resources. Which one it is for is the caller's to look at.
    pub async fn verify(&self, token: &Secret) -> Result<Arc<VerifiedToken>, Refused> {
        let name = name_of(token.expose_secret());
        let now = self.shared.now();
        if let Some(known) = self.verified.get(&name, now) {
            return Ok(known);
        }
        let question = self.verified.tokens.asking(now.boot);
        let claims = self.believed(token, now.wall).await?;
        let Standing { grant, counts_until } = self.check_standing(&claims, now.wall).await?;
        let reply = IntrospectionReply::access_token(self.settings.url.as_str(), &claims);
        let description = serde_json::to_vec(&reply).map_err(|_| Error::Conflict { what: "access token" })?.into();
        let verified = Arc::new(VerifiedToken {
            claims,
            grant: grant.as_ref().map(|grant| grant.id),
            incarnation: grant.as_ref().and_then(|grant| grant.session.as_ref()).map(|session| session.incarnation),
            exchangers: grant.as_ref().map(|grant| grant.exchangers.clone()).unwrap_or_default(),
            connection: grant.and_then(|grant| grant.connection),
            counts_until,
            description,
        });
        self.verified.tokens.insert(&name, verified.clone(), question);
        Ok(verified)
    }

    /// What is written in it, if we wrote it.
    async fn believed(&self, token: &Secret, now: Timestamp) -> Result<AccessTokenClaims, Refused> {
        let audiences: Vec<Resource> = self.resources().map(|known| known.resource.clone()).collect();
        let expected = Expected { issuer: self.settings.url.as_str(), audiences: &audiences, leeway: Duration::ZERO };
        let parse = || parse_access_token(token, self.ring().trusted(), expected, now);
        let parsed = match parse() {
            Err(AccessTokenError::UnknownKey) if self.look_for_key().await? => parse(),
            parsed => parsed,
        };
        parsed.map_err(|error| {
            tracing::debug!(%error, "an access token is not believed");
            OAuthError::from(error).into()
        })
    }

    /// The user's connection at the provider is over: what they allowed the client of `token` ends with it, and they
    /// sign in again.
    pub async fn upstream_ended(&self, token: &VerifiedToken) -> Result<(), Error> {
        match token.grant {
            Some(grant) => self.end_grant(&grant, Revoked::UpstreamEnded).await.map(drop),
            None => Ok(()),
        }
    }

    /// Whether it was taken back.
    async fn check_standing(&self, claims: &AccessTokenClaims, now: Timestamp) -> Result<Standing, Refused> {
        let is_sessions = self.sessions.is_some() && is_session_client(&claims.client_id);
        if !is_sessions && !self.is_still_known(&claims.client_id).await? {
            return Err(taken_back());
        }
        let Some((grant, _)) = claims.jti.split_once('.') else {
            let alone = Standing { grant: None, counts_until: claims.expires_at };
            return if self.is_void(claims).await? { Err(taken_back()) } else { Ok(alone) };
        };
        let id: GrantId = grant.parse().map_err(|_| taken_back())?;
        let grant = self.load_grant(&id).await?.ok_or_else(taken_back)?.value;
        let counts_until = grant.lives_until(&claims.jti, now).ok_or_else(taken_back)?;
        Ok(Standing { grant: Some(grant), counts_until })
    }

    /// Whether a token without a grant was taken back: by itself, with all that its client had, or because that was
    /// another client of the same name.
    async fn is_void(&self, claims: &AccessTokenClaims) -> Result<bool, Error> {
        let client = self.client(&claims.client_id).await?;
        let has_record = |client: &Client| matches!(client.origin, ClientOrigin::Api | ClientOrigin::Registered { .. });
        let Some(client) = client else { return Ok(true) };
        if has_record(&client) && after(claims.issued_at, CLOCKS_DIFFER) < client.created_at {
            return Ok(true);
        }
        let load =
            async |id: VoidedId| self.shared.records.load::<Voided>(&id).await.map_err(Error::reading("revocation"));
        let (one, all) =
            tokio::try_join!(load(VoidedId::access_token(&claims.jti)), load(VoidedId::tokens_of(&client.id)))?;
        let until = match all {
            Loaded::Live(stored) => stored.value.issued_until,
            Loaded::Absent | Loaded::Deleted(_) => None,
        };
        // A token says the second: one of that very second may be from before.
        Ok(!matches!(one, Loaded::Absent) || until.is_some_and(|until| claims.issued_at <= until))
    }
}

/// What the store says of a token that counts.
struct Standing {
    /// The grant that it came from, if it has one.
    grant: Option<Grant>,
    counts_until: Timestamp,
}

fn taken_back() -> Refused {
    OAuthError::invalid_token("the access token is expired, revoked or not valid here").into()
}

/// What a token is remembered by. An unkeyed hash will do: it is in this process's memory only, and who can read that
/// has our keys.
fn name_of(token: &str) -> [u8; 32] {
    let mut name = [0; 32];
    name.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    name
}

#[cfg(test)]
mod tests {
    use tokenkeep_oauth::issuer::scope::ScopeSet;

    use super::*;

    fn token(jti: &str) -> VerifiedToken {
        let claims = AccessTokenClaims {
            subject: "backend".to_owned(),
            audience: Resource::parse("https://mcp.example.com").unwrap(),
            client_id: "backend".to_owned(),
            scope: ScopeSet::default(),
            jti: jti.to_owned(),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::MAX,
            username: None,
            session: None,
        };
        VerifiedToken {
            claims,
            grant: None,
            connection: None,
            exchangers: BTreeSet::new(),
            counts_until: Timestamp::MAX,
            incarnation: None,
            description: Bytes::new(),
        }
    }

    #[test]
    fn a_client_that_changes_puts_its_own_tokens_in_doubt() {
        let (doubts, now) = (Doubts::default(), Boot::default());
        let token = |client: &str| {
            let mut token = token("1");
            token.claims.client_id = client.to_owned();
            token.grant = Some(GrantId(tokenkeep_core::id::Ulid(1)));
            token
        };
        doubts.add(Origin::Client("backend".into()), now, || panic!("there is room"));
        assert!(doubts.shake(&token("backend"), now) && !doubts.shake(&token("other"), now));
    }

    #[test]
    fn too_many_doubts_are_dropped_only_after_everything_was_forgotten() {
        let doubts = Doubts::default();
        let now = Boot::default();
        for n in 0..MAX_DOUBTS {
            doubts.add(Origin::Token(n.to_string().into()), now, || panic!("there is room for {n}"));
        }
        assert!(doubts.shake(&token("0"), now) && !doubts.shake(&token("other"), now));
        let mut forgotten = false;
        doubts.add(Origin::Token("other".into()), now, || {
            assert!(doubts.since.try_read().is_err(), "nobody looks in between");
            forgotten = true;
        });
        assert!(forgotten && doubts.shake(&token("other"), now));
    }
}
