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
use common::{TestEngine, World, alice, bare, barrier, fake, put_fake, store_seeded};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokenkeep_core::{
    Boot, ConnectionId, Credentials, Rotation,
    ports::{BoxFuture, Clock as _, Counter, CounterError, Limit, Store, Taken},
};
use tokenkeep_engine::{
    Caller, Engine, Error, GivenCredentials, Parts, PutIntegration, PutMode, PutTokens, Settings,
    catalogue::{Catalogue, parse_provider_toml},
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Outbound, Pacer, Pacing, TransportOptions},
};
use tokenkeep_services::{Postgres as PostgresServer, Redis as RedisServer};
use tokenkeep_store::{Memory, MemoryCounter, Postgres, PostgresOptions, RedisCounter, RedisOptions};
use tokenkeep_testkit::FakeApi;
use tokio::{sync::Semaphore, task::JoinHandle};

/// What the provider allows in [`WINDOW`], by its own clock.
const ALLOWED: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Ten a second, and calls that are no more than a second late.
const LIMITS: &str = "
[api]
limits = [{ requests = 10, seconds = 1 }]
latency_margin = 1
logins_count = true
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
            // Good for a login, too.
            std::future::ready(Response::new("{\"token\": \"at\"}".into()))
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

async fn engine(seed: u64, store: Arc<dyn Store>, counter: Arc<dyn Counter>, provider: &str) -> Engine {
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
        catalogue: Catalogue::with(vec![parse_provider_toml("limited", provider).unwrap()]).unwrap(),
        journal_dir: None,
        clock,
        entropy,
    };
    let mut settings = Settings::new("http://localhost:7420".parse().unwrap());
    settings.proxy.max_wait = Duration::from_mins(1);
    Engine::start(parts, settings).await.unwrap()
}

/// A call to the provider.
async fn call(engine: Engine, id: ConnectionId) -> StatusCode {
    let request = Request::get("/v1/tickets").body(Empty::<Bytes>::new()).unwrap();
    engine.request(&Caller::Local, &id, request).await.unwrap().status()
}

fn user(n: usize) -> ConnectionId {
    format!("limited/acme/{n}").parse().unwrap()
}

/// Thirty-five calls at once, by three instances.
async fn they_stay_within_the_limit(store: Arc<dyn Store>, counters: Vec<Arc<dyn Counter>>) {
    let provider = Watched::start().await;
    let entry = format!("id = \"limited\"\ntoken_url = \"https://id.example.com/token\"\n{LIMITS}");
    let mut engines = Vec::new();
    for (seed, counter) in (1..).zip(counters) {
        engines.push(engine(seed, store.clone(), counter, &entry).await);
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
    let calls: Vec<_> = (0..35).map(|n| tokio::spawn(call(engines[n % 3].clone(), user(n % 3)))).collect();
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
    they_stay_within_the_limit(Arc::new(Memory::new()), counters(&server).await).await;
}

async fn counters(server: &RedisServer) -> Vec<Arc<dyn Counter>> {
    let mut counters: Vec<Arc<dyn Counter>> = Vec::new();
    for _ in 0..3 {
        let options = RedisOptions::new(&server.url()).unwrap();
        counters.push(Arc::new(RedisCounter::connect(options).await.unwrap()));
    }
    counters
}

/// Eight users without a token, at three instances: sixteen requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_are_counted_where_the_provider_counts_them() {
    let server = RedisServer::start().unwrap();
    let provider = Watched::start().await;
    let (host, store) = (provider.api.host(), Arc::new(Memory::new()));
    let entry = format!(
        "id = \"limited\"\nkind = \"login\"\napi_hosts = [\"{}\"]\ndefault_lifetime = 3600\n{LIMITS}\
         [login]\nurl = \"{host}/login\"\ntoken = \"/token\"\n",
        provider.api.authority()
    );
    let mut engines = Vec::new();
    for (seed, counter) in (1..).zip(counters(&server).await) {
        engines.push(engine(seed, store.clone(), counter, &entry).await);
    }
    let integration = PutIntegration { api_hosts: vec![host], ..PutIntegration::default() };
    engines[0].integrations().put(&Caller::Local, &"limited".parse().unwrap(), integration).await.unwrap();
    for n in 0..8 {
        let credentials = Credentials::Password { username: "u".to_owned(), password: "p".into() };
        let given = GivenCredentials { credentials, ttl: None, display_name: None };
        let connections = engines[0].connections();
        connections.put_credentials(&Caller::Local, &user(n), given, PutMode::default(), false).await.unwrap();
    }
    let calls: Vec<_> = (0..8).map(|n| tokio::spawn(call(engines[n % 3].clone(), user(n)))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), StatusCode::OK);
    }
    assert_eq!((provider.seen(), provider.most()), (16, ALLOWED));
    for engine in engines {
        engine.shutdown(Duration::ZERO).await;
    }
}

