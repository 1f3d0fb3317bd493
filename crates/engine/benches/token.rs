//! What a cached token costs in process, beside a bare moka look-up of the same key.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tokenkeep_core::ConnectionId;
use tokenkeep_engine::{
    Caller, Engine, Given, Parts, PutMode, PutTokens, Settings,
    barrier::{Barrier, RootKey},
    catalogue::Catalogue,
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Pacer, Pacing, TransportOptions},
};
use tokenkeep_store::Memory;

const CONNECTIONS: usize = 10_000;

async fn engine() -> Engine {
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SystemEntropy);
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let transport =
        HyperTransport::new(clock.clone(), pacer.clone(), &TransportOptions::default()).expect("no CA file");
    let parts = Parts {
        store: Arc::new(Memory::new()),
        bus: None,
        shared_cache: None,
        counter: None,
        barrier: Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone()),
        transport: Arc::new(transport),
        outbound: None,
        pacer: Some(pacer),
        catalogue: Catalogue::builtin(),
        journal_dir: None,
        clock,
        entropy,
    };
    let mut settings = Settings::new("http://localhost:7420".parse().expect("a URL"));
    // What is measured is the hit, not the look at the store behind it.
    settings.cache_soft_life = Duration::from_hours(1);
    let engine = Engine::start(parts, settings).await.expect("an empty store");
    for n in 0..CONNECTIONS {
        let tokens = PutTokens {
            access_token: Some(
                "ya29.a0Ae4lvC0123456789012345678901234567890123456789012345678901234567890123456789".into(),
            ),
            refresh_token: Given::Absent,
            expires_at: Some("2100-01-01T00:00:00Z".parse().expect("a time")),
            scope: None,
            token_type: None,
            display_name: None,
        };
        engine.connections().put(&Caller::Local, &id(n), tokens, PutMode::default()).await.expect("stored");
    }
    engine
}

fn id(n: usize) -> ConnectionId {
    format!("google/_default/subject-{n}").parse().expect("an id")
}

fn token(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(engine());
    let wanted = id(4711);
    let (integration, tenant, subject) = (wanted.integration.as_str(), wanted.tenant.as_str(), wanted.subject.as_str());
    let min_ttl = Duration::from_secs(60);
    let bare: moka::sync::Cache<ConnectionId, Arc<str>> = moka::sync::Cache::new(1_000_000);
    for n in 0..CONNECTIONS {
        bare.insert(id(n), "a body".into());
    }

    let mut group = c.benchmark_group("L1 hit");
    group.bench_function("a bare moka get", |b| b.iter(|| black_box(bare.get(black_box(&wanted)))));
    group.bench_function("connections.cached()", |b| {
        b.iter(|| black_box(engine.connections().cached(integration, tenant, subject, min_ttl)));
    });
    group.bench_function("connections.token()", |b| {
        b.to_async(Now)
            .iter(|| async { engine.connections().token(&Caller::Local, black_box(&wanted), min_ttl).await });
    });
    group.finish();
    let hits = engine.connections().cached(integration, tenant, subject, min_ttl);
    assert!(hits.is_some(), "what was measured was not a hit");
}

/// Polls a future that must be ready at once: a hit waits for nothing.
struct Now;

impl criterion::async_executor::AsyncExecutor for Now {
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => unreachable!("a hit does not wait"),
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(Duration::from_secs(3));
    targets = token
}
criterion_main!(benches);
