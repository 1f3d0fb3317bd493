//! Several instances on one store: what one does, the others know in time, whatever becomes of bus and shared cache.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{MIN_TTL, World, alice, fake, put_fake, store_seeded};
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ConnectionId, Role, Rotation};
use tokenkeep_engine::{Caller, Engine, Error, HealthStatus, NewKey, Part, Ready};
use tokenkeep_testkit::{MemoryBus, MemoryCache};

/// Two instances, `one` and `two`, that share a store; and whatever else they share.
struct Pair {
    world: World,
    one: Engine,
    two: Engine,
}

/// Their lines to one bus.
struct Lines {
    one: MemoryBus,
    two: MemoryBus,
}

const STEP: Duration = Duration::from_millis(50);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Lets everything happen that can happen without time passing.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

async fn token_of(engine: &Engine, id: &ConnectionId) -> Result<Arc<Ready>, Error> {
    engine.connections().token(&Caller::Local, id, MIN_TTL).await
}

/// The value of a metric without labels.
fn metric(engine: &Engine, name: &str) -> u64 {
    let text = engine.metrics().render();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("tokenkeep_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn is_trusting(engine: &Engine) -> bool {
    metric(engine, "bus_trusting") == 1
}

impl Pair {
    async fn without_bus() -> Self {
        Self::start(World::new(Rotation::Strict).await, None).await
    }

    /// With a bus, and trusting it.
    async fn with_bus() -> (Self, Lines) {
        Self::in_world(World::new(Rotation::Strict).await).await
    }

    /// With a bus and a shared cache, and nothing owed to either.
    async fn with_cache() -> (Self, Lines, MemoryCache) {
        let mut world = World::new(Rotation::Strict).await;
        let cache = MemoryCache::new(&world.clock);
        world.shared_cache = Some(cache.clone());
        let (pair, lines) = Self::in_world(world).await;
        (pair, lines, cache)
    }

    async fn in_world(world: World) -> (Self, Lines) {
        let one = MemoryBus::default();
        let lines = Lines { two: one.attached(), one };
        let pair = Self::start(world, Some(&lines)).await;
        pair.pass(secs(3)).await;
        assert!(is_trusting(&pair.one) && is_trusting(&pair.two));
        (pair, lines)
    }

    async fn start(mut world: World, lines: Option<&Lines>) -> Self {
        world.bus = lines.map(|lines| lines.one.clone());
        let one = world.engine(1, None).await;
        world.bus = lines.map(|lines| lines.two.clone());
        let two = world.engine(2, None).await;
        one.integrations().put(&Caller::Local, &fake(), put_fake()).await.unwrap();
        store_seeded(&one, &world, &alice()).await;
        settle().await;
        Self { world, one, two }
    }

    async fn pass(&self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.world.clock.advance(STEP);
            settle().await;
        }
    }

    /// Reads alice's token on `two` until it is cached there and its age is `age`.
    async fn cached_on_two(&self, age: Duration) {
        token_of(&self.two, &alice()).await.unwrap();
        self.pass(age).await;
        assert!(self.is_cached_on_two());
    }

    fn is_cached_on_two(&self) -> bool {
        self.two.connections().cached("fake", "_default", "alice", MIN_TTL).is_some()
    }

    async fn delete_on_one(&self) {
        self.one.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
        settle().await;
    }

    async fn is_refused_on_two(&self) -> bool {
        !self.is_cached_on_two() && matches!(token_of(&self.two, &alice()).await, Err(Error::NotFound { .. }))
    }
}

#[tokio::test]
async fn with_a_bus_a_revoked_token_is_served_nowhere_after_a_second() {
    let (pair, _lines) = Pair::with_bus().await;
    pair.cached_on_two(secs(10)).await;
    pair.delete_on_one().await;
    assert!(pair.is_refused_on_two().await, "it does not even take the second");
}

#[tokio::test]
async fn without_a_bus_a_revoked_token_is_served_for_five_seconds_at_most() {
    let pair = Pair::without_bus().await;
    pair.cached_on_two(millis(50)).await;
    pair.delete_on_one().await;
    assert!(pair.is_cached_on_two(), "nobody told it");
    pair.pass(millis(4950)).await;
    assert!(pair.is_refused_on_two().await);
}

