//! What issuers say of themselves (OIDC Discovery 1.0, RFC 8414), kept in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, header::ACCEPT};
use tokenkeep_core::{
    Boot, Integration, IntegrationId, Provider, ProviderId,
    ports::Request,
    provider::{Identity, ResolvedProvider, Revocation, RevocationMethod},
};
use tokenkeep_oauth::{
    Client,
    dialect::ClientAuth,
    discovery::{DiscoveryError, Metadata, build_metadata_urls, parse_metadata},
};
use zeroize::Zeroizing;

use crate::{Error, connections::PROVIDER_RETRY, metrics::UpstreamCall, shared::Shared};

/// What an issuer said is believed for this long; beyond it, it is asked again, and believed on if it does not answer.
pub(super) const SOFT_LIFE: Duration = Duration::from_hours(1);
/// An issuer that did not answer is asked again after this.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// How long an issuer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The provider id of integrations that are known by their issuer only.
pub(super) const OIDC: &str = "oidc";

/// The metadata of issuers, each fetched once by whoever comes first.
#[derive(Debug)]
pub(super) struct Discovery {
    shared: Arc<Shared>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    fetching: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    metadata: Option<Arc<Metadata>>,
    failure: Option<Undiscovered>,
    /// When to ask again; `None` = now.
    ask_at: Option<Boot>,
}

/// Why there is no metadata.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Undiscovered {
    /// It may be there later.
    #[error("its issuer does not answer: {0}")]
    Unavailable(String),
    /// It will not.
    #[error("`issuer` cannot be used: {0}")]
    Unusable(String),
}

