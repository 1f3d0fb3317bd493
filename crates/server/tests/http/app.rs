//! One application per test: the real engine on a store in memory, a provider that does as it is told, clocks that stand
//! still, and the HTTP face as a service without sockets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokenkeep_core::{
    Role,
    ports::{Store, StoreError},
};
use tokenkeep_engine::{
    Caller, Engine, NewKey, Parts, Settings,
    barrier::{Barrier, RootKey, verify_or_create},
    catalogue::{Catalogue, parse_provider_toml},
    records::Records,
    system::SystemEntropy,
    transport::{HyperTransport, Outbound, Pacer, Pacing, TransportOptions},
};
use tokenkeep_server::{AppState, Door, FastLane, Settings as HttpSettings};
use tokenkeep_store::{
    Memory,
    layers::{Answer, Call, Layer, Layered, Pending},
};
use tokenkeep_testkit::{Config, FakeLogin, FakeProvider, ManualClock, MemoryBus};
use tower::ServiceExt;

pub(crate) struct TestApp {
    pub(crate) clock: ManualClock,
    pub(crate) provider: FakeProvider,
    /// Stands for `bluestakes`.
    pub(crate) stakes: FakeLogin,
    pub(crate) engine: Engine,
    pub(crate) state: AppState,
    /// The key that requests are made with unless they say otherwise: an admin's.
    pub(crate) key: String,
    /// What the engine keeps, for tests that put something there behind its back.
    pub(crate) records: Records,
    /// The same, as it is stored.
    pub(crate) store: Arc<dyn Store>,
    outage: Arc<AtomicBool>,
    read_only: Arc<AtomicBool>,
}