#[tokio::test]
async fn who_trusts_the_bus_leaves_the_store_alone() {
    let reads =
        |pair: &Pair| metric(&pair.two, "cache_l1_revalidations_total") + metric(&pair.two, "store_reads_total");
    let read_for_25_seconds = async |pair: &Pair| {
        pair.cached_on_two(Duration::ZERO).await;
        let before = reads(pair);
        for _ in 0..25 {
            pair.pass(secs(1)).await;
            token_of(&pair.two, &alice()).await.unwrap();
            settle().await;
        }
        reads(pair) - before
    };
    let (trusting, _lines) = Pair::with_bus().await;
    assert_eq!(read_for_25_seconds(&trusting).await, 0);
    assert!(read_for_25_seconds(&Pair::without_bus().await).await >= 5);
}

#[tokio::test]
async fn a_refresh_elsewhere_is_served_at_once() {
    let (pair, _lines) = Pair::with_bus().await;
    pair.cached_on_two(secs(10)).await;
    let refreshed = pair.one.connections().refresh(&Caller::Local, &alice(), None).await.unwrap();
    settle().await;
    let served = token_of(&pair.two, &alice()).await.unwrap();
    assert_eq!(served.generation, refreshed.generation);
    assert_eq!(served.token.expose_secret(), refreshed.token.expose_secret());
}

#[tokio::test]
async fn a_lost_message_is_missed_by_its_number() {
    let (pair, lines) = Pair::with_bus().await;
    pair.cached_on_two(secs(10)).await;
    lines.two.lose(1);
    pair.delete_on_one().await;
    assert!(pair.is_cached_on_two(), "the message was lost");
    pair.pass(secs(1)).await;
    assert!(pair.is_refused_on_two().await);
    assert_eq!(metric(&pair.two, "bus_messages_lost_total"), 1);
    pair.pass(secs(1)).await;
    assert!(is_trusting(&pair.two));
}

#[tokio::test]
async fn after_an_outage_of_the_broker_the_store_is_asked_what_was_changed() {
    let (pair, lines) = Pair::with_bus().await;
    // Read just now, so that only the catch-up can tell that it is gone.
    pair.cached_on_two(Duration::ZERO).await;
    lines.one.go_down();
    pair.delete_on_one().await;
    pair.pass(millis(600)).await;
    assert_eq!(pair.two.health().await.bus, Part::Unavailable);
    assert_eq!(pair.two.health().await.status, HealthStatus::Degraded);
    assert!(pair.is_cached_on_two());
    lines.one.come_up();
    pair.pass(secs(2)).await;
    assert!(is_trusting(&pair.two));
    assert_eq!(pair.two.health().await.bus, Part::Ok);
    assert!(pair.is_refused_on_two().await, "less than five seconds after it was read");
}

#[tokio::test]
async fn who_hears_nothing_any_more_asks_the_store() {
    let (pair, lines) = Pair::with_bus().await;
    pair.cached_on_two(secs(10)).await;
    // Not even the connection breaks: silence is all there is.
    lines.two.hold();
    pair.delete_on_one().await;
    pair.pass(millis(500)).await;
    assert!(pair.is_refused_on_two().await);
    assert!(!is_trusting(&pair.two));
    lines.two.release();
    pair.pass(secs(1)).await;
    assert!(is_trusting(&pair.two), "all of it came in the end");
}

#[tokio::test]
async fn who_does_not_hear_a_peer_asks_the_store() {
    let (pair, lines) = Pair::with_bus().await;
    pair.cached_on_two(secs(10)).await;
    lines.one.cut();
    pair.delete_on_one().await;
    pair.pass(millis(1500)).await;
    assert!(pair.is_refused_on_two().await);
    assert_eq!(pair.two.health().await.bus, Part::Unavailable);
    lines.one.mend();
    pair.pass(secs(8)).await;
    assert!(is_trusting(&pair.one) && is_trusting(&pair.two));
}

#[tokio::test]
async fn nobody_trusts_before_the_store_said_what_was_missed() {
    let (pair, lines) = Pair::with_bus().await;
    lines.one.go_down();
    pair.pass(secs(1)).await;
    pair.world.store.down.store(true, SeqCst);
    lines.one.come_up();
    pair.pass(secs(20)).await;
    assert!(!is_trusting(&pair.one) && !is_trusting(&pair.two));
    pair.world.store.down.store(false, SeqCst);
    pair.pass(secs(20)).await;
    assert!(is_trusting(&pair.one) && is_trusting(&pair.two));
}

