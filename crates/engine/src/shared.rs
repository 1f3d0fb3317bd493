//! What every use case holds.

use std::{sync::Arc, time::Duration};

use tokenkeep_core::{
    Connection, ConnectionId, Generation, Incarnation, InstanceId, Now,
    id::Ulid,
    ports::{
        Clock, Counter, Endpoint, Entropy, Peers, Reply, Request, SendError, SharedCache, Transport, TransportError,
    },
};
use url::Url;

use crate::{
    bus::{self, Event},
    catalogue::Catalogue,
    conditions::Conditions,
    instances::{Process, Registration},
    issuer::IssuerSettings,
    l2::L2,
    metrics::Metrics,
    proxy::{Circuit, ProxySettings, limits::Limits},
    records::Records,
    sessions::SessionSettings,
    transport::{Outbound, Pacer},
};

/// The world as the engine sees it, and what it was told to be.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) records: Records,
    /// Tells other instances.
    pub(crate) bus: bus::Link,
    /// What other instances may see, too.
    pub(crate) copies: Option<Arc<dyn SharedCache>>,
    /// The tokens in it.
    pub(crate) l2: L2,
    /// Counts over all instances.
    pub(crate) counter: Option<Arc<dyn Counter>>,
    pub(crate) conditions: Conditions,
    /// How often providers' APIs may be called.
    pub(crate) limits: Limits,
    /// Which of them fail.
    pub(crate) circuit: Circuit,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) outbound: Option<Outbound>,
    pub(crate) pacer: Option<Arc<Pacer>>,
    pub(crate) catalogue: Catalogue,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) instance: InstanceId,
    pub(crate) registration: Registration,
    pub(crate) settings: Settings,
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    pub(crate) fn ulid(&self) -> Ulid {
        self.entropy.ulid(self.clock.now())
    }

    /// `connection` is in the store: everybody may know.
    pub(crate) fn announce(self: &Arc<Self>, connection: &Connection) {
        let Connection { id, incarnation, generation, .. } = connection;
        self.bus.send(Event::Changed { connection: id.clone(), incarnation: *incarnation, generation: *generation });
        if self.l2.is_used() {
            self.l2.told(id, *generation);
            let (this, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move { this.l2.changed(&connection).await });
        }
    }

    /// The connection is gone from the store: nobody may serve it any more.
    pub(crate) fn announce_deleted(self: &Arc<Self>, id: &ConnectionId, incarnation: Incarnation, floor: Generation) {
        self.bus.send(Event::Deleted { connection: id.clone(), incarnation, floor });
        if self.l2.is_used() {
            self.l2.told(id, floor);
            let (this, id) = (self.clone(), id.clone());
            tokio::spawn(async move { this.l2.raise(&id, floor).await });
        }
    }

    /// One request that may be sent at any time, on a connection of its own.
    pub(crate) async fn fetch(&self, request: Request) -> Result<Reply, FetchError> {
        let endpoint = Endpoint { url: request.url.clone(), timeout: self.settings.connect_timeout, peers: Peers::Any };
        let connected = self.transport.connect(&endpoint).await?;
        Ok(connected.send(request, None).await?)
    }
}

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Connect(#[from] TransportError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// What an installation can set. The defaults are what `tokenkeep serve` runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where browsers reach us.
    pub public_url: Url,
    /// Origins a connect may return to, besides `public_url`'s own (`https://app.example.com`).
    pub return_to_origins: Vec<String>,
    /// Whether labels that name a person are hashed in the store.
    pub hash_labels: bool,
    /// How many bytes of ready replies the cache holds at most.
    pub cache_bytes: u64,
    /// How long a cached token is served without asking the store whether it is still the newest, where no bus says
    /// so.
    pub cache_soft_life: Duration,
    /// How long before expiry a refresh is due, where the provider says nothing.
    pub refresh_margin: Duration,
    /// How long connecting to a provider may take.
    pub connect_timeout: Duration,
    /// How many refreshes this instance runs at once on its own account (readers' are not limited by it).
    pub preload_concurrency: usize,
    /// How often this instance looks for refreshes that are due.
    pub preload_interval: Duration,
    /// How often it cleans up.
    pub cleanup_interval: Duration,
    /// How providers' APIs are called.
    pub proxy: ProxySettings,
    /// What this process tells the others of itself.
    pub process: Process,
    /// The authorization server; `None` = there is none here.
    pub issuer: Option<Arc<IssuerSettings>>,
    /// Backend sessions; `None` = there are none here.
    pub sessions: Option<Arc<SessionSettings>>,
}

impl Settings {
    /// The defaults, for an installation that browsers reach at `public_url`.
    pub fn new(public_url: Url) -> Self {
        Self {
            public_url,
            return_to_origins: Vec::new(),
            hash_labels: false,
            cache_bytes: 64 * 1024 * 1024,
            cache_soft_life: Duration::from_secs(5),
            refresh_margin: Duration::from_mins(5),
            connect_timeout: Duration::from_secs(5),
            preload_concurrency: 64,
            preload_interval: Duration::from_secs(5),
            cleanup_interval: Duration::from_mins(30),
            proxy: ProxySettings::default(),
            process: Process::on("localhost"),
            issuer: None,
            sessions: None,
        }
    }
}
