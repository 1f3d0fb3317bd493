//! Clients that an operator makes, looks at, changes and removes.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use tokenkeep_core::{
    Action, Client, ClientId, ClientOrigin, ClientSecretHash, Tenant,
    ports::{Cursor, Expect, Filter, Put, Scope},
    session::is_session_client,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::{ClientMetadata, check_document_url},
        error::OAuthError,
        resource::Resource,
    },
};
use zeroize::Zeroizing;

use super::ATTEMPTS;
use crate::{
    Caller, Error,
    error::STORE_RETRY,
    issuer::{Issuer, admin::allowed},
    keys::check_given,
    records::{Aggregate as _, Loaded},
};

const MAX_LIMIT: u32 = 1000;

/// A client to be made.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// What it is.
    pub metadata: ClientMetadata,
    /// Its id; `None` = one is drawn.
    pub id: Option<ClientId>,
    /// Its secret, of at least 20 characters; `None` = one is drawn, if it proves itself with one.
    pub secret: Option<Secret>,
    /// The resources it may ask for; `None` = all.
    pub resources: Option<BTreeSet<Resource>>,
}

/// What a client is to be from now on.
#[derive(Clone, Debug)]
pub struct ChangeClient {
    /// What it is.
    pub metadata: ClientMetadata,
    /// The resources it may ask for; `None` = all.
    pub resources: Option<BTreeSet<Resource>>,
}

/// Which clients to list.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// At most so many that have a record, 1 to 1000. Those of the configuration file come on top, on the first page.
    pub limit: u32,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// Only those that came to be known in this way: `api`, `config`, `registered`.
    pub origin: Option<String>,
}

/// One page of clients.
#[derive(Clone, Debug, Default)]
pub struct ClientListing {
    /// The clients, in no particular but in a stable order.
    pub items: Vec<ClientView>,
    /// How many records of this page are there and cannot be read.
    pub unreadable: u64,
    /// Where the next page starts; `None` after the last.
    pub next: Option<String>,
}

/// What may be known of a client: no secrets.
#[derive(Clone, Debug)]
pub struct ClientView {
    /// Which.
    pub id: ClientId,
    /// What it said of itself, or the operator of it.
    pub metadata: ClientMetadata,
    /// How it came to be known.
    pub origin: ClientOrigin,
    /// Whether it has a secret.
    pub has_secret: bool,
    /// The resources it may ask for; `None` = all.
    pub resources: Option<BTreeSet<Resource>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last seen to be used, to the day.
    pub used_at: Option<Timestamp>,
    /// When it is forgotten, if nobody uses it before; `None` = never.
    pub expires_at: Option<Timestamp>,
}

impl From<&Client> for ClientView {
    fn from(client: &Client) -> Self {
        Self {
            id: client.id.clone(),
            metadata: client.metadata.clone(),
            origin: client.origin.clone(),
            has_secret: client.secret.is_some(),
            resources: client.resources.clone(),
            created_at: client.created_at,
            used_at: client.used_at,
            expires_at: client.expires_at(),
        }
    }
}

/// What went with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// How many grants ended.
    pub grants_revoked: u64,
}

impl Issuer {
    /// Makes a client. A secret that was drawn here is answered, and never shown again.
    pub async fn create_client(&self, caller: &Caller, new: NewClient) -> Result<(Client, Option<Secret>), Error> {
        allowed(caller, Action::ManageClients)?;
        let NewClient { metadata, id, secret, resources } = new;
        metadata.check().map_err(told)?;
        self.check_resources(resources.as_ref())?;
        let chosen = id.is_some();
        let id = match id {
            Some(id) => self.check_chosen_id(id)?,
            None => self.draw_client_id(),
        };
        let (secret, drawn) = match secret {
            _ if metadata.token_endpoint_auth_method.has_secret() => self.keep_secret(secret).await?,
            Some(_) => return Err(Error::invalid("a client that does not prove itself with a secret has none")),
            None => (None, None),
        };
        let created_at = self.shared.now().wall;
        let client = Client { id, metadata, secret, origin: ClientOrigin::Api, resources, created_at, used_at: None };
        if chosen {
            self.claim_client_id(&client).await?;
        } else {
            self.make_client(&client).await?;
        }
        audit("client_created", caller, &client.id);
        Ok((client, drawn))
    }