/// An engine and a clock that is told the time, and an API that answers as told.
struct Told {
    t: TestEngine,
    api: FakeApi,
    answer: Arc<Mutex<(u16, &'static str)>>,
}

impl Told {
    async fn new() -> Self {
        let answer = Arc::new(Mutex::new((200, "")));
        let told = answer.clone();
        let api = FakeApi::start(move |_| {
            let (status, retry_after) = *told.lock().unwrap();
            let mut reply = Response::builder().status(status);
            if !retry_after.is_empty() {
                reply = reply.header("retry-after", retry_after);
            }
            std::future::ready(reply.body("".into()).unwrap())
        });
        let (t, api) = (TestEngine::new(Rotation::Strict).await, api.await);
        let integration = PutIntegration { api_hosts: vec![api.host()], ..put_fake() };
        t.engine.integrations().put(&Caller::Local, &fake(), integration).await.unwrap();
        store_seeded(&t.engine, &t.world, &bob()).await;
        Self { t, api, answer }
    }

    /// The API answers like this from now on.
    fn answers(&self, status: u16, retry_after: &'static str) {
        *self.answer.lock().unwrap() = (status, retry_after);
    }

    async fn call(&self, id: ConnectionId) -> Result<u16, Error> {
        let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        Ok(self.t.engine.request(&Caller::Local, &id, request).await?.status().as_u16())
    }
}

fn bob() -> ConnectionId {
    "fake/_default/bob".parse().unwrap()
}

#[tokio::test]
async fn an_api_that_fails_is_left_alone_until_one_call_finds_that_it_is_back() {
    let told = Told::new().await;
    for (status, times) in [(503, 4), (404, 1), (500, 4), (200, 1), (502, 5)] {
        told.answers(status, "");
        for _ in 0..times {
            assert_eq!(told.call(alice()).await.unwrap(), status, "it is told as it is");
        }
    }
    let refused = told.call(bob()).await.unwrap_err();
    assert!(matches!(refused, Error::ProviderUnavailable { .. }), "{refused:?}");
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(10)));
    assert_eq!(told.api.asked().len(), 15, "nobody asked it");
    told.t.world.clock.advance(Duration::from_secs(10));
    assert_eq!(told.call(bob()).await.unwrap(), 502);
    assert!(told.call(alice()).await.is_err());
    told.t.world.clock.advance(Duration::from_secs(10));
    told.answers(200, "");
    assert_eq!([told.call(bob()).await.unwrap(), told.call(alice()).await.unwrap()], [200, 200]);
}

#[tokio::test]
async fn what_a_caller_can_provoke_by_a_word_of_theirs_is_no_failure() {
    let told = Told::new().await;
    for status in [501, 505, 501, 505, 501, 505] {
        told.answers(status, "");
        assert_eq!(told.call(alice()).await.unwrap(), status);
    }
    told.answers(200, "");
    assert_eq!(told.call(bob()).await.unwrap(), 200);
}

/// A counter that takes its time, as one over a network does.
#[derive(Debug)]
struct Distant(MemoryCounter);

impl Counter for Distant {
    fn take<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<Taken, CounterError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.0.take(bucket, limit).await
        })
    }

    fn give_back<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<(), CounterError>> {
        self.0.give_back(bucket, limit)
    }
}

/// An engine that waits so long for this limit, and an API that answers with this status once it has a permit.
struct Limited {
    t: TestEngine,
    api: FakeApi,
    answer: Arc<Mutex<u16>>,
    permits: Arc<Semaphore>,
}

impl Limited {
    async fn new(limit: &str, max_wait: Duration) -> Self {
        let (answer, permits) = (Arc::new(Mutex::new(503)), Arc::new(Semaphore::new(5)));
        let (told, gate) = (answer.clone(), permits.clone());
        let api = FakeApi::start(move |_| {
            let (told, gate) = (told.clone(), gate.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                let status = *told.lock().unwrap();
                Response::builder().status(status).body("".into()).unwrap()
            }
        })
        .await;
        let mut world = World::new(Rotation::Strict).await;
        let entry =
            format!("id = \"limited\"\ntoken_url = \"https://id.example.com/token\"\n[api]\nlimits = [{limit}]\n");
        world.providers.push(parse_provider_toml("limited", &entry).unwrap());
        world.counter = Some(Arc::new(Distant(MemoryCounter::new(world.clock.clone()))));
        let (parts, mut settings) = world.parts(1, None);
        settings.proxy.max_wait = max_wait;
        let engine = Engine::start(parts, settings).await.unwrap();
        let put = PutIntegration { api_hosts: vec![api.host()], ..put_fake() };
        engine.integrations().put(&Caller::Local, &fake(), put.clone()).await.unwrap();
        let seed = store_seeded(&engine, &world, &alice()).await;
        let put = PutIntegration { provider: None, ..put };
        engine.integrations().put(&Caller::Local, &"limited".parse().unwrap(), put).await.unwrap();
        let tokens = PutTokens { access_token: Some("at".into()), ..bare() };
        engine.connections().put(&Caller::Local, &user(1), tokens, PutMode::default()).await.unwrap();
        Self { t: TestEngine { world, engine, seed }, api, answer, permits }
    }

