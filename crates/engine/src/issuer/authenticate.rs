//! How clients prove themselves (RFC 6749 2.3, RFC 7523 3).

use std::{fmt, sync::Arc, time::Duration};

use argon2::{Argon2, PasswordHasher, PasswordVerifier, password_hash::phc::PasswordHash};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use jsonwebtoken::jwk::JwkSet;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{
    Client, ClientSecretHash, Voided,
    ports::{Expect, Put},
    voided::VoidedId,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        assertion::{AssertionError, Expected, parse_asserted_client, parse_client_assertion},
        client::AuthMethod,
        error::OAuthError,
        metadata::Endpoint,
        token::Credential,
    },
};
use tokio::sync::Semaphore;

use super::{Issuer, Refused};
use crate::{Error, error::STORE_RETRY, uniform::Uniform};

/// Clocks of clients may differ from ours by so much.
const LEEWAY: Duration = Duration::from_secs(30);
/// Slow hashes are made to cost time and memory: so many are computed at once.
const SLOW_AT_ONCE: usize = 2;
/// So many secrets that passed the slow hash are remembered.
const PROVEN: u64 = 1_000;

/// What passed a slow hash before. Kept as a keyed hash over secret and slow hash, so that it ends with either.
pub(super) struct Proven {
    passed: moka::sync::Cache<[u8; 32], (), Uniform>,
    slow: Semaphore,
}

impl Default for Proven {
    fn default() -> Self {
        let passed = moka::sync::Cache::builder().max_capacity(PROVEN).build_with_hasher(Uniform::default());
        Self { passed, slow: Semaphore::new(SLOW_AT_ONCE) }
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proven")
    }
}

impl Issuer {
    /// The client, if it proves to be who it says it is, in the way that it registered.
    pub async fn authenticate(&self, credential: Credential) -> Result<Arc<Client>, Refused> {
        let client = self.claimed(&credential).await?;
        let checked = self.check_proof(&client, &credential).await;
        if let Err(Refused::Protocol(error)) = &checked
            && !matches!(credential, Credential::Public { .. })
        {
            tracing::warn!(target: "audit", action = "client_refused", client = %client.id, reason = %error.description);
        }
        checked?;
        // A public client proves nothing here: it is in use once it gets a token.
        if client.metadata.token_endpoint_auth_method != AuthMethod::None {
            self.note_use(&client);
        }
        Ok(client)
    }

    /// The hot path of [`Issuer::authenticate`]: a client that is at hand, with a secret of ours. Takes no lock, does
    /// no I/O. `None` says nothing: ask [`Issuer::authenticate`].
    pub fn authenticated(&self, client_id: &str, secret: &Secret, method: AuthMethod) -> Option<Arc<Client>> {
        let now = self.shared.now();
        let client = match self.configured(client_id) {
            Some(client) => client,
            None => self.clients.get(&client_id.parse().ok()?, now.boot)?,
        };
        let proven = client.is_known(now.wall)
            && client.metadata.token_endpoint_auth_method == method
            && client.used(now.wall).is_none()
            && matches!(&client.secret, Some(ClientSecretHash::Keyed(hash)) if self.is_secret(hash, secret));
        proven.then_some(client)
    }

    /// The client that it says to come from.
    async fn claimed(&self, credential: &Credential) -> Result<Arc<Client>, Refused> {
        match credential {
            Credential::Basic { client_id, as_sent: Some((sent, _)), .. } => match self.client(client_id).await? {
                Some(client) => Ok(client),
                None => self.named(sent).await,
            },
            Credential::Public { client_id }
            | Credential::Basic { client_id, .. }
            | Credential::Post { client_id, .. } => self.named(client_id).await,
            Credential::Assertion { client_id, assertion } => {
                let asserted = parse_asserted_client(assertion).map_err(OAuthError::from)?;
                if client_id.as_ref().is_some_and(|id| *id != asserted) {
                    return Err(OAuthError::invalid_client("the assertion is another client's").into());
                }
                self.named(&asserted).await
            }
        }
    }

    async fn check_proof(&self, client: &Client, credential: &Credential) -> Result<(), Refused> {
        match credential {
            Credential::Public { .. } => Ok(check_method(client, AuthMethod::None)?),
            Credential::Basic { secret, as_sent, .. } => {
                check_method(client, AuthMethod::ClientSecretBasic)?;
                match (self.check_secret(client, secret).await, as_sent) {
                    (Err(Refused::Protocol(_)), Some((_, sent))) => self.check_secret(client, sent).await,
                    (checked, _) => checked,
                }
            }
            Credential::Post { secret, .. } => {
                check_method(client, AuthMethod::ClientSecretPost)?;
                self.check_secret(client, secret).await
            }
            Credential::Assertion { assertion, .. } => {
                check_method(client, AuthMethod::PrivateKeyJwt)?;
                self.check_assertion(client, assertion).await
            }
        }
    }