#[tokio::test]
async fn who_leaves_in_order_is_not_waited_for() {
    let (pair, _lines) = Pair::with_bus().await;
    pair.one.shutdown(secs(1)).await;
    pair.pass(secs(5)).await;
    assert!(is_trusting(&pair.two));
    assert_eq!(pair.two.health().await.bus, Part::Ok);
}

#[tokio::test]
async fn whoever_has_the_broker_alone_can_say_nothing_and_read_nothing() {
    let (pair, lines) = Pair::with_bus().await;
    pair.cached_on_two(secs(10)).await;
    let bye = pair.one.instance();
    pair.one.connections().refresh(&Caller::Local, &alice(), None).await.unwrap();
    settle().await;
    let all = lines.one.published();
    assert!(!all.iter().any(|message| message.windows(5).any(|word| word == b"alice")));
    for message in all {
        lines.one.inject(&message);
        let mut forged = message.clone();
        *forged.last_mut().unwrap() ^= 1;
        lines.one.inject(&forged);
    }
    settle().await;
    assert!(metric(&pair.two, "bus_messages_foreign_total") > 0);
    assert_eq!(metric(&pair.two, "bus_messages_lost_total"), 0);
    assert_eq!(pair.one.instance(), bye);
    assert!(is_trusting(&pair.one) && is_trusting(&pair.two));
}

#[tokio::test]
async fn a_key_is_known_and_refused_everywhere_at_once() {
    let (pair, _lines) = Pair::with_bus().await;
    let new = NewKey { name: "app".to_owned(), role: Role::Admin, tenants: None, providers: None };
    let (key, secret) = pair.one.keys().create(&Caller::Local, new).await.unwrap();
    settle().await;
    assert!(pair.two.keys().authenticate(secret.expose_secret()).is_some());
    pair.one.keys().delete(&Caller::Local, &key.id).await.unwrap();
    settle().await;
    assert!(pair.two.keys().authenticate(secret.expose_secret()).is_none());
}

const COPY: &str = "token:_default/fake/alice";

#[tokio::test]
async fn a_copy_serves_without_the_store_and_shows_nothing() {
    let (pair, _lines, cache) = Pair::with_cache().await;
    assert_eq!(cache.keys(), [COPY]);
    let stored = token_of(&pair.one, &alice()).await.unwrap();
    let sealed = cache.sealed(COPY).unwrap();
    let secret = stored.token.expose_secret().as_bytes();
    assert!(!sealed.windows(secret.len()).any(|bytes| bytes == secret));

    // The integration's margin is known; the record is not read.
    let reads = metric(&pair.two, "store_reads_total");
    let served = token_of(&pair.two, &alice()).await.unwrap();
    assert_eq!(served.token.expose_secret(), stored.token.expose_secret());
    assert_eq!(served.expires_at, stored.expires_at);
    assert_eq!(metric(&pair.two, "store_reads_total"), reads);
    assert_eq!(metric(&pair.two, "cache_l2_hits_total"), 1);
}

#[tokio::test]
async fn a_copy_is_gone_with_its_connection_and_younger_with_it() {
    let (pair, _lines, cache) = Pair::with_cache().await;
    let refreshed = pair.one.connections().refresh(&Caller::Local, &alice(), None).await.unwrap();
    settle().await;
    assert_eq!(token_of(&pair.two, &alice()).await.unwrap().generation, refreshed.generation);
    assert_eq!(metric(&pair.two, "cache_l2_hits_total"), 1);
    pair.delete_on_one().await;
    assert_eq!(cache.keys(), [""; 0]);
    assert!(pair.is_refused_on_two().await);
}

#[tokio::test]
async fn without_trust_no_copy_is_believed() {
    let (pair, lines, _cache) = Pair::with_cache().await;
    lines.two.cut();
    pair.pass(secs(1)).await;
    token_of(&pair.two, &alice()).await.unwrap();
    assert_eq!(metric(&pair.two, "cache_l2_hits_total"), 0);
    assert_eq!(metric(&pair.two, "store_reads_total"), 1);
}

