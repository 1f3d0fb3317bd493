//! How often several instances together call a provider, over the servers that people run. The limits go by the clocks
//! of those servers and of this machine, so these tests take as long as the windows they watch.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use common::{bare, barrier};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokenkeep_core::{
    Boot, ConnectionId,
    ports::{Clock as _, Counter, Store},
};
use tokenkeep_engine::{
    Caller, Engine, Parts, PutIntegration, PutMode, PutTokens, Settings,
    catalogue::{Catalogue, parse_provider_toml},
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Outbound, Pacer, Pacing, TransportOptions},
};
use tokenkeep_services::{Postgres as PostgresServer, Redis as RedisServer};
use tokenkeep_store::{Memory, Postgres, PostgresOptions, RedisCounter, RedisOptions};
use tokenkeep_testkit::FakeApi;

/// What the provider allows in [`WINDOW`], by its own clock.
const ALLOWED: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Ten a second, and calls that are no more than a second late.
const PROVIDER: &str = "
id = \"limited\"
token_url = \"https://id.example.com/token\"

[api]
limits = [{ requests = 10, seconds = 1 }]
latency_margin = 1
";

/// An API that writes down when it was asked.
struct Watched {
    api: FakeApi,
    arrivals: Arc<Mutex<Vec<Boot>>>,
}

impl Watched {
    async fn start() -> Self {
        let arrivals = Arc::<Mutex<Vec<Boot>>>::default();
        let log = arrivals.clone();
        let api = FakeApi::start(move |_| {
            log.lock().unwrap().push(SystemClock.now().boot);
            std::future::ready(Response::default())
        });
        Self { api: api.await, arrivals }
    }

    /// The most that came in one window, wherever it begins.
    fn most(&self) -> usize {
        let arrivals = self.arrivals.lock().unwrap();
        let within = |first: Boot| arrivals.iter().filter(|at| **at >= first && at.since(first) < WINDOW).count();
        arrivals.iter().map(|first| within(*first)).max().unwrap_or(0)
    }

    fn seen(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }
}

async fn engine(seed: u64, store: Arc<dyn Store>, counter: Arc<dyn Counter>) -> Engine {
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let options = TransportOptions::default();
    let parts = Parts {
        store,
        bus: None,
        shared_cache: None,
        counter: Some(counter),
        barrier: barrier(seed),
        transport: Arc::new(HyperTransport::new(clock.clone(), pacer.clone(), &options).unwrap()),
        outbound: Some(Outbound::new(clock.clone(), &options).unwrap()),
        pacer: Some(pacer),
        catalogue: Catalogue::with(vec![parse_provider_toml("limited", PROVIDER).unwrap()]).unwrap(),
        journal_dir: None,
        clock,
        entropy,
    };
    let mut settings = Settings::new("http://localhost:7420".parse().unwrap());
    settings.proxy.max_wait = Duration::from_mins(1);
    Engine::start(parts, settings).await.unwrap()
}

/// A call to the provider, for one of three users.
async fn call(engine: Engine, n: usize) -> StatusCode {
    let request = Request::get("/v1/tickets").body(Empty::<Bytes>::new()).unwrap();
    engine.request(&Caller::Local, &user(n), request).await.unwrap().status()
}

fn user(n: usize) -> ConnectionId {
    format!("limited/acme/{}", n % 3).parse().unwrap()
}

/// Thirty-five calls at once, by three instances.
async fn they_stay_within_the_limit(store: Arc<dyn Store>, counters: Vec<Arc<dyn Counter>>) {
    let provider = Watched::start().await;
    let mut engines = Vec::new();
    for (seed, counter) in (1..).zip(counters) {
        engines.push(engine(seed, store.clone(), counter).await);
    }
    let integration = PutIntegration {
        client_id: "ours".to_owned(),
        api_hosts: vec![provider.api.host()],
        ..PutIntegration::default()
    };
    engines[0].integrations().put(&Caller::Local, &"limited".parse().unwrap(), integration).await.unwrap();
    for n in 0..3 {
        let tokens = PutTokens { access_token: Some("at".into()), ..bare() };
        engines[0].connections().put(&Caller::Local, &user(n), tokens, PutMode::default()).await.unwrap();
    }
    let calls: Vec<_> = (0..35).map(|n| tokio::spawn(call(engines[n % 3].clone(), n))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), StatusCode::OK, "everybody's turn comes");
    }
    assert_eq!((provider.seen(), provider.most()), (35, ALLOWED));
    for engine in engines {
        engine.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_over_one_redis_stay_within_the_limit() {
    let server = RedisServer::start().unwrap();
    let options = || RedisOptions::new(&server.url()).unwrap();
    let mut counters: Vec<Arc<dyn Counter>> = Vec::new();
    for _ in 0..3 {
        counters.push(Arc::new(RedisCounter::connect(options()).await.unwrap()));
    }
    they_stay_within_the_limit(Arc::new(Memory::new()), counters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_over_one_postgresql_stay_within_the_limit() {
    let server = PostgresServer::start().unwrap();
    let options = || PostgresOptions::new(server.url("postgres"));
    let mut counters: Vec<Arc<dyn Counter>> = Vec::new();
    for _ in 0..3 {
        counters.push(Arc::new(Postgres::connect(options()).await.unwrap().counter()));
    }
    let store = Postgres::connect(options()).await.unwrap();
    they_stay_within_the_limit(Arc::new(store), counters).await;
}
