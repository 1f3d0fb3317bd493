//! Clients that register themselves (RFC 7591).
//!
//! A public client is what it says of itself, and nothing else: it gets an id made from that, and whoever says the same
//! gets the same one. So a program that registers at each start leaves one record, and its answer holds nothing that
//! would be a leak to somebody else. A client that proves itself is one of its own each time.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokenkeep_core::{
    Client, ClientOrigin,
    client::ManagementHash,
    ports::{Expect, Limit, Put, Taken},
    time::after,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::{AuthMethod, ClientMetadata, GrantType, parse_registration},
        error::OAuthError,
        metadata::Endpoint,
        redirect_uri::RedirectUri,
    },
};

use super::{ATTEMPTS, operator::client_id};
use crate::{
    Error,
    error::STORE_RETRY,
    issuer::{Issuer, Refused, Registration},
};

/// The longest registration that is read, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// What management tokens begin with.
pub(super) const MANAGEMENT: &str = "reg-";
/// A public client that registers again, and was not used yet, lives on; that is noted at most this often.
const RENEWED_EVERY: Duration = Duration::from_hours(1);
/// How many clients may come to be over all instances: what this server remembers is bounded, and a whole company
/// behind one address is not in its own way.
const SLOTS: Limit = Limit::Bucket { burst: NonZeroU32::new(500).expect("it is not 0"), every: Duration::from_secs(1) };

/// A client as it is told to itself.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The client. Its metadata are in the words of the registration.
    pub client: Arc<Client>,
    /// Its secret, where one was drawn just now: only its hash is kept.
    pub secret: Option<Secret>,
    /// What manages it (RFC 7592). Public clients have none: they are immutable.
    pub registration_access_token: Option<Secret>,
    /// Where it is managed.
    pub registration_client_uri: String,
}

impl Registered {
    /// The client information response (RFC 7591 3.2.1, RFC 7592 3). Whoever holds it may hold secrets.
    pub fn to_json(&self) -> Secret {
        let Client { id, metadata, created_at, secret, .. } = &*self.client;
        let mut told = match serde_json::to_value(metadata) {
            Ok(Value::Object(told)) => told,
            _ => serde_json::Map::new(),
        };
        let response_types: &[&str] = if metadata.allows(GrantType::AuthorizationCode) { &["code"] } else { &[] };
        told.insert("response_types".to_owned(), json!(response_types));
        told.insert("client_id".to_owned(), json!(id));
        told.insert("client_id_issued_at".to_owned(), json!(created_at.as_second()));
        if secret.is_some() {
            told.insert("client_secret_expires_at".to_owned(), json!(0));
        }
        if let Some(secret) = &self.secret {
            told.insert("client_secret".to_owned(), json!(secret.expose_secret()));
        }
        if let Some(token) = &self.registration_access_token {
            told.insert("registration_access_token".to_owned(), json!(token.expose_secret()));
            told.insert("registration_client_uri".to_owned(), json!(self.registration_client_uri));
        }
        Value::Object(told).to_string().into()
    }
}

impl Issuer {
    /// Registers the client that `body` describes. `initial_access_token`: what the request came with, if anything;
    /// `may_be_new`: asked before a client comes to be that was not there.
    pub async fn register(
        &self,
        body: &[u8],
        initial_access_token: Option<&Secret>,
        may_be_new: impl Fn() -> Result<(), Error>,
    ) -> Result<Registered, Refused> {
        self.check_may_register(initial_access_token)?;
        let metadata = self.registrable(body)?;
        let registered = match metadata.token_endpoint_auth_method {
            AuthMethod::None => self.register_public(metadata, may_be_new).await?,
            _ => {
                may_be_new()?;
                self.register_confidential(metadata).await?
            }
        };
        Ok(registered)
    }

    fn check_may_register(&self, presented: Option<&Secret>) -> Result<(), OAuthError> {
        let hashes = self.shared.records.barrier().hashes();
        let matches = |expected: &Secret, presented: &Secret| {
            verify_slices_are_equal(&hashes.management(expected), &hashes.management(presented)).is_ok()
        };
        match (&self.secrets.load().registration, presented) {
            (Registration::Open, _) => Ok(()),
            (Registration::Off, _) => Err(OAuthError::access_denied("clients cannot register themselves here")),
            (Registration::Token(expected), Some(presented)) if matches(expected, presented) => Ok(()),
            (Registration::Token(_), _) => Err(OAuthError::invalid_token("registering needs an initial access token")),
        }
    }

    /// Reads what a client says of itself.
    pub(super) fn registrable(&self, body: &[u8]) -> Result<ClientMetadata, OAuthError> {
        if body.len() > MAX_BODY {
            return Err(OAuthError::invalid_client_metadata("the registration is longer than 16 KiB"));
        }
        let mut metadata = parse_registration(body)?;
        if matches!(self.settings.registration, Registration::Open) {
            only_for_users(&mut metadata)?;
        }
        Ok(metadata)
    }

