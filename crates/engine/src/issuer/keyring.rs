//! The keys that sign access tokens, and the set that others check with (RFC 7517).
//!
//! All keys lie in one record; every instance holds them parsed. A key is announced in the JWKS before it signs, and
//! stays there until the last token that it signed is dead, so that a rotation is seen by nobody.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokenkeep_core::{
    Action, SigningKey, SigningKeys,
    ports::{Expect, Put},
    signing_keys::KeyPhase,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        access_token::TrustedKey,
        jws::{Algorithm, TokenKey},
        resource::Resource,
    },
};

use super::{Issuer, ProtectedResource, Refused};
use crate::{Caller, Error, bus::Event, error::STORE_RETRY, records::Loaded, sessions};

const ATTEMPTS: usize = 8;
/// Keys are read again this often, should nobody tell of a rotation.
const RELOAD_EVERY: Duration = Duration::from_secs(30);
/// A token that names an unknown key has them read again, but not more often than this.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A JWKS is believed for so long where it is cached (`max-age`).
const JWKS_LIFE: Duration = Duration::from_mins(5);
/// How much longer than its tokens a key is kept: clocks differ, and so do caches of the JWKS.
const MARGIN: Duration = Duration::from_mins(5);

/// Every key, ready to use.
#[derive(Default)]
pub(super) struct Keyring {
    ring: ArcSwap<Ring>,
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

#[derive(Default)]
pub(super) struct Ring {
    keys: Vec<Arc<ReadyKey>>,
    jwks: Bytes,
    read_at: tokenkeep_core::Boot,
}

struct ReadyKey {
    key: TokenKey,
    resource: Option<Resource>,
    phase: KeyPhase,
    created_at: Timestamp,
}

/// A signing key, for people.
#[derive(Clone, Debug)]
pub struct SigningKeyView {
    /// Its `kid`.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The only resource whose tokens it signs; `None` = any.
    pub resource: Option<Resource>,
    /// What it is used for.
    pub phase: KeyPhase,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Ring {
    pub(super) fn trusted(&self) -> impl Iterator<Item = TrustedKey<'_>> + Clone {
        self.keys.iter().map(|ready| TrustedKey { key: &ready.key, resource: ready.resource.as_ref() })
    }

    fn signer(&self, algorithm: Algorithm, resource: &Resource) -> Option<&TokenKey> {
        let of = |ready: &&Arc<ReadyKey>| {
            ready.phase == KeyPhase::Active
                && ready.key.algorithm() == algorithm
                && match algorithm {
                    Algorithm::Hs256 => ready.resource.as_ref() == Some(resource),
                    _ => ready.resource.is_none(),
                }
        };
        self.keys.iter().find(of).map(|ready| &ready.key)
    }
}

impl Issuer {
    /// The public keys (RFC 7517 5), as JSON. Secret ones are in no JWKS.
    pub fn jwks(&self) -> Bytes {
        self.keyring.ring.load().jwks.clone()
    }

    /// Every signing key, oldest first.
    pub fn signing_keys(&self, caller: &Caller) -> Result<Vec<SigningKeyView>, Error> {
        caller.may(Action::RotateSigningKeys)?;
        Ok(self.keyring.ring.load().keys.iter().map(|ready| view(ready)).collect())
    }