    /// One page of clients. A page may hold fewer than `limit` and still have a `next`.
    pub async fn list_clients(&self, caller: &Caller, filter: ClientFilter) -> Result<ClientListing, Error> {
        allowed(caller, Action::ReadClients)?;
        if filter.limit == 0 || filter.limit > MAX_LIMIT {
            return Err(Error::invalid(format!("`limit` must be 1 to {MAX_LIMIT}")));
        }
        let origin = filter.origin.as_deref();
        if origin.is_some_and(|word| !["api", "config", "registered"].contains(&word)) {
            return Err(Error::invalid("`origin` must be one of `api`, `config` and `registered`"));
        }
        let is_meant = |client: &Client| origin.is_none_or(|word| word == client.origin.as_str());
        let mut listing = ClientListing::default();
        if filter.cursor.is_none() {
            let secrets = self.secrets.load();
            let configured = secrets.clients.all().filter(|client| is_meant(client));
            listing.items.extend(configured.map(|client| ClientView::from(&**client)));
            listing.items.sort_by(|a, b| a.id.cmp(&b.id));
        }
        let now = self.shared.now().wall;
        let scope = Scope::Tenant(Tenant::default_tenant());
        let cursor = filter.cursor.map(Cursor);
        let page = self.shared.records.list::<Client>(scope, Filter::All, filter.limit, cursor).await?;
        for item in page.items {
            match item.content {
                Ok(Loaded::Live(stored)) if stored.value.is_known(now) && is_meant(&stored.value) => {
                    listing.items.push(ClientView::from(&stored.value));
                }
                Ok(_) => {}
                Err(why) => {
                    tracing::error!(%why, "a client's record cannot be read");
                    listing.unreadable += 1;
                }
            }
        }
        listing.next = page.next.map(|cursor| cursor.0);
        Ok(listing)
    }

    /// One client, of the configuration file or with a record.
    pub async fn client_view(&self, caller: &Caller, id: &ClientId) -> Result<ClientView, Error> {
        allowed(caller, Action::ReadClients)?;
        if let Some(client) = self.configured(id.as_str()) {
            return Ok(ClientView::from(&*client));
        }
        let now = self.shared.now().wall;
        let stored = self.load_client(id).await?.filter(|stored| stored.value.is_known(now));
        stored.map(|stored| ClientView::from(&stored.value)).ok_or_else(|| Error::not_found("client", id))
    }

    /// Changes what a client is. One that proves itself with a secret from now on, and had none, gets one; it is
    /// answered, and never shown again.
    pub async fn update_client(
        &self,
        caller: &Caller,
        id: &ClientId,
        change: ChangeClient,
    ) -> Result<(ClientView, Option<Secret>), Error> {
        allowed(caller, Action::ManageClients)?;
        self.check_not_configured(id)?;
        let ChangeClient { metadata, resources } = change;
        metadata.check().map_err(told)?;
        self.check_resources(resources.as_ref())?;
        let (hash, drawn) = self.keep_secret(None).await?;
        let (changed, secret) = self
            .change_client(id, |client| {
                if client.origin == (ClientOrigin::Registered { management: None }) {
                    let text =
                        "a public client that registered itself is what its id says; delete it, and make another";
                    return Err(Error::invalid(text));
                }
                let has_secret = metadata.token_endpoint_auth_method.has_secret();
                let (secret, shown) = match (has_secret, client.secret) {
                    (false, _) => (None, None),
                    (true, Some(kept)) => (Some(kept), None),
                    (true, None) => (hash.clone(), drawn.clone()),
                };
                let metadata = metadata.clone();
                let resources = resources.clone();
                Ok((Client { metadata, secret, resources, ..client }, shown))
            })
            .await?;
        audit("client_changed", caller, id);
        Ok((ClientView::from(&changed), secret))
    }

    /// Gives a client a new secret; the old one counts no more, here at once, elsewhere as soon as it is heard of.
    pub async fn rotate_client_secret(&self, caller: &Caller, id: &ClientId) -> Result<Secret, Error> {
        allowed(caller, Action::ManageClients)?;
        self.check_not_configured(id)?;
        let (hash, drawn) = self.drawn_secret();
        self.change_client(id, |client| {
            if !client.metadata.token_endpoint_auth_method.has_secret() {
                return Err(Error::invalid("this client does not prove itself with a secret"));
            }
            Ok((Client { secret: Some(hash.clone()), ..client }, ()))
        })
        .await?;
        audit("client_secret_rotated", caller, id);
        Ok(drawn)
    }

    /// Removes a client, and ends whatever was granted to it. After a failure half-way, do it again.
    pub async fn delete_client(&self, caller: &Caller, id: &ClientId) -> Result<Deleted, Error> {
        allowed(caller, Action::ManageClients)?;
        self.check_not_configured(id)?;
        let deleted = self.remove_client(id).await?.ok_or_else(|| Error::not_found("client", id))?;
        audit("client_deleted", caller, id);
        Ok(deleted)
    }

    /// Removes a client first, so that nothing new is granted to it, and then what was; `None` = there was neither.
    pub(super) async fn remove_client(&self, id: &ClientId) -> Result<Option<Deleted>, Error> {
        let was_there = self.bury_client(id).await?;
        let grants_revoked = self.end_grants_of_client(id).await?;
        Ok((was_there || grants_revoked > 0).then_some(Deleted { grants_revoked }))
    }