impl Undiscovered {
    pub(super) fn blame(self, integration: &IntegrationId) -> Error {
        match self {
            Self::Unavailable(_) => Error::ProviderUnavailable {
                integration: integration.clone(),
                detail: self.to_string(),
                retry_after: PROVIDER_RETRY,
            },
            Self::Unusable(_) => Error::invalid(self.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn answer(&self, now: Boot) -> Option<Result<Arc<Metadata>, Undiscovered>> {
        self.ask_at.filter(|at| now < *at)?;
        match (&self.metadata, &self.failure) {
            (Some(metadata), _) => Some(Ok(metadata.clone())),
            (None, Some(failure)) => Some(Err(failure.clone())),
            (None, None) => None,
        }
    }
}

impl Discovery {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, slots: Mutex::default() }
    }

    /// The next look asks the issuer.
    pub(super) fn forget(&self, issuer: &str) {
        lock(&self.slots).remove(issuer);
    }

    pub(super) async fn metadata(&self, id: &IntegrationId, issuer: &str) -> Result<Arc<Metadata>, Undiscovered> {
        let slot = lock(&self.slots).entry(issuer.to_owned()).or_default().clone();
        let answer = || lock(&slot.known).answer(self.shared.now().boot);
        if let Some(answer) = answer() {
            return answer;
        }
        let _fetching = slot.fetching.lock().await;
        if let Some(answer) = answer() {
            return answer;
        }
        self.shared.metrics.called(id, UpstreamCall::discovery);
        let fetched = tokio::select! {
            biased;
            fetched = self.fetch(issuer) => fetched,
            () = self.shared.clock.sleep(PATIENCE) => Err(Undiscovered::Unavailable("it takes too long".to_owned())),
        };
        let now = self.shared.now().boot;
        let mut known = lock(&slot.known);
        match fetched {
            Ok(metadata) => {
                *known = Known { metadata: Some(Arc::new(metadata)), failure: None, ask_at: Some(now + SOFT_LIFE) };
            }
            Err(failure) => {
                tracing::warn!(integration = %id, issuer, %failure, "discovery failed");
                known.failure = Some(failure);
                known.ask_at = Some(now + RETRY_AFTER);
            }
        }
        known.answer(now).unwrap_or_else(|| Err(Undiscovered::Unavailable("it was not asked".to_owned())))
    }

    async fn fetch(&self, issuer: &str) -> Result<Metadata, Undiscovered> {
        let urls = build_metadata_urls(issuer).map_err(|error| Undiscovered::Unusable(error.to_string()))?;
        let mut failure = None;
        for url in urls {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
            let request = Request { method: Method::GET, url, headers, body: Zeroizing::default() };
            let reply =
                self.shared.fetch(request).await.map_err(|error| Undiscovered::Unavailable(error.to_string()))?;
            let failed = match parse_metadata(issuer, reply.status, &reply.body) {
                Ok(metadata) => return Ok(metadata),
                Err(error @ DiscoveryError::Unavailable(_)) => Undiscovered::Unavailable(error.to_string()),
                Err(error @ (DiscoveryError::IssuerMismatch | DiscoveryError::Endpoint { .. })) => {
                    return Err(Undiscovered::Unusable(error.to_string()));
                }
                Err(error @ (DiscoveryError::Absent(_) | DiscoveryError::Malformed)) => {
                    Undiscovered::Unusable(error.to_string())
                }
            };
            failure.get_or_insert(failed);
        }
        Err(failure.unwrap_or_else(|| Undiscovered::Unusable("it has no metadata".to_owned())))
    }
}

/// The provider behind `issuer`, of which nothing else is known yet. It takes no parameters.
pub(super) fn unknown_provider(integration: &Integration, issuer: &str) -> Result<ResolvedProvider, Error> {
    build_metadata_urls(issuer).map_err(|error| Error::invalid(format!("`issuer` cannot be used: {error}")))?;
    let provider = Provider::new(integration.provider.clone()).resolve(&integration.params);
    let mut provider = provider.map_err(|error| Error::invalid(error.to_string()))?;
    provider.issuer = Some(issuer.to_owned());
    Ok(provider)
}

/// Fills in what the catalogue leaves open. Where the catalogue knows the provider, its word counts.
pub(super) fn complete(provider: &mut ResolvedProvider, metadata: &Metadata, client: &Client, of_catalogue: bool) {
    let Metadata { authorization_endpoint, token_endpoint, revocation_endpoint, .. } = metadata;
    let fill = |slot: &mut Option<url::Url>, found: &Option<url::Url>| {
        if slot.is_none() {
            slot.clone_from(found);
        }
    };
    fill(&mut provider.authorize_url, authorization_endpoint);
    fill(&mut provider.token_url, token_endpoint);
    fill(&mut provider.refresh_url, token_endpoint);
    fill(&mut provider.device_authorization_url, &metadata.device_authorization_endpoint);
    fill(&mut provider.userinfo_url, &metadata.userinfo_endpoint);
    if provider.revoke.is_none() {
        let found = revocation_endpoint.clone();
        provider.revoke = found.map(|url| Revocation { method: RevocationMethod::Rfc7009, url });
    }
    provider.issuer = Some(metadata.issuer.clone());
    if of_catalogue {
        return;
    }
    let supports = |method: &str| metadata.token_endpoint_auth_methods_supported.iter().any(|m| m == method);
    provider.dialect.client_auth = if client.key.is_some() && supports("private_key_jwt") {
        ClientAuth::PrivateKeyJwt
    } else if supports("client_secret_basic") {
        ClientAuth::Basic
    } else {
        ClientAuth::Post
    };
    let offers = |scope: &str| metadata.scopes_supported.iter().any(|s| s == scope);
    provider.default_scope = offers("openid").then(|| "openid".to_owned());
    // What it does not list, some refuse; whoever lists nothing takes what everybody takes.
    let plain = Identity::oidc();
    let is_taken = |scope: &&str| *scope == "openid" || metadata.scopes_supported.is_empty() || offers(scope);
    let scopes: Vec<&str> = plain.scope.as_deref().unwrap_or_default().split(' ').filter(is_taken).collect();
    provider.identity = Some(Identity { scope: Some(scopes.join(" ")), ..plain });
    if offers("offline_access") {
        provider.offline_scope = Some("offline_access".to_owned());
        // OIDC Core 11: without it the scope is ignored.
        provider.dialect.authorize_params.insert("prompt".to_owned(), "consent".to_owned());
    }
}

/// `oidc`.
pub(super) fn oidc() -> ProviderId {
    ProviderId::new(OIDC).expect("the word is a slug")
}
