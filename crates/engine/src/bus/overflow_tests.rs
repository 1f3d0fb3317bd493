use std::{sync::Arc, time::Duration};

use tokenkeep_core::{ConnectionId, Generation, Incarnation, id::Ulid, ports::Clock as _, time::after};
use tokenkeep_store::Memory;
use tokenkeep_testkit::{ManualClock, MemoryBus, SeededEntropy};

use super::{Event, QUEUE};
use crate::{
    Caller, Engine, Error, Given, Parts, PutMode, PutTokens, Settings,
    barrier::{Barrier, RootKey},
    catalogue::{Catalogue, parse_provider_toml},
    transport::{HyperTransport, Pacer, Pacing, TransportOptions},
};

const MIN_TTL: Duration = Duration::from_secs(60);

fn alice() -> ConnectionId {
    "fake/_default/alice".parse().unwrap()
}

/// One more instance on `store`.
async fn engine(seed: u64, store: &Arc<Memory>, bus: MemoryBus, clock: &Arc<ManualClock>) -> Engine {
    let entropy = Arc::new(SeededEntropy::new(seed));
    let root = RootKey::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap();
    let provider = parse_provider_toml(
        "fake",
        "id = \"fake\"\ndisplay_name = \"Fake\"\nauthorize_url = \"https://fake.example/authorize\"\n\
         token_url = \"https://fake.example/token\"\n",
    );
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let transport = HyperTransport::new(clock.clone(), pacer.clone(), &TransportOptions::default()).unwrap();
    let parts = Parts {
        store: store.clone(),
        bus: Some(Arc::new(bus)),
        shared_cache: None,
        counter: None,
        barrier: Barrier::new(&root, &[], entropy.clone()),
        transport: Arc::new(transport),
        outbound: None,
        pacer: Some(pacer),
        catalogue: Catalogue::with(vec![provider.unwrap()]).unwrap(),
        journal_dir: None,
        clock: clock.clone(),
        entropy,
    };
    Engine::start(parts, Settings::new("http://localhost:7420".parse().unwrap())).await.unwrap()
}

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

async fn pass(clock: &ManualClock, time: Duration) {
    let step = Duration::from_millis(50);
    for _ in 0..time.as_millis() / step.as_millis() {
        clock.advance(step);
        settle().await;
    }
}

#[tokio::test]
async fn what_the_queue_cannot_take_the_others_ask_the_store_for() {
    let (clock, store, bus) = (Arc::new(ManualClock::default()), Arc::default(), MemoryBus::default());
    let one = engine(1, &store, bus.clone(), &clock).await;
    let two = engine(2, &store, bus.attached(), &clock).await;
    let tokens = PutTokens {
        access_token: Some("at".into()),
        refresh_token: Given::Absent,
        expires_at: Some(after(clock.now().wall, Duration::from_hours(1))),
        scope: None,
        token_type: None,
        display_name: None,
    };
    one.connections().put(&Caller::Local, &alice(), tokens, PutMode::default()).await.unwrap();
    pass(&clock, Duration::from_secs(3)).await;
    two.connections().token(&Caller::Local, &alice(), MIN_TTL).await.unwrap();
    let is_cached = || two.connections().cached("fake", "_default", "alice", MIN_TTL).is_some();
    pass(&clock, Duration::from_secs(10)).await;
    assert!(is_cached(), "the bus is trusted");

    // Nobody else runs from here on, so nothing of it is told yet.
    let shared = &one.connections().shared;
    for n in 0..QUEUE {
        shared.bus.send(Event::Changed {
            connection: format!("fake/_default/{n}").parse().unwrap(),
            incarnation: Incarnation(Ulid(1)),
            generation: Generation(1),
        });
    }
    one.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
    let queue = &shared.bus.line.as_ref().unwrap().queue;
    assert_eq!(queue.capacity(), 0, "so that the deletion found no room in it");
    assert!(is_cached(), "it has not been told");

    pass(&clock, Duration::from_secs(1)).await;
    assert!(!is_cached());
    assert!(matches!(two.connections().token(&Caller::Local, &alice(), MIN_TTL).await, Err(Error::NotFound { .. })));
    assert!(two.metrics().render().contains("tokenkeep_bus_messages_lost_total 1\n"), "{}", two.metrics().render());
}