/// What an application stands on. Those that stand on the same are instances of one installation.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) clock: ManualClock,
    pub(crate) transport: TransportOptions,
    pub(crate) bus: Option<MemoryBus>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) root: Arc<RootKey>,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            clock: ManualClock::default(),
            transport: TransportOptions::default(),
            bus: None,
            memory: Arc::new(Memory::new()),
            root: Arc::new(RootKey::generate(&SystemEntropy)),
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}, HttpSettings { open_metrics: true, ..HttpSettings::default() }).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings), http: HttpSettings) -> Self {
        Self::on(&Ground::default(), change, http).await
    }

    pub(crate) async fn on(ground: &Ground, change: impl FnOnce(&mut Settings), http: HttpSettings) -> Self {
        let clock = ground.clock.clone();
        let shared_clock = Arc::new(clock.clone());
        let entropy = Arc::new(SystemEntropy);
        let provider = FakeProvider::start(shared_clock.clone(), Config::default()).await;
        let base = provider.issuer();
        let fake = format!(
            "id = \"fake\"\ndisplay_name = \"Fake & Sons\"\nauthorize_url = \"{base}/authorize\"\n\
             token_url = \"{base}/token\"\nrevoke = {{ method = \"rfc7009\", url = \"{base}/revoke\" }}\n\
             userinfo_url = \"{base}/userinfo\"\n[identity]\nsource = \"userinfo\"\nsubject = [\"/sub\"]\n\
             name = [\"/name\"]\n"
        );
        let logins = format!(
            "id = \"logins\"\nkind = \"login\"\ndefault_lifetime = 3600\nmargin = 300\n[login]\nurl = \"{base}/login\"\n\
             body = \"json\"\ntoken = \"/Authorization\"\ntoken_prefix = \"Bearer \"\n"
        );
        let keyed = "id = \"keyed\"\nkind = \"api_key\"".to_owned();
        let stakes = FakeLogin::start(shared_clock.clone()).await;
        let stakes_entry = stakes.provider_toml("bluestakes");
        let fakes = [("fake", fake), ("bluestakes", stakes_entry), ("logins", logins), ("keyed", keyed)];
        let fakes = fakes.map(|(id, toml)| parse_provider_toml(id, &toml).unwrap());
        let catalogue = Catalogue::with(fakes.to_vec()).unwrap();
        let (outage, read_only) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let broken = Outage { everything: outage.clone(), writes: read_only.clone() };
        let store = Arc::new(Layered::around(ground.memory.clone(), broken));
        let barrier = || Barrier::new(&ground.root, &[], entropy.clone());
        let pacer = Arc::new(Pacer::new(shared_clock.clone(), Pacing::default()));
        let transport = HyperTransport::new(shared_clock.clone(), pacer.clone(), &ground.transport).unwrap();
        let outbound = Outbound::new(shared_clock.clone(), &ground.transport).unwrap();
        let mut settings = Settings::new("http://localhost:7420".parse().unwrap());
        settings.return_to_origins = vec!["https://app.example.com".to_owned()];
        change(&mut settings);
        let parts = Parts {
            store: store.clone(),
            bus: ground.bus.as_ref().map(|bus| Arc::new(bus.attached()) as _),
            shared_cache: None,
            counter: None,
            barrier: barrier(),
            transport: Arc::new(transport),
            outbound: Some(outbound),
            pacer: Some(pacer),
            catalogue,
            journal_dir: None,
            clock: shared_clock.clone(),
            entropy: entropy.clone(),
        };
        let engine = Engine::start(parts, settings).await.unwrap();
        let state = AppState::new(engine.clone(), http);
        let key = key(&engine, Role::Admin, None).await;
        let barrier = verify_or_create(barrier(), &*store, &clock).await.unwrap();
        let records = Records::new(store.clone(), Arc::new(barrier), shared_clock, false);
        Self { clock, provider, stakes, engine, state, key, records, store, outage, read_only }
    }

    /// Another key: of `role`, bound to these tenants if any are named.
    pub(crate) async fn key(&self, role: Role, tenants: &[&str]) -> String {
        key(&self.engine, role, (!tenants.is_empty()).then_some(tenants)).await
    }

    /// Breaks the store, or mends it.
    pub(crate) fn break_store(&self, broken: bool) {
        self.outage.store(broken, SeqCst);
    }

    /// Makes the store refuse writes, or take them again.
    pub(crate) fn break_writes(&self, broken: bool) {
        self.read_only.store(broken, SeqCst);
    }

    /// Names the integration `fake` at the fake provider.
    pub(crate) async fn integrate(&self) {
        let body = json!({"client_id": "fake-client", "client_secret": "fake-client-secret"});
        let answer = self.put("/v1/integrations/fake", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// Stores tokens for `fake/_default/{subject}` that the fake provider knows, alive for `expires_in` seconds.
    pub(crate) async fn hold(&self, subject: &str, expires_in: u64) {
        let issued = self.provider.seed(subject);
        let body = json!({
            "access_token": issued.access_token, "refresh_token": issued.refresh_token, "expires_in": expires_in,
        });
        let answer = self.put(&format!("/v1/connections/fake/_default/{subject}"), body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// A request with the admin's key.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let key = format!("Bearer {}", self.key);
        Request::builder().method(method).uri(path).header(header::AUTHORIZATION, key)
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.send(self.request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answered {
        self.send(self.request("DELETE", path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answered {
        self.send(json_request(self.request("PUT", path), &body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answered {
        self.send(json_request(self.request("POST", path), &body)).await
    }

    /// Sends it as it is, through the fast lane and everything behind it.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answered {
        self.send_at(Door::Network, request).await
    }

    pub(crate) async fn send_at(&self, door: Door, request: Request<Body>) -> Answered {
        let Ok(response) = FastLane::new(self.state.clone(), door).oneshot(request).await;
        read(response).await
    }

    /// Sends it as a connection from `peer` does.
    pub(crate) async fn send_from(&self, peer: &str, request: Request<Body>) -> Answered {
        let lane = FastLane::new(self.state.clone(), Door::Network).from_peer(peer.parse().unwrap());
        let Ok(response) = lane.oneshot(request).await;
        read(response).await
    }

    /// Sends it to the router alone.
    pub(crate) async fn send_slowly(&self, request: Request<Body>) -> Answered {
        let Ok(response) = tokenkeep_server::router(self.state.clone()).oneshot(request).await;
        read(response).await
    }
}

async fn key(engine: &Engine, role: Role, tenants: Option<&[&str]>) -> String {
    let tenants = tenants.map(|all| all.iter().map(|name| name.parse().unwrap()).collect());
    let new = NewKey { name: format!("{role:?}"), role, tenants, providers: None };
    let (_, secret) = engine.keys().create(&Caller::Local, new).await.unwrap();
    secret.expose_secret().to_owned()
}

async fn read<B: http_body::Body<Data = Bytes>>(response: http::Response<B>) -> Answered
where
    B::Error: std::fmt::Debug,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answered { status: head.status, headers: head.headers, body }
}

pub(crate) fn json_request(builder: http::request::Builder, body: &Value) -> Request<Body> {
    builder.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap()
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// That it is a problem with this status and code; gives its members.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:tokenkeep:problem:{code}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        problem
    }
}

/// A store that does not answer while it is broken.
#[derive(Debug)]
struct Outage {
    everything: Arc<AtomicBool>,
    writes: Arc<AtomicBool>,
}

impl Layer for Outage {
    fn call<'a, T: Answer + 'a>(&'a self, call: Call, future: Pending<'a, T>) -> Pending<'a, T> {
        let is_hit = call.operation == "put" && self.writes.load(SeqCst);
        if !is_hit && !self.everything.load(SeqCst) {
            return future;
        }
        Box::pin(async { Err(StoreError::Unavailable { reason: "broken by the test".into(), retry_after: None }) })
    }
}
