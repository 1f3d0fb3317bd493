//! An engine to test: in memory, with a provider that remembers everything, and a clock that is told the time.

pub mod browser;
pub mod issuer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokenkeep_core::{
    ConnectionId, InstanceId, IntegrationId, Rotation,
    ports::{
        BoxFuture, Count, Counter, Expect, Kind, Page, Put, Query, Reach, Record, RecordKey, Store, StoreDescription,
        StoreError, Version,
    },
};
use tokenkeep_engine::{
    Caller, ConnectionView, Engine, Error, Given, Parts, PutIntegration, PutMode, PutTokens, Ready, Settings,
    StartError,
    barrier::{Barrier, RootKey},
    catalogue::{Catalogue, parse_provider_toml},
    issuer::IssuerSettings,
    journal::adopt,
    sessions::SessionSettings,
    transport::{HyperTransport, Outbound, Pacer, Pacing, TransportOptions},
};
use tokenkeep_store::Memory;
use tokenkeep_testkit::{Config, FakeProvider, ManualClock, MemoryBus, MemoryCache, SeededEntropy};

pub const MIN_TTL: Duration = Duration::from_secs(60);
const SEALING_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// What several engines can share: a store, a provider and a clock.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub provider: FakeProvider,
    pub store: Arc<Switchable>,
    /// Providers beside `fake`, for engines started from now on.
    pub providers: Vec<tokenkeep_core::Provider>,
    /// The line to the bus of the engine that is started next; its switches are that engine's.
    pub bus: Option<MemoryBus>,
    /// The shared cache of engines started from now on.
    pub shared_cache: Option<MemoryCache>,
    pub counter: Option<Arc<dyn Counter>>,
    /// The authorization server of engines started from now on.
    pub issuer: Option<IssuerSettings>,
    /// The backend sessions of engines started from now on.
    pub sessions: Option<SessionSettings>,
    /// How engines started from now on reach providers.
    pub transport: TransportOptions,
    rotation: Rotation,
}

impl World {
    pub async fn new(rotation: Rotation) -> Self {
        Self::with(Config::rotating(rotation)).await
    }

    pub async fn with(config: Config) -> Self {
        let clock = Arc::new(ManualClock::default());
        let rotation = config.rotation;
        let provider = FakeProvider::start(clock.clone(), config).await;
        let store = Arc::new(Switchable::default());
        Self {
            clock,
            provider,
            store,
            providers: Vec::new(),
            bus: None,
            shared_cache: None,
            counter: None,
            issuer: None,
            sessions: None,
            transport: TransportOptions::default(),
            rotation,
        }
    }

    /// One more instance. `seed` makes its ids its own.
    pub async fn engine(&self, seed: u64, journal_dir: Option<PathBuf>) -> Engine {
        self.try_engine(seed, journal_dir).await.unwrap()
    }

    /// The same, for one that may be refused.
    pub async fn try_engine(&self, seed: u64, journal_dir: Option<PathBuf>) -> Result<Engine, StartError> {
        let (parts, settings) = self.parts(seed, journal_dir);
        Engine::start(parts, settings).await
    }

    /// One more instance, in a runtime of its own, so that it can be killed.
    pub async fn mortal(&self, seed: u64, journal_dir: Option<PathBuf>) -> Mortal {
        let (parts, settings) = self.parts(seed, journal_dir);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let engine = runtime.spawn(Engine::start(parts, settings)).await.unwrap().unwrap();
        Mortal { runtime, engine }
    }

    /// What one more instance is made of.
    pub fn parts(&self, seed: u64, journal_dir: Option<PathBuf>) -> (Parts, Settings) {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let pacer = Arc::new(Pacer::new(self.clock.clone(), Pacing::default()));
        let transport = HyperTransport::new(self.clock.clone(), pacer.clone(), &self.transport).unwrap();
        let parts = Parts {
            store: self.store.clone(),
            bus: self.bus.clone().map(|bus| Arc::new(bus) as _),
            shared_cache: self.shared_cache.clone().map(|cache| Arc::new(cache) as _),
            counter: self.counter.clone(),
            barrier: barrier(seed),
            transport: Arc::new(transport),
            outbound: Some(Outbound::new(self.clock.clone(), &self.transport).unwrap()),
            pacer: Some(pacer),
            catalogue: Catalogue::with([vec![self.catalogue_entry()], self.providers.clone()].concat()).unwrap(),
            journal_dir,
            clock: self.clock.clone(),
            entropy,
        };
        let mut settings = Settings::new("http://localhost:7420".parse().unwrap());
        settings.return_to_origins = vec!["https://app.example.com".to_owned()];
        settings.issuer = self.issuer.clone().map(Arc::new);
        settings.sessions = self.sessions.clone().map(Arc::new);
        (parts, settings)
    }

