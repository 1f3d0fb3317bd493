//! Replies that the store could not take, and instances that never come back with them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{MIN_TTL, Mortal, Switchable, World, alice, fake, put_fake, store_seeded};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokenkeep_core::{Rotation, ports::Clock as _, refresh::Obstacle};
use tokenkeep_engine::{Caller, Engine, Error, PutMode, PutTokens, Ready};
use tokenkeep_testkit::{MemoryBus, MemoryCache};

/// Short enough that nobody who can hear the bus takes it for silent.
const STEP: Duration = Duration::from_millis(100);
/// How long a strict provider's refresh token is not spent a second time without a word of its owner: the lease, and
/// the silence.
const PATIENCE: Duration = Duration::from_secs(135);
const HELD: &str = "held:_default/fake/alice";

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn token(engine: &Engine) -> Result<Arc<Ready>, Error> {
    engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await
}

/// Lets everything happen that can happen without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// What two instances share, and each one's own way to it.
struct Scene {
    world: World,
    other: Engine,
    /// The refresh token that the owner spent.
    seed: String,
    owner: Line,
    others_bus: Option<MemoryBus>,
    cache: Option<MemoryCache>,
}

/// How the owner reaches what it shares with the other.
struct Line {
    store: Arc<Switchable>,
    bus: Option<MemoryBus>,
}

#[derive(Clone, Copy)]
struct Shares {
    bus: bool,
    cache: bool,
}

const BOTH: Shares = Shares { bus: true, cache: true };
const BUS: Shares = Shares { bus: true, cache: false };

impl Scene {
    /// Two instances' lines, and the other instance.
    async fn new(shares: Shares) -> Self {
        let mut world = World::new(Rotation::Strict).await;
        world.shared_cache = shares.cache.then(|| MemoryCache::new(&world.clock));
        world.bus = shares.bus.then(MemoryBus::default);
        let other = world.engine(2, None).await;
        other.integrations().put(&Caller::Local, &fake(), put_fake()).await.unwrap();
        let seed = store_seeded(&other, &world, &alice()).await;
        let owner = Line { store: Arc::new(world.store.attached()), bus: world.bus.as_ref().map(MemoryBus::attached) };
        Self { others_bus: world.bus.clone(), cache: world.shared_cache.clone(), world, other, seed, owner }
    }

    /// The world as the owner is started in it.
    fn turn_to_owner(&mut self) {
        self.world.bus.clone_from(&self.owner.bus);
        std::mem::swap(&mut self.world.store, &mut self.owner.store);
    }

    fn turn_to_other(&mut self) {
        self.world.bus.clone_from(&self.others_bus);
        std::mem::swap(&mut self.world.store, &mut self.owner.store);
    }

    /// Refreshes an expired token by `read`, which reads at the owner. When the reply comes, the owner has lost the
    /// store; before, nobody else had it.
    async fn lose_store_over_reply<T>(&self, read: impl Future<Output = T>) -> T {
        self.world.store.down.store(true, SeqCst);
        self.world.clock.advance(Duration::from_hours(2));
        let gate = self.world.provider.hold_reply();
        let lose = async {
            gate.arrived().await;
            self.owner.store.down.store(true, SeqCst);
            gate.release();
        };
        let (read, ()) = tokio::join!(read, lose);
        self.world.store.down.store(false, SeqCst);
        assert_eq!(self.world.provider.calls(), 1);
        read
    }

    /// An owner that was killed for good, its journal with it, while it held the reply. What the reply brought.
    async fn owner_lost(shares: Shares) -> (Self, String) {
        let mut scene = Self::new(shares).await;
        let dir = TempDir::new().unwrap();
        scene.turn_to_owner();
        let mortal: Mortal = scene.world.mortal(1, Some(dir.path().to_owned())).await;
        scene.turn_to_other();
        let engine = mortal.engine.clone();
        // It runs in threads of its own, and must not begin before the token is expired.
        let reader = async { mortal.run(async move { token(&engine).await }).await };
        let ready = scene.lose_store_over_reply(reader).await.unwrap().unwrap();
        if let Some(cache) = &scene.cache {
            while cache.sealed(HELD).is_none() {
                tokio::task::yield_now().await;
            }
        }
        mortal.kill(dir.path()).await;
        settle().await;
        (scene, ready.token.expose_secret().to_owned())
    }