    fn call(&self, id: ConnectionId) -> JoinHandle<Result<u16, &'static str>> {
        let engine = self.t.engine.clone();
        tokio::spawn(async move {
            let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
            let reply = engine.request(&Caller::Local, &id, request).await;
            reply.map(|reply| reply.status().as_u16()).map_err(|error| error.code())
        })
    }
}

#[tokio::test]
async fn whoever_is_refused_because_the_api_fails_takes_nothing_from_its_limit() {
    let limited = Limited::new("{ requests = 10, seconds = 1 }", Duration::ZERO).await;
    for _ in 0..5 {
        assert_eq!(limited.call(user(1)).await.unwrap(), Ok(503));
    }
    limited.t.world.clock.advance(Duration::from_secs(10));
    *limited.answer.lock().unwrap() = 200;
    let mut calls = (0..10).map(|_| limited.call(user(1))).collect::<Vec<_>>().into_iter();
    let probe = calls.next().unwrap();
    for refused in calls {
        assert_eq!(refused.await.unwrap(), Err("provider_unavailable"));
    }
    limited.permits.add_permits(10);
    assert_eq!(probe.await.unwrap(), Ok(200));
    for _ in 0..9 {
        assert_eq!(limited.call(user(1)).await.unwrap(), Ok(200));
    }
    assert_eq!(limited.call(user(1)).await.unwrap(), Err("too_many_requests"));
    assert_eq!(limited.api.asked().len(), 5 + 1 + 9);
}

#[tokio::test]
async fn whoever_waited_for_a_limit_and_finds_that_the_api_fails_gives_back_what_they_got() {
    let limited = Limited::new("{ requests = 1, seconds = 60 }", Duration::from_secs(45)).await;
    let clock = &limited.t.world.clock;
    assert_eq!(limited.call(user(1)).await.unwrap(), Ok(503));
    clock.advance(Duration::from_secs(55));
    let waiting = limited.call(user(1));
    limited.permits.add_permits(10);
    for _ in 0..4 {
        assert_eq!(limited.call(alice()).await.unwrap(), Ok(503));
    }
    clock.advance(Duration::from_secs(5));
    assert_eq!(waiting.await.unwrap(), Err("provider_unavailable"));
    clock.advance(Duration::from_secs(10));
    *limited.answer.lock().unwrap() = 200;
    assert_eq!(limited.call(user(1)).await.unwrap(), Ok(200));
}

#[tokio::test]
async fn whom_the_provider_asks_to_wait_waits() {
    let told = Told::new().await;
    told.answers(429, "30");
    assert_eq!(told.call(alice()).await.unwrap(), 429, "it is told as it is");
    told.answers(200, "");
    let refused = told.call(alice()).await.unwrap_err();
    assert!(matches!(refused, Error::TooMany { .. }), "{refused:?}");
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(30)));
    assert_eq!(told.call(bob()).await.unwrap(), 200, "nobody else does");
    told.t.world.clock.advance(Duration::from_secs(25));
    let waiting = told.call(alice());
    let clock = told.t.world.clock.clone();
    let (waited, ()) = tokio::join!(waiting, async {
        clock.sleepers(1).await;
        clock.advance(Duration::from_secs(5));
    });
    assert_eq!(waited.unwrap(), 200);
    assert_eq!(told.api.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_over_one_postgresql_stay_within_the_limit() {
    // Thirty grants are to be made in a second, each a commit: whether they survive is asked elsewhere.
    let server = PostgresServer::options().without_fsync().start().unwrap();
    let options = || PostgresOptions::new(server.url("postgres"));
    let mut counters: Vec<Arc<dyn Counter>> = Vec::new();
    for _ in 0..3 {
        counters.push(Arc::new(Postgres::connect(options()).await.unwrap().counter()));
    }
    let store = Postgres::connect(options()).await.unwrap();
    they_stay_within_the_limit(Arc::new(store), counters).await;
}
