//! The keys that sign access tokens: one in use, one announced before it is used, old ones until their tokens are dead.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use tokenkeep_oauth::issuer::{jws::Algorithm, resource::Resource};
use zeroize::Zeroizing;

use crate::time::{after, between};

/// All keys of the installation: one record, so that a rotation is one compare-and-swap.
#[derive(Clone, Debug, Default)]
pub struct SigningKeys {
    /// Every key, in the order in which they were made.
    pub keys: Vec<SigningKey>,
}

/// One key.
#[derive(Clone)]
pub struct SigningKey {
    /// Its `kid`.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The only resource whose tokens it signs (HS256); `None` = all others'.
    pub resource: Option<Resource>,
    /// The private key.
    pub stored: Zeroizing<Vec<u8>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it is used for.
    pub phase: KeyPhase,
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPhase {
    /// It is announced, so that whoever caches the JWKS knows it before it signs.
    Next,
    /// It signs.
    Active,
    /// It signs no more; what it signed counts until then.
    Retiring {
        /// When its last token is dead.
        until: Timestamp,
    },
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl SigningKeys {
    /// The one that signs with `algorithm` for `resource` (`None` = for all that have none of their own).
    pub fn active(&self, algorithm: Algorithm, resource: Option<&Resource>) -> Option<&SigningKey> {
        let signs = |key: &&SigningKey| {
            key.algorithm == algorithm && key.resource.as_ref() == resource && key.phase == KeyPhase::Active
        };
        self.keys.iter().find(signs)
    }

    /// Adds a pair for an algorithm that has no key yet.
    pub fn begin(mut self, active: SigningKey, next: SigningKey) -> Self {
        self.keys.push(SigningKey { phase: KeyPhase::Active, ..active });
        self.keys.push(SigningKey { phase: KeyPhase::Next, ..next });
        self
    }

    /// How much longer some copy of the JWKS, which lives for `life`, may lack the announced key of `algorithm`; `None` =
    /// none does. Keys that were announced together are in every copy or in none.
    pub fn is_announced_in(&self, algorithm: Algorithm, life: Duration, now: Timestamp) -> Option<Duration> {
        let mut own = self.keys.iter().filter(|key| key.algorithm == algorithm && key.resource.is_none());
        let next = own.clone().find(|key| key.phase == KeyPhase::Next)?;
        let is_later = own.any(|key| key.created_at < next.created_at);
        let seen_by_all = after(next.created_at, life);
        (is_later && now < seen_by_all).then(|| between(now, seen_by_all))
    }

    /// The announced key signs from now on, `next` is announced in its place, and the old one stays for `token_life`,
    /// the longest life of a token that it may have signed a moment ago.
    pub fn rotate(mut self, next: SigningKey, token_life: Duration, now: Timestamp) -> Self {
        let (algorithm, resource) = (next.algorithm, next.resource.clone());
        for key in &mut self.keys {
            if key.algorithm != algorithm || key.resource != resource {
                continue;
            }
            key.phase = match key.phase {
                KeyPhase::Active => KeyPhase::Retiring { until: after(now, token_life) },
                KeyPhase::Next => KeyPhase::Active,
                retiring @ KeyPhase::Retiring { .. } => retiring,
            };
        }
        self.keys.push(SigningKey { phase: KeyPhase::Next, ..next });
        self.without_dead(now)
    }

    /// Without the keys whose tokens are all dead.
    pub fn without_dead(mut self, now: Timestamp) -> Self {
        self.keys.retain(|key| !matches!(key.phase, KeyPhase::Retiring { until } if until <= now));
        self
    }
}