    /// An owner that holds the reply and lives, and goes on without the store.
    async fn owner_cut_off(shares: Shares) -> (Self, Engine, TempDir) {
        let mut scene = Self::new(shares).await;
        let dir = TempDir::new().unwrap();
        scene.turn_to_owner();
        let owner = scene.world.engine(1, Some(dir.path().to_owned())).await;
        scene.turn_to_other();
        scene.lose_store_over_reply(token(&owner)).await.unwrap();
        settle().await;
        (scene, owner, dir)
    }

    async fn pass(&self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.world.clock.advance(STEP);
            settle().await;
        }
    }

    /// What the other serves, however long it waits.
    async fn read(&self) -> Result<Arc<Ready>, Error> {
        let other = self.other.clone();
        let reading = tokio::spawn(async move { token(&other).await });
        while !reading.is_finished() {
            self.pass(STEP).await;
        }
        reading.await.unwrap()
    }

    /// What the other serves once it takes the owner's lease for ended. (If it heard a beacon, it need not wait.)
    async fn read_in_the_end(&self) -> Arc<Ready> {
        match self.read().await {
            Ok(ready) => ready,
            Err(_) => {
                self.pass(secs(15)).await;
                self.read().await.unwrap()
            }
        }
    }

    /// Why the other does not spend.
    async fn obstacle(&self) -> &'static str {
        match self.read().await {
            Err(Error::Unresolved { detail, .. }) => detail,
            read => panic!("{read:?}"),
        }
    }

    /// On the boot clock.
    fn time(&self) -> Duration {
        self.world.clock.now().boot.0
    }

    fn since(&self, began: Duration) -> Duration {
        self.time().saturating_sub(began)
    }

    fn spends(&self) -> u32 {
        self.world.provider.spends(&self.seed)
    }

    /// Nothing is spent for `time`, whoever asks.
    async fn nothing_is_spent_for(&self, time: Duration) {
        let began = self.time();
        while self.since(began) < time {
            self.read().await.unwrap_err();
            self.pass(secs(1)).await;
            assert_eq!(self.spends(), 1);
        }
    }
}

#[tokio::test]
async fn what_an_instance_left_when_it_was_killed_for_good_is_finished_by_another() {
    let (scene, brought) = Scene::owner_lost(BOTH).await;
    let cache = scene.cache.as_ref().unwrap();
    let sealed = cache.sealed(HELD).unwrap();
    for secret in [brought.as_str(), scene.seed.as_str(), "alice"] {
        assert!(!sealed.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} shows in the copy");
    }
    assert_eq!(scene.read_in_the_end().await.token.expose_secret(), &brought);
    assert_eq!((scene.world.provider.calls(), scene.spends()), (1, 1));
    settle().await;
    assert_eq!(cache.sealed(HELD), None, "a copy of what is stored is of no use");
    scene.world.clock.advance(Duration::from_hours(2));
    scene.read().await.unwrap();
    assert_eq!(scene.world.provider.calls(), 2, "life goes on");
}

#[tokio::test]
async fn without_a_copy_it_is_unresolved_and_nothing_is_spent_before_its_time() {
    let (scene, _) = Scene::owner_lost(BOTH).await;
    scene.cache.as_ref().unwrap().empty();
    // Its last beacon may have been the last thing it did.
    scene.nothing_is_spent_for(secs(122)).await;
    assert_eq!(scene.obstacle().await, Obstacle::OwnerMayReturn.detail());
    scene.nothing_is_spent_for(PATIENCE.saturating_sub(secs(127))).await;
    scene.pass(secs(30)).await;
    let read = scene.read().await;
    assert!(matches!(&read, Err(Error::ReauthRequired { reason, .. }) if reason == "refresh_token_spent"), "{read:?}");
    assert_eq!(scene.spends(), 2);
}