    /// The announced keys sign from now on, once every cache of the JWKS has them; the old ones count until the last
    /// token that they signed is dead. `algorithm`: of which kind; `None` = all that are in use.
    pub async fn rotate_signing_keys(
        &self,
        caller: &Caller,
        algorithm: Option<Algorithm>,
    ) -> Result<Vec<SigningKeyView>, Error> {
        caller.may(Action::RotateSigningKeys)?;
        let used = self.stored_algorithms();
        let wanted: Vec<Algorithm> = match algorithm {
            None => used,
            Some(one) if used.contains(&one) => vec![one],
            Some(Algorithm::Hs256) => {
                return Err(Error::invalid("the keys of HS256 stand in the configuration; change them there"));
            }
            Some(one) => return Err(Error::invalid(format!("nothing is signed with {} here", one.as_str()))),
        };
        let sessions = self.sessions.as_ref().map_or(Duration::ZERO, |_| sessions::MAX_TTL);
        let life = self.settings.access_token_ttl.max(sessions) + MARGIN;
        self.change_keys(|mut keys, this| {
            let now = this.shared.now().wall;
            for algorithm in &wanted {
                if let Some(retry_after) = keys.is_announced_in(*algorithm, JWKS_LIFE, now) {
                    return Err(Error::TooMany { what: "some caches lack the key that would sign next", retry_after });
                }
                keys = keys.rotate(this.draw_key(*algorithm, now)?, life, now);
            }
            Ok(Some(keys))
        })
        .await?;
        let wanted = wanted.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(" ");
        tracing::info!(target: "audit", action = "signing_keys_rotated", by = %caller.name(), algorithms = wanted);
        self.shared.bus.send(Event::SigningKeysChanged);
        self.signing_keys(caller)
    }

    /// Reads the keys, and makes those that are missing. Until this succeeds nothing can be signed.
    pub(crate) async fn ensure_keys(&self) -> Result<(), Error> {
        let wanted = self.stored_algorithms();
        self.change_keys(|mut keys, this| {
            let missing: Vec<Algorithm> =
                wanted.iter().copied().filter(|wanted| keys.active(*wanted, None).is_none()).collect();
            let now = this.shared.now().wall;
            for algorithm in &missing {
                keys = keys.begin(this.draw_key(*algorithm, now)?, this.draw_key(*algorithm, now)?);
            }
            Ok((!missing.is_empty()).then_some(keys))
        })
        .await
    }

    /// Reads the keys anew, and says what was issued, for ever.
    pub(crate) async fn follow(self) {
        loop {
            self.shared.clock.sleep(RELOAD_EVERY).await;
            self.tally.say();
            if let Err(error) = self.ensure_keys().await {
                tracing::warn!(%error, "the signing keys could not be read; those known stay");
            }
        }
    }

    pub(super) fn ring(&self) -> arc_swap::Guard<Arc<Ring>> {
        self.keyring.ring.load()
    }