    pub fn catalogue_entry(&self) -> tokenkeep_core::Provider {
        let base = self.provider.url("/");
        let base = base.as_str().trim_end_matches('/');
        let rotation = match self.rotation {
            Rotation::None => "\"none\"".to_owned(),
            Rotation::Overlap => "\"overlap\"".to_owned(),
            Rotation::Predecessor => "\"predecessor\"".to_owned(),
            Rotation::Grace { window, .. } => {
                format!("{{ grace = {{ seconds = {}, successor = \"same\" }} }}", window.as_secs())
            }
            Rotation::Strict => "\"strict\"".to_owned(),
        };
        let text = format!(
            "id = \"fake\"\ndisplay_name = \"Fake\"\nauthorize_url = \"{base}/authorize\"\ntoken_url = \"{base}/token\"\n\
             rotation = {rotation}\nmargin = 300\nrevoke = {{ method = \"rfc7009\", url = \"{base}/revoke\" }}\n\
             device_authorization_url = \"{base}/device\"\nissuer = \"{base}\"\n"
        );
        parse_provider_toml("fake", &text).unwrap()
    }
}

/// What seals everything; `seed` makes its randomness its own.
pub fn barrier(seed: u64) -> Barrier {
    Barrier::new(&RootKey::parse(SEALING_KEY).unwrap(), &[], Arc::new(SeededEntropy::new(seed)))
}

/// An engine that can be killed: nothing of it goes on, and its journal's lock is free.
pub struct Mortal {
    runtime: tokio::runtime::Runtime,
    pub engine: Engine,
}

impl Mortal {
    /// Runs what is asked of it where it dies with it.
    pub fn run<T: Send + 'static>(&self, what: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(what)
    }

    /// As `kill -9` would; `dir` is where its journal is.
    pub async fn kill(self, dir: &Path) {
        let barrier = Arc::new(barrier(0));
        let Self { runtime, engine } = self;
        let instance = engine.instance();
        drop(engine);
        runtime.shutdown_background();
        let nobody = InstanceId(tokenkeep_core::id::Ulid::nil());
        while adopt(dir, nobody, &barrier).unwrap().running.contains(&instance) {
            tokio::task::yield_now().await;
        }
    }
}

/// One engine in a world of its own, with the integration `fake` and alice's connection to it.
pub struct TestEngine {
    pub world: World,
    pub engine: Engine,
    /// The refresh token that alice's connection began with.
    pub seed: String,
}

pub fn alice() -> ConnectionId {
    "fake/_default/alice".parse().unwrap()
}

pub fn fake() -> IntegrationId {
    "fake".parse().unwrap()
}

pub fn put_fake() -> PutIntegration {
    PutIntegration {
        provider: Some("fake".parse().unwrap()),
        client_id: "fake-client".to_owned(),
        client_secret: Some("fake-client-secret".into()),
        ..PutIntegration::default()
    }
}

impl TestEngine {
    pub async fn new(rotation: Rotation) -> Self {
        Self::in_world(World::new(rotation).await, None).await
    }

    pub async fn in_world(world: World, journal_dir: Option<PathBuf>) -> Self {
        let engine = world.engine(1, journal_dir).await;
        engine.integrations().put(&Caller::Local, &fake(), put_fake()).await.unwrap();
        let seed = store_seeded(&engine, &world, &alice()).await;
        Self { world, engine, seed }
    }

    pub async fn token(&self) -> Result<Arc<Ready>, Error> {
        self.engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await
    }

    pub async fn status(&self) -> ConnectionView {
        self.engine.connections().status(&Caller::Local, &alice()).await.unwrap()
    }

    /// Lets alice's access token die.
    pub fn expire(&self) {
        self.world.clock.advance(Duration::from_hours(2));
    }
}

/// Gives `id` a grant at the provider, and stores its tokens; answers the refresh token.
pub async fn store_seeded(engine: &Engine, world: &World, id: &ConnectionId) -> String {
    let issued = world.provider.seed(id.subject.as_str());
    let refresh = issued.refresh_token.unwrap();
    let tokens = PutTokens {
        access_token: Some(issued.access_token.into()),
        refresh_token: Given::Value(refresh.as_str().into()),
        expires_at: Some(tokenkeep_core::time::after(now(world), Duration::from_hours(1))),
        ..bare()
    };
    engine.connections().put(&Caller::Local, id, tokens, PutMode::default()).await.unwrap();
    refresh
}

