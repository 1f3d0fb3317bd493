//! Who our clients are, wherever they come from.

mod document;
mod fetch;
mod management;
mod operator;
mod registration;

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use tokenkeep_core::{
    Client, ClientId, ClientOrigin, ClientSecretHash,
    ports::{Expect, Put},
};
use tokenkeep_oauth::issuer::client::check_document_url;

pub(super) use self::document::Published;
pub use self::{
    management::ManagementRefused,
    operator::{ChangeClient, ClientFilter, ClientListing, ClientView, Deleted, NewClient},
    registration::Registered,
};
use super::{Issuer, IssuerSettings};
use crate::{
    Error,
    barrier::Hashes,
    bus::Event,
    error::STORE_RETRY,
    records::{Loaded, Stored},
};

const ATTEMPTS: usize = 8;

/// The clients of the configuration file. They have no record: the file is where they are changed.
#[derive(Debug, Default)]
pub(super) struct Configured(HashMap<ClientId, Arc<Client>>);

impl Configured {
    pub(super) fn new(settings: &IssuerSettings, hashes: &Hashes, now: Timestamp) -> Self {
        let client = |told: &super::ConfigClient| Client {
            id: told.id.clone(),
            metadata: told.metadata.clone(),
            // The secret itself is at hand at each start, so its slow hash would protect nothing.
            secret: told.secret.as_ref().map(|secret| ClientSecretHash::Keyed(hashes.client_secret(secret))),
            origin: ClientOrigin::Config,
            resources: told.resources.clone(),
            created_at: now,
            used_at: None,
        };
        Self(settings.clients.iter().map(|told| (told.id.clone(), Arc::new(client(told)))).collect())
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Client>> {
        self.0.get(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.0.values()
    }
}

impl Issuer {
    /// The client of that id in the configuration file.
    pub(super) fn configured(&self, id: &str) -> Option<Arc<Client>> {
        self.secrets.load().clients.get(id).cloned()
    }

    /// The client of that id, if there is one at present: from the configuration, from the store, or from the document
    /// that the id is the address of.
    pub(super) async fn client(&self, id: &str) -> Result<Option<Arc<Client>>, Error> {
        if let Some(client) = self.configured(id) {
            return Ok(Some(client));
        }
        let Ok(id) = ClientId::new(id) else { return Ok(None) };
        if check_document_url(id.as_str()).is_some() {
            return self.document_client(&id).await;
        }
        self.stored_client(&id).await
    }

    /// Whether tokens of `id` still count. A document that cannot be fetched at the moment takes no token away.
    pub(super) async fn is_still_known(&self, id: &str) -> Result<bool, Error> {
        Ok(check_document_url(id).is_some() || self.client(id).await?.is_some())
    }

    async fn stored_client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, Error> {
        let now = self.shared.now();
        // One that has expired may have registered again, elsewhere. That there is none is never remembered: so a new
        // client need not be announced, and whoever registers many disturbs nobody.
        if let Some(known) = self.clients.get(id, now.boot).filter(|client| client.is_known(now.wall)) {
            return Ok(Some(known));
        }
        let question = self.clients.asking(now.boot);
        let Some(stored) = self.load_client(id).await?.filter(|stored| stored.value.is_known(now.wall)) else {
            return Ok(None);
        };
        let client = Arc::new(stored.value);
        self.clients.insert(id, client.clone(), question);
        Ok(Some(client))
    }

    pub(super) async fn load_client(&self, id: &ClientId) -> Result<Option<Stored<Client>>, Error> {
        match self.shared.records.load::<Client>(id).await.map_err(Error::reading("client"))? {
            Loaded::Live(stored) => Ok(Some(stored)),
            Loaded::Absent | Loaded::Deleted(_) => Ok(None),
        }
    }

    /// Writes a client whose id was drawn just now.
    pub(super) async fn make_client(&self, client: &Client) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.shared.records.save(client, (), Expect::Absent).await? {
                // Nobody else can have drawn it: what is there under it is our own write.
                Put::Committed(_) | Put::Conflict => return Ok(()),
                Put::Unknown => {}
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    /// Everybody may know that it was changed.
    pub(super) fn announce_client(&self, id: &ClientId) {
        self.client_changed(id);
        self.shared.bus.send(Event::ClientChanged(id.clone()));
    }

    /// Notes, once a day, that a client is used: it lives on.
    pub(super) fn note_use(&self, client: &Client) {
        if client.used(self.shared.now().wall).is_none() {
            return;
        }
        let (this, id) = (self.clone(), client.id.clone());
        tokio::spawn(async move {
            let Ok(Some(stored)) = this.load_client(&id).await else { return };
            let Some(used) = stored.value.used(this.shared.now().wall) else { return };
            // Whoever wrote meanwhile has seen it in use, too, or changed it: the next use is noted in its place.
            if let Ok(Put::Committed(_)) = this.shared.records.save(&used, (), Expect::Version(&stored.version)).await {
                this.clients.forget(&id);
            }
        });
    }
}