#[tokio::test]
async fn while_the_shared_cache_is_silent_nobody_says_that_there_is_no_copy() {
    let (scene, brought) = Scene::owner_lost(BOTH).await;
    let cache = scene.cache.as_ref().unwrap();
    cache.go_down();
    scene.nothing_is_spent_for(PATIENCE * 2).await;
    assert_eq!(scene.obstacle().await, Obstacle::CopyUnknown.detail());
    cache.hang();
    assert_eq!(scene.obstacle().await, Obstacle::CopyUnknown.detail());
    cache.come_up();
    assert_eq!(scene.read().await.unwrap().token.expose_secret(), &brought);
    assert_eq!(scene.spends(), 1);
}

#[tokio::test]
async fn a_copy_that_cannot_be_read_is_not_taken_for_none() {
    let (scene, _) = Scene::owner_lost(BOTH).await;
    scene.cache.as_ref().unwrap().inject(HELD, 9, b"not what was sealed here");
    scene.nothing_is_spent_for(PATIENCE * 2).await;
    assert_eq!(scene.obstacle().await, Obstacle::CopyUnknown.detail());
}

#[tokio::test]
async fn as_long_as_an_owner_says_that_it_holds_the_reply_nobody_spends() {
    let (scene, owner, _dir) = Box::pin(Scene::owner_cut_off(BUS)).await;
    scene.nothing_is_spent_for(PATIENCE * 2).await;
    assert_eq!(scene.obstacle().await, Obstacle::ReplyElsewhere.detail());
    scene.owner.store.down.store(false, SeqCst);
    scene.pass(secs(6)).await;
    let (ours, theirs) = (scene.read().await.unwrap(), token(&owner).await.unwrap());
    assert_eq!(ours.token.expose_secret(), theirs.token.expose_secret());
    assert_eq!(scene.world.provider.calls(), 1);
}

#[tokio::test]
async fn an_owner_that_cannot_reach_the_store_is_helped_at_once() {
    let (scene, owner, _dir) = Box::pin(Scene::owner_cut_off(BOTH)).await;
    let waited = scene.time();
    let ours = scene.read().await.unwrap();
    assert!(scene.since(waited) < secs(6), "its beacon spares the lease");
    assert_eq!(ours.token.expose_secret(), token(&owner).await.unwrap().token.expose_secret());
    scene.owner.store.down.store(false, SeqCst);
    scene.pass(secs(6)).await;
    assert_eq!(scene.world.provider.calls(), 1);
}

#[tokio::test]
async fn whoever_was_deaf_begins_to_count_the_silence_anew() {
    let (scene, _owner, _dir) = Box::pin(Scene::owner_cut_off(BUS)).await;
    scene.owner.bus.as_ref().unwrap().cut();
    let bus = scene.others_bus.as_ref().unwrap();
    bus.cut();
    scene.nothing_is_spent_for(PATIENCE * 2).await;
    assert_eq!(scene.obstacle().await, Obstacle::OwnerMayReturn.detail());
    bus.mend();
    scene.nothing_is_spent_for(secs(110)).await;
    scene.pass(secs(20)).await;
    scene.read().await.unwrap_err();
    assert_eq!(scene.spends(), 2, "a silence that was listened to counts");
}

#[tokio::test]
async fn what_the_user_replaced_is_not_brought_back_by_a_copy() {
    let (scene, _) = Scene::owner_lost(BOTH).await;
    let issued = scene.world.provider.seed("alice");
    let tokens = PutTokens {
        access_token: Some(issued.access_token.as_str().into()),
        refresh_token: tokenkeep_engine::Given::Value(issued.refresh_token.unwrap().into()),
        expires_at: Some(tokenkeep_core::time::after(common::now(&scene.world), Duration::from_hours(1))),
        ..common::bare()
    };
    scene.other.connections().put(&Caller::Local, &alice(), tokens, PutMode::default()).await.unwrap();
    settle().await;
    assert_eq!(scene.cache.as_ref().unwrap().sealed(HELD), None);
    assert_eq!(scene.read().await.unwrap().token.expose_secret(), &issued.access_token);
}