pub fn now(world: &World) -> Timestamp {
    use tokenkeep_core::ports::Clock as _;
    world.clock.now().wall
}

pub fn bare() -> PutTokens {
    PutTokens {
        access_token: None,
        refresh_token: Given::Absent,
        expires_at: None,
        scope: None,
        token_type: None,
        display_name: None,
    }
}

/// A store that can be cut off; in memory, if nothing else is said.
#[derive(Debug)]
pub struct Switchable {
    inner: Arc<dyn Store>,
    /// Nothing is answered.
    pub down: AtomicBool,
    /// Connections are not written.
    pub refuses_writes: AtomicBool,
    /// Others come in between, as with a store over a network.
    pub lets_others_in: AtomicBool,
    /// Connects are not written.
    pub refuses_connects: AtomicBool,
    /// Instances cannot say that they are there.
    pub refuses_instances: AtomicBool,
    /// Records of this kind are neither read nor written.
    pub lost: Mutex<Option<Kind>>,
    /// How often that was asked for in vain.
    pub missed: AtomicUsize,
    /// The answer to the next write of this kind is lost, and nothing else.
    pub unanswered: Mutex<Option<Kind>>,
    /// How many connections were handed out to be refreshed.
    pub claimed: AtomicUsize,
    /// Connections are read one after the other, in the order of asking, while nobody holds this.
    pub reads: tokio::sync::Mutex<()>,
    /// Who may use it, if not only this process.
    pub reach: Mutex<Option<Reach>>,
}

impl Default for Switchable {
    fn default() -> Self {
        Self::over(Arc::new(Memory::default()))
    }
}

impl Switchable {
    /// With switches in front of any store.
    pub fn over(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            down: AtomicBool::default(),
            refuses_writes: AtomicBool::default(),
            lets_others_in: AtomicBool::default(),
            refuses_connects: AtomicBool::default(),
            refuses_instances: AtomicBool::default(),
            lost: Mutex::default(),
            missed: AtomicUsize::default(),
            unanswered: Mutex::default(),
            claimed: AtomicUsize::default(),
            reads: tokio::sync::Mutex::default(),
            reach: Mutex::default(),
        }
    }

    /// The same records with switches of their own: what one more instance reaches them by.
    pub fn attached(&self) -> Self {
        Self::over(self.inner.clone())
    }

    fn reach_kind(&self, kind: Kind) -> Result<(), StoreError> {
        if *self.lost.lock().unwrap() != Some(kind) {
            return Ok(());
        }
        self.missed.fetch_add(1, SeqCst);
        Err(unavailable())
    }

    async fn up(&self) -> Result<(), StoreError> {
        if self.lets_others_in.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        if self.down.load(SeqCst) { Err(unavailable()) } else { Ok(()) }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { reason: "switched off".to_owned(), retry_after: None }
}

impl Store for Switchable {
    fn describe(&self) -> StoreDescription {
        let reach = *self.reach.lock().unwrap();
        let inner = self.inner.describe();
        StoreDescription { reach: reach.unwrap_or(inner.reach), ..inner }
    }
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.up().await?;
            self.reach_kind(key.kind)?;
            if key.kind == Kind::Connection {
                drop(self.reads.lock().await);
            }
            self.inner.get(key).await
        })
    }
    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move {
            self.up().await?;
            let kind = record.key.kind;
            self.reach_kind(kind)?;
            if self.unanswered.lock().unwrap().take_if(|unanswered| *unanswered == kind).is_some() {
                self.inner.put(record, expect).await?;
                return Ok(Put::Unknown);
            }
            let refused = match kind {
                Kind::Connection => &self.refuses_writes,
                Kind::AuthorizationRequest => &self.refuses_connects,
                Kind::Instance => &self.refuses_instances,
                _ => return self.inner.put(record, expect).await,
            };
            if refused.load(SeqCst) {
                return Err(unavailable());
            }
            self.inner.put(record, expect).await
        })
    }
    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move {
            self.up().await?;
            self.inner.delete(tombstone, version, keep_until).await
        })
    }
    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            self.up().await?;
            self.inner.list(query).await
        })
    }
    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            self.up().await?;
            let claimed = self.inner.claim(kind, due_before, limit, until).await?;
            if kind == Kind::Connection {
                self.claimed.fetch_add(claimed.len(), SeqCst);
            }
            Ok(claimed)
        })
    }
    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move {
            self.up().await?;
            self.inner.count(query).await
        })
    }
    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            self.up().await?;
            self.inner.sweep(now).await
        })
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.up().await })
    }
}
