//! Whether an access token counts. What was verified once is remembered by its hash, until it is dead or taken back.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{GrantId, Now, Voided, voided::VoidedId};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        access_token::{AccessTokenClaims, AccessTokenError, Expected, parse_access_token},
        error::OAuthError,
        introspection::IntrospectionReply,
        resource::Resource,
    },
};

use super::{Issuer, Refused, remembered::Remembered};
use crate::{Error, cache::Lease, records::Loaded, uniform::Uniform};

/// So many tokens are remembered at once; each costs about one KiB.
const TOKENS: u64 = 50_000;

/// A token that counts.
#[derive(Debug)]
pub struct VerifiedToken {
    /// What it says.
    pub claims: AccessTokenClaims,
    /// The grant that it came from; client credentials have none.
    pub grant: Option<GrantId>,
    /// What introspection says of it (RFC 7662 2.2), ready to be sent.
    pub description: Bytes,
}

/// The tokens that were verified, by their hash.
pub(super) struct Verified {
    tokens: Remembered<[u8; 32], Arc<VerifiedToken>, Uniform>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("tokens", &self.tokens.len()).finish()
    }
}

impl Verified {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { tokens: Remembered::new(TOKENS, lease) }
    }

    /// Which tokens are a grant's is not kept: revocations are rare, and verifying anew is cheap.
    pub(super) fn forget_grant(&self, _: GrantId) {
        self.tokens.forget_all();
    }

    pub(super) fn forget_token(&self, _: &str) {
        self.tokens.forget_all();
    }

    pub(super) fn forget_all(&self) {
        self.tokens.forget_all();
    }

    fn get(&self, name: &[u8; 32], now: Now) -> Option<Arc<VerifiedToken>> {
        self.tokens.get(name, now.boot).filter(|token| now.wall < token.claims.expires_at)
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
        let grant = self.check_standing(&claims, now.wall).await?;
        let reply = IntrospectionReply::access_token(self.settings.url.as_str(), &claims);
        let description = serde_json::to_vec(&reply).map_err(|_| Error::Conflict { what: "access token" })?.into();
        let verified = Arc::new(VerifiedToken { claims, grant, description });
        self.verified.tokens.insert(name, verified.clone(), question);
        Ok(verified)
    }

    /// What is written in it, if we wrote it.
    async fn believed(&self, token: &Secret, now: Timestamp) -> Result<AccessTokenClaims, Refused> {
        let audiences: Vec<Resource> = self.settings.resources.iter().map(|known| known.resource.clone()).collect();
        let expected = Expected {
            issuer: self.settings.url.as_str(),
            audiences: &audiences,
            leeway: std::time::Duration::ZERO,
        };
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

    /// Whether it was taken back.
    async fn check_standing(&self, claims: &AccessTokenClaims, now: Timestamp) -> Result<Option<GrantId>, Refused> {
        if !self.is_still_known(&claims.client_id).await? {
            return Err(taken_back());
        }
        let Some((grant, _)) = claims.jti.split_once('.') else {
            let id = VoidedId::access_token(&claims.jti);
            let loaded = self.shared.records.load::<Voided>(&id).await.map_err(Error::reading("revocation"))?;
            return if matches!(loaded, Loaded::Absent) { Ok(None) } else { Err(taken_back()) };
        };
        let id: GrantId = grant.parse().map_err(|_| taken_back())?;
        match self.load_grant(&id).await? {
            Some(stored) if stored.value.has_live(&claims.jti, now) => Ok(Some(id)),
            _ => Err(taken_back()),
        }
    }
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
