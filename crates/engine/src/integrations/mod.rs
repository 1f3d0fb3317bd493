//! Integrations: our clients at providers.

mod crud;
mod discovery;
mod party;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokenkeep_core::{
    Boot, ConnectGrant, Integration, IntegrationId, ManagedBy, Provider, ProviderId,
    ports::{Expect, Put},
};

pub use self::{
    crud::{ConfigIntegration, PutIntegration},
    party::Party,
    view::IntegrationView,
};
use self::{discovery::Discovery, party::client_of};

use crate::{
    Error,
    bus::Event,
    records::{Loaded, Stored},
    shared::Shared,
};

/// The use cases of integrations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Integrations {
    pub(crate) shared: Arc<Shared>,
    known: Arc<Mutex<HashMap<IntegrationId, Known>>>,
    discovery: Arc<Discovery>,
}

/// What this instance knows of an integration.
#[derive(Clone, Debug)]
struct Known {
    party: Option<Arc<Party>>,
    /// When the store was last asked.
    asked: Boot,
    /// When the party was made ready.
    introduced: Boot,
    /// When the provider last refused our client.
    refused: Option<(Boot, String)>,
}

/// Another instance's change of an integration is seen after this at the latest.
const SOFT_LIFE: Duration = Duration::from_secs(5);
/// A provider that refuses our client is asked again after this, in case it was mended on its side.
const PROBE_AFTER: Duration = Duration::from_mins(1);

impl Integrations {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { discovery: Arc::new(Discovery::new(shared.clone())), shared, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IntegrationId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both sides of the integration, ready to talk; `None` = there is no such integration. While the store does not
    /// answer, what was known before is good enough.
    pub(crate) async fn party(&self, id: &IntegrationId) -> Result<Option<Arc<Party>>, Error> {
        let now = self.shared.now().boot;
        let known = self.known().get(id).cloned();
        match known {
            Some(known) if now.since(known.asked) < SOFT_LIFE => Ok(known.party),
            // On the heap: who finds it known, as nearly everybody does, need not carry the room for this.
            known => Box::pin(self.look_up(id, known, now)).await,
        }
    }

    async fn look_up(&self, id: &IntegrationId, known: Option<Known>, now: Boot) -> Result<Option<Arc<Party>>, Error> {
        let loaded = self.load(id).await;
        let (party, introduced) = match (loaded, known) {
            (Ok(None), _) => (self.uncalled_for(id).map(Arc::new), now),
            (Ok(Some(stored)), Some(Known { party: Some(party), introduced, .. }))
                if party.integration.updated_at == stored.value.updated_at =>
            {
                // What its issuer says of itself may have changed; the issuer's silence changes nothing.
                if party.is_discovered() && now.since(introduced) >= discovery::SOFT_LIFE {
                    (Some(self.introduce(stored.value).await.map_or(party, Arc::new)), now)
                } else {
                    (Some(party), introduced)
                }
            }
            (Ok(Some(stored)), _) => (Some(Arc::new(self.introduce(stored.value).await?)), now),
            (Err(Error::StoreUnavailable { .. }), Some(known)) => (known.party, known.introduced),
            (Err(error), _) => return Err(error),
        };
        let mut known = self.known();
        let refused = known.get(id).and_then(|k| k.refused.clone());
        known.insert(id.clone(), Known { party: party.clone(), asked: now, introduced, refused });
        Ok(party)
    }

    /// It was changed here: nobody may go by what they know of it.
    fn announce(&self, id: &IntegrationId) {
        self.changed(id);
        self.shared.bus.send(Event::IntegrationChanged(id.clone()));
    }

    /// Any of them may have been changed elsewhere.
    pub(crate) fn any_may_have_changed(&self) {
        for known in self.known().values_mut() {
            known.asked = Boot::default();
        }
    }

    /// Forgets what this instance knows of it, so that the next look asks the store.
    pub(crate) fn changed(&self, id: &IntegrationId) {
        self.known().remove(id);
    }

    /// The catalogue's provider of that id: what an integration is called when nobody named it otherwise.
    pub(crate) fn provider_named_like(&self, id: &IntegrationId) -> Option<Arc<Provider>> {
        self.shared.catalogue.get(&ProviderId::new(id.as_str()).ok()?)
    }