#[tokio::test]
async fn a_cache_that_hangs_is_waited_for_once_and_briefly() {
    let (pair, _lines, cache) = Pair::with_cache().await;
    let bob: ConnectionId = "fake/_default/bob".parse().unwrap();
    store_seeded(&pair.one, &pair.world, &bob).await;
    settle().await;
    cache.hang();
    let two = pair.two.clone();
    let reading = tokio::spawn(async move { token_of(&two, &alice()).await });
    settle().await;
    assert!(!reading.is_finished());
    pair.pass(millis(100)).await;
    assert!(reading.is_finished());
    reading.await.unwrap().unwrap();
    let two = pair.two.clone();
    let reading = tokio::spawn(async move { token_of(&two, &bob).await });
    settle().await;
    assert!(reading.is_finished(), "who is known to hang is not asked");
    reading.await.unwrap().unwrap();
    assert_eq!(pair.two.health().await.cache, Part::Unavailable);
    assert_eq!(pair.two.health().await.status, HealthStatus::Degraded);
    cache.come_up();
    pair.pass(secs(20)).await;
    assert_eq!(pair.two.health().await.cache, Part::Ok);
}

#[tokio::test]
async fn a_copy_that_outlived_its_connection_in_an_outage_is_never_served() {
    let (mut pair, lines, cache) = Pair::with_cache().await;
    pair.world.bus = Some(lines.one.attached());
    cache.go_down();
    pair.delete_on_one().await;
    pair.pass(millis(100)).await;
    cache.come_up();
    assert_eq!(cache.keys(), [COPY], "nobody could take it away");
    pair.pass(secs(60)).await;
    assert!(pair.is_refused_on_two().await);
    // Nor by an instance that was not there when it was deleted.
    let three = pair.world.engine(3, None).await;
    pair.pass(secs(3)).await;
    assert!(is_trusting(&three));
    assert!(matches!(token_of(&three, &alice()).await, Err(Error::NotFound { .. })));
    assert_eq!(cache.keys(), [COPY]);
    // Others are believed as ever.
    store_seeded(&pair.one, &pair.world, &alice()).await;
    settle().await;
    token_of(&pair.two, &alice()).await.unwrap();
    assert_eq!(metric(&pair.two, "cache_l2_hits_total"), 1);
}

#[tokio::test]
async fn a_copy_that_was_not_replaced_in_an_outage_is_never_served() {
    let (pair, _lines, cache) = Pair::with_cache().await;
    cache.go_down();
    let refreshed = pair.one.connections().refresh(&Caller::Local, &alice(), None).await.unwrap();
    settle().await;
    cache.come_up();
    pair.pass(secs(2)).await;
    assert_eq!(token_of(&pair.two, &alice()).await.unwrap().generation, refreshed.generation);
    assert_eq!(metric(&pair.two, "cache_l2_hits_total"), 0);
}

#[tokio::test]
async fn a_copy_that_was_recorded_cannot_be_played_back_later() {
    let (pair, _lines, cache) = Pair::with_cache().await;
    let recorded = cache.sealed(COPY).unwrap();
    pair.delete_on_one().await;
    pair.pass(secs(301)).await;
    cache.empty();
    cache.inject(COPY, 99, &recorded);
    assert!(is_trusting(&pair.two));
    assert!(pair.is_refused_on_two().await);
}

#[tokio::test]
async fn an_emptied_cache_costs_nothing_but_reads() {
    let (pair, _lines, cache) = Pair::with_cache().await;
    cache.empty();
    token_of(&pair.two, &alice()).await.unwrap();
    settle().await;
    assert_eq!(metric(&pair.two, "store_reads_total"), 1);
    assert_eq!(cache.keys(), [COPY], "filled again");
}

#[tokio::test]
async fn no_cache_without_a_bus() {
    let mut world = World::new(Rotation::Strict).await;
    let cache = MemoryCache::new(&world.clock);
    world.shared_cache = Some(cache.clone());
    let pair = Pair::start(world, None).await;
    token_of(&pair.two, &alice()).await.unwrap();
    settle().await;
    assert_eq!(cache.keys(), [""; 0]);
    let health = pair.two.health().await;
    assert_eq!((health.bus, health.cache, health.status), (Part::None, Part::None, HealthStatus::Ready));
}