    async fn register_public(
        &self,
        said: ClientMetadata,
        may_be_new: impl Fn() -> Result<(), Error>,
    ) -> Result<Registered, Error> {
        let mut metadata = said.clone();
        // Programs on the user's machine listen at another port each time, and it makes no difference.
        metadata.redirect_uris = said.redirect_uris.iter().map(RedirectUri::portless).collect();
        let canonical = serde_json::to_string(&metadata).unwrap_or_default();
        let id = client_id(&self.shared.records.barrier().hashes().public_client(&canonical));
        let mut has_slot = false;
        for _ in 0..ATTEMPTS {
            let now = self.shared.now().wall;
            let stored = self.load_client(&id).await?;
            let (next, expect) = match &stored {
                Some(stored) => match renewed(&stored.value, now) {
                    None => return Ok(self.registered_as(stored.value.clone(), said, None, None)),
                    Some(next) => (next, Expect::Version(&stored.version)),
                },
                None => {
                    if !has_slot {
                        may_be_new()?;
                        self.registration_slot().await?;
                        has_slot = true;
                    }
                    let (id, metadata) = (id.clone(), metadata.clone());
                    let origin = ClientOrigin::Registered { management: None };
                    let client =
                        Client { id, metadata, secret: None, origin, resources: None, created_at: now, used_at: None };
                    (client, Expect::Absent)
                }
            };
            if let Put::Committed(_) = self.shared.records.save(&next, (), expect).await? {
                self.clients.forget(&id);
                audit("client_registered", &next);
                return Ok(self.registered_as(next, said, None, None));
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    async fn register_confidential(&self, metadata: ClientMetadata) -> Result<Registered, Error> {
        self.registration_slot().await?;
        let token = self.draw_secret(MANAGEMENT);
        let management = Some(ManagementHash(self.shared.records.barrier().hashes().management(&token)));
        let (hash, secret) = if metadata.token_endpoint_auth_method.has_secret() {
            Some(self.drawn_secret()).unzip()
        } else {
            (None, None)
        };
        let client = Client {
            id: self.draw_client_id(),
            metadata: metadata.clone(),
            secret: hash,
            origin: ClientOrigin::Registered { management },
            resources: None,
            created_at: self.shared.now().wall,
            used_at: None,
        };
        self.make_client(&client).await?;
        audit("client_registered", &client);
        Ok(self.registered_as(client, metadata, secret, Some(token)))
    }

    /// What a client is told of itself; `said` is what it said.
    pub(super) fn registered_as(
        &self,
        client: Client,
        said: ClientMetadata,
        secret: Option<Secret>,
        registration_access_token: Option<Secret>,
    ) -> Registered {
        let registration_client_uri = format!("{}/{}", self.settings.url.endpoint(Endpoint::Register), client.id);
        let client = Arc::new(Client { metadata: said, ..client });
        Registered { client, secret, registration_access_token, registration_client_uri }
    }

    /// Takes one of the places for new clients, where instances count them together. A counter that does not answer
    /// keeps nobody out.
    async fn registration_slot(&self) -> Result<(), Error> {
        let Some(counter) = &self.shared.counter else { return Ok(()) };
        match counter.take("client registrations", SLOTS).await {
            Ok(Taken::Granted) => Ok(()),
            Ok(Taken::Wait(retry_after)) => Err(Error::TooMany { what: "too many clients register", retry_after }),
            Err(error) => {
                tracing::debug!(%error, "registrations are not counted at present");
                Ok(())
            }
        }
    }
}

/// Whom nobody vouched for does not get tokens for itself, only what its users allow it.
pub(super) fn only_for_users(metadata: &mut ClientMetadata) -> Result<(), OAuthError> {
    if metadata.grant_types.remove(&GrantType::ClientCredentials) && metadata.grant_types.is_empty() {
        let text = "the client_credentials grant is for clients that the operator of this server made";
        return Err(OAuthError::invalid_client_metadata(text));
    }
    Ok(())
}

/// The public client as it is after it registered again; `None` if nothing worth writing changes.
fn renewed(client: &Client, now: Timestamp) -> Option<Client> {
    if !client.is_known(now) {
        return Some(Client { created_at: now, used_at: None, ..client.clone() });
    }
    match client.used_at {
        Some(_) => client.used(now),
        None => (after(client.created_at, RENEWED_EVERY) <= now).then(|| Client { created_at: now, ..client.clone() }),
    }
}

pub(super) fn audit(action: &'static str, client: &Client) {
    let method = client.metadata.token_endpoint_auth_method.as_str();
    tracing::info!(target: "audit", action, client = %client.id, name = client.metadata.client_name, method);
}
