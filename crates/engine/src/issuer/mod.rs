//! The issuing side: an OAuth 2.1 authorization server for MCP clients, browsers and backends.
//!
//! A client is registered, described by a document, or configured (`clients`); it sends its user to be asked
//! (`authorize`, `sign_in`), and gets a code; every grant that leads to tokens has a file of its own (`grants`), and
//! all of them end in the same step, which none can forget. What was issued is verified, described and taken back
//! (`verify`, `introspect`, `revoke`).

mod admin;
mod authenticate;
mod authorize;
mod clients;
mod consent;
mod error;
mod grants;
mod interactions;
mod introspect;
mod keyring;
mod mcp_session;
mod remembered;
mod revoke;
mod secrets;
mod settings;
mod sign_in;
mod tally;
mod turns;
mod verify;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokenkeep_core::{Client, ClientId};
use tokenkeep_oauth::issuer::resource::Resource;

pub(crate) use self::grants::{Opening, Reissue, WEBSOCKET, refused};
pub use self::{
    admin::{GrantFilter, GrantListing, GrantStatus, GrantView, IssuerStats, Purged},
    authorize::{Authorization, AuthorizeRefused},
    clients::{
        ChangeClient, ClientFilter, ClientListing, ClientView, Deleted, ManagementRefused, NewClient, Registered,
    },
    consent::{ADMINISTRATOR, ConsentPage, Next, UpstreamChoice},
    error::Refused,
    interactions::{Accept, InteractionStatus, InteractionView, Reject},
    keyring::SigningKeyView,
    settings::{Admitted, ConfigClient, IssuerSettings, ProtectedResource, Registration, Upstream},
    sign_in::CameBack,
    verify::VerifiedToken,
};
use self::{
    authenticate::Proven, keyring::Keyring, remembered::Remembered, secrets::Secrets, tally::Tally, turns::Turns,
    verify::Verified,
};
use crate::{
    bus::Event, connect::Connect, connections::Connections, keys::Keys, sessions::SessionSettings, shared::Shared,
};

/// So many clients are remembered at once; each costs about two KiB.
const CLIENTS: u64 = 10_000;

/// The use cases of issuing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Issuer {
    shared: Arc<Shared>,
    connections: Connections,
    connect: Connect,
    keys: Keys,
    settings: Arc<IssuerSettings>,
    /// What sessions are issued for, where they are.
    sessions: Option<Arc<SessionSettings>>,
    keyring: Arc<Keyring>,
    clients: Arc<Remembered<ClientId, Arc<Client>, std::hash::RandomState>>,
    secrets: Arc<ArcSwap<Secrets>>,
    verified: Arc<Verified>,
    turns: Arc<Turns>,
    proven: Arc<Proven>,
    tally: Arc<Tally>,
    published: clients::Published,
}

impl Issuer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connections: Connections,
        connect: Connect,
        keys: Keys,
        settings: Arc<IssuerSettings>,
        sessions: Option<Arc<SessionSettings>>,
    ) -> Self {
        let lease = shared.bus.lease().clone();
        let (hashes, now) = (shared.records.barrier().hashes(), shared.now().wall);
        let secrets = Secrets::new(&settings, sessions.as_deref(), hashes, now);
        Self {
            clients: Arc::new(Remembered::new(CLIENTS, lease.clone())),
            secrets: Arc::new(ArcSwap::from_pointee(secrets)),
            verified: Arc::new(Verified::new(lease)),
            keyring: Arc::default(),
            turns: Arc::default(),
            proven: Arc::default(),
            tally: Arc::default(),
            published: clients::Published::default(),
            shared,
            connections,
            connect,
            keys,
            settings,
            sessions,
        }
    }

    /// What it was told to be.
    pub fn settings(&self) -> &IssuerSettings {
        &self.settings
    }

    /// Whether some client may exchange tokens (RFC 8693).
    pub fn exchanges_tokens(&self) -> bool {
        self.resources().any(|resource| !resource.exchangers.is_empty())
    }

    /// What tokens of that audience are for.
    fn resource_of(&self, audience: &Resource) -> Option<&ProtectedResource> {
        self.resources().find(|resource| resource.resource == *audience)
    }

    /// Everything that access tokens are signed for: what clients may ask for, and what sessions are for.
    fn resources(&self) -> impl Iterator<Item = &ProtectedResource> {
        self.settings.resources.iter().chain(self.sessions.as_ref().map(|sessions| &sessions.resource))
    }

    /// Another instance did something that concerns us.
    pub(crate) fn heard(&self, event: &Event) {
        match event {
            Event::ClientChanged(id) => self.client_changed(id),
            Event::GrantChanged(id) => self.verified.doubt_grant(*id, self.shared.now().boot),
            Event::AccessTokenSpent(jti) => self.verified.doubt_token(jti, self.shared.now().boot),
            Event::SigningKeysChanged => {
                let this = self.clone();
                tokio::spawn(async move {
                    // They are read again soon in any case.
                    if let Err(error) = this.ensure_keys().await {
                        tracing::debug!(%error, "the signing keys cannot be read at present");
                    }
                });
            }
            _ => {}
        }
    }

    /// Says what was issued since the last time: nobody will later.
    pub(crate) fn say_tally(&self) {
        self.tally.say();
    }

    /// Messages were lost: whatever is remembered may be out of date.
    pub(crate) fn missed_something(&self) {
        self.clients.forget_all();
        self.verified.forget_all();
        self.heard(&Event::SigningKeysChanged);
    }

    /// A client was changed or removed: nobody goes by what they know of it, or of its tokens. Those of others stay:
    /// whoever registers itself may change itself as it likes.
    fn client_changed(&self, id: &ClientId) {
        self.clients.forget(id);
        self.verified.doubt_client(id, self.shared.now().boot);
    }
}