    /// The party of an integration that nobody made, where nobody has to: the provider takes its users' credentials and
    /// knows no clients, and its entry leaves nothing open.
    fn uncalled_for(&self, id: &IntegrationId) -> Option<Party> {
        let provider = self.provider_named_like(id).filter(|provider| provider.kind.takes_credentials_only())?;
        self.prepare(Integration {
            id: id.clone(),
            provider: provider.id.clone(),
            issuer: None,
            tenant: None,
            client_id: String::new(),
            client_secret: None,
            grant: ConnectGrant::default(),
            signing_key: None,
            scope: None,
            params: BTreeMap::new(),
            api_hosts: Vec::new(),
            redirect_uri: None,
            managed_by: ManagedBy::Config,
            rejection: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        })
        .ok()
    }

    /// Makes the integration ready to talk to its provider.
    async fn introduce(&self, integration: Integration) -> Result<Party, Error> {
        let mut party = self.prepare(integration)?;
        if party.is_discovered() {
            let (id, provider) = (&party.integration.id, &mut party.provider);
            let issuer = provider.issuer.as_deref().unwrap_or_default();
            let metadata = self.discovery.metadata(id, issuer).await.map_err(|error| error.blame(id))?;
            discovery::complete(provider, &metadata, &party.client, party.integration.issuer.is_none());
            party.sends_iss = metadata.authorization_response_iss_parameter_supported;
        }
        Ok(party)
    }

    /// What can be made ready without asking an issuer: the rest may still be missing.
    fn prepare(&self, integration: Integration) -> Result<Party, Error> {
        let (client, assertion_issuer) = client_of(&integration)?;
        let (provider, provider_name) = if let Some(issuer) = &integration.issuer {
            (discovery::unknown_provider(&integration, issuer)?, issuer.clone())
        } else {
            let provider = self.shared.catalogue.get(&integration.provider);
            let provider = provider.ok_or_else(|| Error::not_found("provider", &integration.provider))?;
            let mut params = integration.params.clone();
            params.insert("client_id".to_owned(), integration.client_id.clone());
            let resolved = provider.resolve(&params).map_err(|error| Error::invalid(error.to_string()))?;
            (resolved, provider.display_name.clone())
        };
        Ok(Party {
            integration,
            provider,
            provider_name,
            client,
            assertion_issuer,
            sends_iss: false,
            api: OnceLock::new(),
        })
    }

    /// The provider took our client: whatever was said of it is over.
    pub(crate) fn accepted(&self, party: &Party) {
        let id = &party.integration.id;
        let was_refused = self.known().get_mut(id).is_some_and(|known| known.refused.take().is_some());
        if was_refused || party.integration.rejection.is_some() {
            self.mark(id.clone(), None);
        }
    }

    /// The provider refuses our client: the integration is marked, never its connections.
    pub(crate) fn rejected(&self, party: &Party, code: &str) {
        let now = self.shared.now().boot;
        let id = &party.integration.id;
        if let Some(known) = self.known().get_mut(id) {
            known.refused = Some((now, code.to_owned()));
        }
        if party.integration.rejection.as_ref().is_none_or(|r| r.code != code) {
            self.mark(id.clone(), Some(code.to_owned()));
        }
    }

    /// Why nothing is sent with this client at present, if so: the provider's error code.
    pub(crate) fn holds_back(&self, party: &Party) -> Option<String> {
        let now = self.shared.now().boot;
        let known = self.known();
        let (at, code) = known.get(&party.integration.id)?.refused.as_ref()?;
        (now.since(*at) < PROBE_AFTER).then(|| code.clone())
    }

    /// Writes the mark down behind everybody's back: it is for people.
    fn mark(&self, id: IntegrationId, rejection: Option<String>) {
        let this = self.clone();
        tokio::spawn(async move {
            for _ in 0..4 {
                let Ok(Some(stored)) = this.load(&id).await else { return };
                let mut integration = stored.value;
                match &rejection {
                    Some(code) => integration.reject(code, this.shared.now().wall),
                    None => integration.rejection = None,
                }
                let expect = Expect::Version(&stored.version);
                match this.shared.records.save(&integration, (), expect).await {
                    Ok(Put::Conflict | Put::Unknown) => {}
                    Ok(Put::Committed(_)) => {
                        let rejected = integration.rejection.as_ref().map(|r| r.code.as_str());
                        tracing::warn!(target: "audit", action = "integration_marked", integration = %id, rejected);
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(integration = %id, %error, "an integration could not be marked");
                        return;
                    }
                }
            }
        });
    }

    pub(crate) async fn load(&self, id: &IntegrationId) -> Result<Option<Stored<Integration>>, Error> {
        match self.shared.records.load::<Integration>(id).await.map_err(Error::reading("integration"))? {
            Loaded::Live(stored) => Ok(Some(stored)),
            Loaded::Absent | Loaded::Deleted(_) => Ok(None),
        }
    }
}