    /// Puts a tombstone in its place; whether it was there.
    async fn bury_client(&self, id: &ClientId) -> Result<bool, Error> {
        let mut tried = false;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.load_client(id).await? else {
                self.announce_client(id);
                return Ok(tried);
            };
            match self.shared.records.delete::<Client>(id, &stored.version, &()).await? {
                Put::Committed(_) => {
                    self.announce_client(id);
                    return Ok(true);
                }
                Put::Conflict => {}
                Put::Unknown => tried = true,
            }
        }
        Err(Error::Conflict { what: "client" })
    }

    /// Takes a client one step further. `step` may run more than once, and must come to the same then.
    pub(super) async fn change_client<T>(
        &self,
        id: &ClientId,
        step: impl Fn(Client) -> Result<(Client, T), Error>,
    ) -> Result<(Client, T), Error> {
        let now = self.shared.now().wall;
        for _ in 0..ATTEMPTS {
            let stored = self.load_client(id).await?.filter(|stored| stored.value.is_known(now));
            let stored = stored.ok_or_else(|| Error::not_found("client", id))?;
            let next = step(stored.value)?;
            let put = self.shared.records.save(&next.0, (), Expect::Version(&stored.version)).await?;
            if put != Put::Conflict {
                self.announce_client(id);
            }
            if let Put::Committed(_) = put {
                return Ok(next);
            }
        }
        Err(Error::Conflict { what: "client" })
    }

    /// Writes a client under an id that somebody chose, unless it is taken.
    async fn claim_client_id(&self, client: &Client) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.shared.records.save(client, (), Expect::Absent).await? {
                Put::Committed(_) => return Ok(()),
                Put::Conflict => match self.load_client(&client.id).await? {
                    // Our own write, whose answer was lost: no other has this secret's hash and this time.
                    Some(stored) if stored.value.encode() == client.encode() => return Ok(()),
                    Some(_) => return Err(Error::AlreadyThere { what: "client" }),
                    None => {}
                },
                Put::Unknown => {}
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    fn check_not_configured(&self, id: &ClientId) -> Result<(), Error> {
        match self.configured(id.as_str()) {
            Some(_) => Err(Error::ManagedByConfig { what: "client", id: id.to_string() }),
            None => Ok(()),
        }
    }

    fn check_chosen_id(&self, id: ClientId) -> Result<ClientId, Error> {
        self.check_not_configured(&id)?;
        if is_session_client(id.as_str()) {
            return Err(Error::invalid("this id is that of backend sessions"));
        }
        if check_document_url(id.as_str()).is_some() {
            return Err(Error::invalid("an id that is an https address is that of a client document"));
        }
        Ok(id)
    }

    fn check_resources(&self, resources: Option<&BTreeSet<Resource>>) -> Result<(), Error> {
        match resources.and_then(|all| all.iter().find(|resource| self.settings.resource(resource).is_none())) {
            Some(unknown) => Err(Error::invalid(format!("`{unknown}` is not a resource of this server"))),
            None => Ok(()),
        }
    }

    /// What is kept of a secret: of the one that was chosen, or of one that is drawn here and shown once.
    async fn keep_secret(&self, chosen: Option<Secret>) -> Result<(Option<ClientSecretHash>, Option<Secret>), Error> {
        match chosen {
            Some(secret) => {
                check_given(&secret).map_err(|problem| Error::invalid(format!("the client secret {problem}")))?;
                Ok((Some(self.hash_chosen_secret(&secret).await?), None))
            }
            None => {
                let (hash, secret) = self.drawn_secret();
                Ok((Some(hash), Some(secret)))
            }
        }
    }

    /// A fresh client secret, and what is kept of it.
    pub(super) fn drawn_secret(&self) -> (ClientSecretHash, Secret) {
        let secret = self.draw_secret("");
        (ClientSecretHash::Keyed(self.shared.records.barrier().hashes().client_secret(&secret)), secret)
    }

    /// 256 random bits as 43 characters, after a prefix.
    pub(super) fn draw_secret(&self, prefix: &str) -> Secret {
        let random = Zeroizing::new(self.shared.entropy.bytes32());
        let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_slice()));
        format!("{prefix}{}", *text).into()
    }

    pub(super) fn draw_client_id(&self) -> ClientId {
        client_id(&self.shared.entropy.bytes32())
    }
}

/// The id that goes with 128 bits: `client_` and 22 characters.
pub(super) fn client_id(bytes: &[u8; 32]) -> ClientId {
    let id = format!("client_{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes[..16]));
    ClientId::new(&id).expect("base64url is visible ASCII")
}

/// What an operator is told of metadata that do not fit together.
fn told(error: OAuthError) -> Error {
    Error::Invalid(error.description)
}

fn audit(action: &'static str, caller: &Caller, client: &ClientId) {
    let by = caller.name();
    tracing::info!(target: "audit", action, %by, %client);
}