    async fn named(&self, client_id: &str) -> Result<Arc<Client>, Refused> {
        let client = self.client(client_id).await?;
        // Clients that get this answer register again.
        client.ok_or_else(|| OAuthError::invalid_client("there is no such client; it may have expired").into())
    }

    async fn check_secret(&self, client: &Client, secret: &Secret) -> Result<(), Refused> {
        let matches = match &client.secret {
            None => false,
            Some(ClientSecretHash::Keyed(hash)) => self.is_secret(hash, secret),
            Some(ClientSecretHash::Argon2id(phc)) => self.is_chosen_secret(phc, secret).await?,
        };
        if matches { Ok(()) } else { Err(OAuthError::invalid_client("the client secret is wrong").into()) }
    }

    pub(super) fn is_secret(&self, hash: &[u8; 32], secret: &Secret) -> bool {
        let presented = self.shared.records.barrier().hashes().client_secret(secret);
        verify_slices_are_equal(&presented, hash).is_ok()
    }

    async fn is_chosen_secret(&self, phc: &str, secret: &Secret) -> Result<bool, Refused> {
        let both = Secret::from(format!("{phc} {}", secret.expose_secret()));
        let name = self.shared.records.barrier().hashes().client_secret(&both);
        if self.proven.passed.contains_key(&name) {
            return Ok(true);
        }
        let busy = || Error::TooMany { what: "too many clients prove themselves", retry_after: STORE_RETRY };
        let _permit = self.proven.slow.acquire().await.map_err(|_| busy())?;
        let (phc, secret) = (phc.to_owned(), secret.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let hash = PasswordHash::new(&phc).ok()?;
            Argon2::default().verify_password(secret.expose_secret().as_bytes(), &hash).ok()
        });
        let passed = checked.await.ok().flatten().is_some();
        if passed {
            self.proven.passed.insert(name, ());
        }
        Ok(passed)
    }

    /// The slow hash of a secret that somebody chose.
    pub(super) async fn hash_chosen_secret(&self, secret: &Secret) -> Result<ClientSecretHash, Error> {
        let busy = || Error::TooMany { what: "too many client secrets are hashed", retry_after: STORE_RETRY };
        let _permit = self.proven.slow.acquire().await.map_err(|_| busy())?;
        let (salt, secret) = (self.shared.entropy.bytes32(), secret.clone());
        let hashed = tokio::task::spawn_blocking(move || {
            Argon2::default().hash_password_with_salt(secret.expose_secret().as_bytes(), &salt[..16])
        });
        match hashed.await {
            Ok(Ok(phc)) => Ok(ClientSecretHash::Argon2id(phc.to_string())),
            // It is a matter of memory and threads.
            _ => Err(busy()),
        }
    }

    async fn check_assertion(&self, client: &Client, assertion: &Secret) -> Result<(), Refused> {
        let token_endpoint = self.settings.url.endpoint(Endpoint::Token);
        let audiences = [self.settings.url.as_str(), token_endpoint.as_str()];
        let expected = Expected { client_id: client.id.as_str(), audiences: &audiences, leeway: LEEWAY };
        let parse = |keys: &JwkSet| parse_client_assertion(assertion, keys, expected, self.shared.now().wall);
        let mut parsed = parse(&*self.keys_of(client).await?);
        // Its keys may have been rotated since they were fetched.
        if parsed == Err(AssertionError::UnknownKey)
            && let Some(keys) = self.newer_keys_of(client).await?
        {
            parsed = parse(&keys);
        }
        let believed = parsed.map_err(|error| {
            tracing::info!(client = %client.id, %error, "a client assertion is not believed");
            OAuthError::from(error)
        })?;
        let jti = self.shared.records.barrier().hashes().assertion(&believed.jti);
        let id = VoidedId::assertion(&client.id, &jti);
        let voided = Voided { id, expires_at: believed.expires_at, issued_until: None };
        match self.shared.records.save(&voided, (), Expect::Absent).await.map_err(Error::from)? {
            Put::Committed(_) => Ok(()),
            Put::Conflict => Err(OAuthError::invalid_client("the client assertion was used before").into()),
            // It may be ours or another's: the client makes a new one.
            Put::Unknown => Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None }.into()),
        }
    }
}

fn check_method(client: &Client, used: AuthMethod) -> Result<(), OAuthError> {
    let registered = client.metadata.token_endpoint_auth_method;
    if registered == used {
        return Ok(());
    }
    Err(OAuthError::invalid_client(match registered {
        AuthMethod::None => "this client is public: it proves itself by PKCE alone",
        AuthMethod::ClientSecretBasic => "this client proves itself with client_secret_basic",
        AuthMethod::ClientSecretPost => "this client proves itself with client_secret_post",
        AuthMethod::PrivateKeyJwt => "this client proves itself with private_key_jwt",
    }))
}