    /// Signs with the key for `resource`.
    pub(super) async fn with_signer<T>(
        &self,
        resource: &ProtectedResource,
        sign: impl Fn(&TokenKey) -> T,
    ) -> Result<T, Refused> {
        let algorithm = self.settings.algorithm_of(resource);
        if let Some(key) = self.ring().signer(algorithm, &resource.resource) {
            return Ok(sign(key));
        }
        self.ensure_keys().await?;
        match self.ring().signer(algorithm, &resource.resource) {
            Some(key) => Ok(sign(key)),
            None => Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None }.into()),
        }
    }

    /// A token names a key that is not here: it may have been made elsewhere a moment ago. Whether it was looked for.
    pub(super) async fn look_for_key(&self) -> Result<bool, Error> {
        if self.shared.now().boot.since(self.ring().read_at) < ASK_AGAIN {
            return Ok(false);
        }
        self.ensure_keys().await?;
        Ok(true)
    }

    /// What the store holds keys for. Those of HS256 stand in the configuration.
    fn stored_algorithms(&self) -> Vec<Algorithm> {
        let mut all: Vec<Algorithm> = self.resources().map(|r| self.settings.algorithm_of(r)).collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|algorithm| *algorithm != Algorithm::Hs256);
        all
    }

    fn draw_key(&self, algorithm: Algorithm, created_at: Timestamp) -> Result<SigningKey, Error> {
        let broken = |_| Error::invalid("a signing key cannot be made: the system gives no randomness");
        let stored = TokenKey::generate(algorithm, &self.shared.entropy.bytes32()).map_err(broken)?;
        let kid = TokenKey::from_stored(algorithm, &stored).map_err(broken)?.kid().to_owned();
        Ok(SigningKey { kid, algorithm, resource: None, stored, created_at, phase: KeyPhase::Next })
    }

    /// Changes the record; `step` answers `None` if all is as it should be.
    async fn change_keys(
        &self,
        step: impl Fn(SigningKeys, &Self) -> Result<Option<SigningKeys>, Error>,
    ) -> Result<(), Error> {
        let _changing = self.keyring.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let read_at = self.shared.now().boot;
            let loaded = self.shared.records.load::<SigningKeys>(&()).await.map_err(Error::reading("signing keys"))?;
            let (present, version) = match loaded {
                Loaded::Live(stored) => (stored.value, Some(stored.version)),
                Loaded::Absent | Loaded::Deleted(_) => (SigningKeys::default(), None),
            };
            let Some(changed) = step(present.clone(), self)? else {
                self.take_keys(&present, read_at);
                return Ok(());
            };
            let expect = version.as_ref().map_or(Expect::Absent, Expect::Version);
            if let Put::Committed(_) = self.shared.records.save(&changed, (), expect).await? {
                self.take_keys(&changed, read_at);
                return Ok(());
            }
            // Also where the answer was lost: what was written then shows, and another round would be one key more.
            let now = self.shared.records.load::<SigningKeys>(&()).await.map_err(Error::reading("signing keys"))?;
            if let Loaded::Live(stored) = now
                && stored.value.keys.iter().map(|k| &k.kid).eq(changed.keys.iter().map(|k| &k.kid))
            {
                self.take_keys(&stored.value, read_at);
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "signing keys" })
    }

    fn take_keys(&self, stored: &SigningKeys, read_at: tokenkeep_core::Boot) {
        let now = self.shared.now().wall;
        let alive = stored.clone().without_dead(now);
        let parse = |key: &SigningKey| match TokenKey::from_stored(key.algorithm, &key.stored) {
            Ok(parsed) => Some(ReadyKey {
                key: parsed,
                resource: key.resource.clone(),
                phase: key.phase,
                created_at: key.created_at,
            }),
            Err(error) => {
                tracing::error!(kid = key.kid, %error, "a signing key cannot be used");
                None
            }
        };
        let mut keys: Vec<Arc<ReadyKey>> = alive.keys.iter().filter_map(parse).map(Arc::new).collect();
        let jwks: Vec<_> = keys.iter().filter_map(|ready| ready.key.public_jwk()).collect();
        keys.extend(self.configured_keys());
        let jwks = Bytes::from(json!({ "keys": jwks }).to_string());
        self.keyring.ring.store(Arc::new(Ring { keys, jwks, read_at }));
    }

    /// The configuration file's keys are others now. Those of the store stay.
    pub(super) async fn take_configured_keys(&self) {
        let _changing = self.keyring.changing.lock().await;
        let ring = self.ring();
        let stored = ring.keys.iter().filter(|ready| ready.key.algorithm() != Algorithm::Hs256).cloned();
        let keys = stored.chain(self.configured_keys()).collect();
        self.keyring.ring.store(Arc::new(Ring { keys, jwks: ring.jwks.clone(), read_at: ring.read_at }));
    }

    fn configured_keys(&self) -> Vec<Arc<ReadyKey>> {
        let secrets = self.secrets.load();
        secrets.signing.iter().filter_map(|(resource, secret)| configured(resource, secret)).map(Arc::new).collect()
    }
}

/// The key of HS256 that the operator shares with a resource.
fn configured(resource: &Resource, secret: &Secret) -> Option<ReadyKey> {
    let key = TokenKey::from_stored(Algorithm::Hs256, secret.expose_secret().as_bytes());
    let key = key.inspect_err(|_| tracing::error!(%resource, "its signing_secret is too short"));
    Some(ReadyKey {
        key: key.ok()?,
        resource: Some(resource.clone()),
        phase: KeyPhase::Active,
        created_at: Timestamp::UNIX_EPOCH,
    })
}

fn view(ready: &ReadyKey) -> SigningKeyView {
    SigningKeyView {
        kid: ready.key.kid().to_owned(),
        algorithm: ready.key.algorithm(),
        resource: ready.resource.clone(),
        phase: ready.phase,
        created_at: ready.created_at,
    }
}
