//! Several instances on one store: who is there, who is gone, and what is left of them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{MIN_TTL, Mortal, TestEngine, World, alice, fake, put_fake, store_seeded};
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ConnectionId, Generation, InstanceId, Rotation, ports::Reach};
use tokenkeep_engine::{Caller, Engine, Error, HealthStatus, InstanceState, Ready, StartError};

const TICK: Duration = Duration::from_secs(10);

async fn token(engine: &Engine) -> Result<Arc<Ready>, Error> {
    engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await
}

/// The instances as `engine` sees them: which, how, and how many replies they hold.
async fn seen(engine: &Engine) -> Vec<(InstanceId, InstanceState, u64)> {
    let views = engine.instances().list(&Caller::Local).await.unwrap();
    views.into_iter().map(|view| (view.instance.id, view.state, view.instance.uncommitted)).collect()
}

/// Lets time pass until `engine` sees `wanted` of `id`; answers how long that took.
async fn until(world: &World, engine: &Engine, id: InstanceId, wanted: Option<InstanceState>) -> Duration {
    let mut waited = Duration::ZERO;
    loop {
        for _ in 0..200 {
            let state = seen(engine).await.into_iter().find(|(other, ..)| *other == id).map(|(_, state, _)| state);
            if state == wanted {
                return waited;
            }
            tokio::task::yield_now().await;
        }
        world.clock.advance(TICK);
        waited += TICK;
        assert!(waited < Duration::from_mins(10), "it is never seen {wanted:?}");
    }
}

fn files(dir: &Path, ending: &str) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).count()
}

/// An instance that has a reply which the store refused.
async fn with_a_reply_left(world: &World, dir: &Path) -> (Mortal, String) {
    let mortal = world.mortal(1, Some(dir.to_owned())).await;
    mortal.engine.integrations().put(&Caller::Local, &fake(), put_fake()).await.unwrap();
    store_seeded(&mortal.engine, world, &alice()).await;
    world.clock.advance(Duration::from_hours(2));
    let gate = world.provider.hold_reply();
    let engine = mortal.engine.clone();
    let reader = mortal.run(async move { token(&engine).await });
    gate.arrived().await;
    world.store.refuses_writes.store(true, SeqCst);
    gate.release();
    let ready = reader.await.unwrap().unwrap();
    (mortal, ready.token.expose_secret().to_owned())
}

#[tokio::test]
async fn instances_see_each_other_and_who_answers() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other = t.world.engine(2, None).await;
    let views = other.instances().list(&Caller::Local).await.unwrap();
    let which: Vec<_> = views.iter().map(|view| (view.instance.id, view.is_this)).collect();
    assert_eq!(which.len(), 2);
    assert!(which.contains(&(t.engine.instance(), false)) && which.contains(&(other.instance(), true)));
    assert!(views.iter().all(|view| view.state == InstanceState::Serving));
    assert_eq!(views[0].instance.process.id, std::process::id());
}

#[tokio::test]
async fn one_that_is_killed_is_silent_after_thirty_seconds_and_not_before() {
    let world = World::new(Rotation::Strict).await;
    let dir = tempfile::tempdir().unwrap();
    let mortal = world.mortal(1, Some(dir.path().to_owned())).await;
    let dead = mortal.engine.instance();
    let other = world.engine(2, None).await;
    mortal.kill(dir.path()).await;
    let waited = until(&world, &other, dead, Some(InstanceState::Silent)).await;
    assert!(waited >= Duration::from_secs(30), "{waited:?}");
    assert_eq!(seen(&other).await.len(), 2, "it is waited for all the same");
}

#[tokio::test]
async fn one_that_lives_is_not_forgotten_unless_forced_and_then_spends_nothing() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other = t.world.engine(2, None).await;
    let forget = |force| other.instances().forget(&Caller::Local, t.engine.instance(), force);
    assert_eq!(forget(false).await.unwrap_err().code(), "instance_alive");
    forget(true).await.unwrap();
    assert_eq!(forget(true).await.unwrap_err().code(), "instance_not_found");
    while t.engine.health().await.status != HealthStatus::NotReady {
        t.world.clock.advance(TICK);
        tokio::task::yield_now().await;
    }
    t.expire();
    assert_eq!(t.token().await.unwrap_err().code(), "store_unavailable");
    assert_eq!(t.world.provider.calls(), 0);
    assert_eq!(seen(&other).await.len(), 1, "it does not come back under this id");
    assert_eq!(token(&other).await.unwrap().generation, Generation(2));
}

#[tokio::test]
async fn one_that_was_forgotten_while_it_was_away_looks_before_it_spends() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other = t.world.engine(2, None).await;
    // Its renewals fail from now on, as those of a frozen process: it cannot find out by them.
    t.world.store.refuses_instances.store(true, SeqCst);
    until(&t.world, &other, t.engine.instance(), Some(InstanceState::Silent)).await;
    other.instances().forget(&Caller::Local, t.engine.instance(), false).await.unwrap();
    assert_ne!(t.engine.health().await.status, HealthStatus::NotReady, "it does not know");
    t.expire();
    assert_eq!(t.token().await.unwrap_err().code(), "store_unavailable");
    assert_eq!(t.world.provider.calls(), 0);
    assert_eq!(t.engine.health().await.status, HealthStatus::NotReady);
}

#[tokio::test]
async fn what_a_forgotten_instance_was_about_to_spend_is_waited_for_no_longer() {
    let world = World::new(Rotation::Strict).await;
    let dir = tempfile::tempdir().unwrap();
    let (mortal, _) = with_a_reply_left(&world, dir.path()).await;
    let dead = mortal.engine.instance();
    let other = world.engine(2, None).await;
    mortal.kill(dir.path()).await;
    world.store.refuses_writes.store(false, SeqCst);
    let waited = until(&world, &other, dead, Some(InstanceState::Silent)).await;
    assert!(waited < Duration::from_secs(60), "or the lease and the silence would be over anyway: {waited:?}");
    let early = {
        let other = other.clone();
        tokio::spawn(async move { token(&other).await })
    };
    while !early.is_finished() {
        world.clock.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    early.await.unwrap().unwrap_err();
    assert_eq!(world.provider.calls(), 1, "silence alone is no end");
    other.instances().forget(&Caller::Local, dead, false).await.unwrap();
    token(&other).await.unwrap_err();
    assert_eq!(world.provider.calls(), 2, "its reply is given up, as the operator said");
}

#[tokio::test]
async fn a_shutdown_commits_what_is_under_way_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let t = TestEngine::in_world(World::new(Rotation::Strict).await, Some(dir.path().to_owned())).await;
    let other = t.world.engine(2, None).await;
    t.expire();
    let gate = t.world.provider.hold_reply();
    let reader = {
        let engine = t.engine.clone();
        tokio::spawn(async move { token(&engine).await })
    };
    gate.arrived().await;
    let shutdown = {
        let engine = t.engine.clone();
        tokio::spawn(async move { engine.shutdown(Duration::from_secs(30)).await })
    };
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!shutdown.is_finished(), "it waits for the reply");
    gate.release();
    shutdown.await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap().generation, Generation(2));
    assert_eq!(token(&other).await.unwrap().generation, Generation(2));
    assert_eq!(t.world.provider.calls(), 1);
    assert_eq!(seen(&other).await.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [other.instance()]);
}

#[tokio::test]
async fn an_ended_instance_with_a_reply_left_is_not_gone_until_its_journal_is_adopted() {
    let world = World::new(Rotation::Strict).await;
    let dir = tempfile::tempdir().unwrap();
    let (mortal, kept) = with_a_reply_left(&world, dir.path()).await;
    let (ended, engine) = (mortal.engine.instance(), mortal.engine.clone());
    mortal.run(async move { engine.shutdown(Duration::ZERO).await }).await.unwrap();
    mortal.kill(dir.path()).await;
    world.store.refuses_writes.store(false, SeqCst);
    let elsewhere = world.engine(2, None).await;
    assert!(matches!(seen(&elsewhere).await[..], [(id, InstanceState::Ended, left), _] if id == ended && left > 0));
    let early = {
        let elsewhere = elsewhere.clone();
        tokio::spawn(async move { token(&elsewhere).await })
    };
    while !early.is_finished() {
        world.clock.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    early.await.unwrap().unwrap_err();
    assert_eq!(world.provider.calls(), 1, "its reply is not lost");

    let heir = world.engine(3, Some(dir.path().to_owned())).await;
    assert_eq!(token(&heir).await.unwrap().token.expose_secret(), kept);
    until(&world, &elsewhere, ended, None).await;
    assert_eq!(token(&elsewhere).await.unwrap().token.expose_secret(), kept);
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test]
async fn a_living_instance_adopts_the_journal_of_a_sibling_that_died() {
    let world = World::new(Rotation::Strict).await;
    let dir = tempfile::tempdir().unwrap();
    let (mortal, kept) = with_a_reply_left(&world, dir.path()).await;
    let dead = mortal.engine.instance();
    let siblings =
        [world.engine(2, Some(dir.path().to_owned())).await, world.engine(3, Some(dir.path().to_owned())).await];
    assert_eq!(files(dir.path(), ".journal"), 3, "a living one is not robbed");
    mortal.kill(dir.path()).await;
    world.clock.advance(TICK);
    while files(dir.path(), ".journal") > 2 {
        // A sibling that was not waiting yet when the clock moved waits for its next turn.
        world.clock.advance(Duration::from_millis(100));
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(seen(&siblings[0]).await.len(), 3, "its reply is not in the store yet: it must not count as gone");
    world.store.refuses_writes.store(false, SeqCst);
    let waited = until(&world, &siblings[0], dead, None).await;
    assert!(waited < Duration::from_secs(100), "before anybody may spend again: {waited:?}");
    for sibling in &siblings {
        assert_eq!(token(sibling).await.unwrap().token.expose_secret(), kept);
    }
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test]
async fn a_store_for_one_writer_refuses_a_second_while_the_first_lives() {
    let world = World::new(Rotation::Strict).await;
    *world.store.reach.lock().unwrap() = Some(Reach::OneWriter);
    let dir = tempfile::tempdir().unwrap();
    let first = world.engine(1, None).await;
    let start = async |seed| {
        let mut starting = std::pin::pin!(world.try_engine(seed, None));
        let mut waited = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                started = &mut starting => return (started, waited),
                // Whoever lives is given time to renew.
                () = async { for _ in 0..1000 { tokio::task::yield_now().await } } => {}
            }
            world.clock.advance(Duration::from_millis(500));
            waited += Duration::from_millis(500);
        }
    };
    let (refused, _) = start(2).await;
    match refused {
        Err(StartError::SecondWriter(found)) => assert_eq!(found.id, first.instance()),
        other => panic!("{other:?}"),
    }
    first.shutdown(Duration::ZERO).await;
    let second = world.mortal(5, Some(dir.path().to_owned())).await;
    second.kill(dir.path()).await;
    let (started, waited) = start(3).await;
    assert!(waited >= Duration::from_secs(15), "it might have lived: {waited:?}");
    started.unwrap().shutdown(Duration::ZERO).await;
    let (started, waited) = start(4).await;
    started.unwrap();
    assert!(waited < Duration::from_secs(20), "{waited:?}");
}

#[tokio::test]
async fn three_instances_refresh_what_is_due_exactly_once() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.engine.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
    let ids: Vec<ConnectionId> = (0..300).map(|n| format!("fake/_default/user-{n}").parse().unwrap()).collect();
    let mut seeds = Vec::new();
    for id in &ids {
        seeds.push(store_seeded(&t.engine, &t.world, id).await);
    }
    t.world.store.lets_others_in.store(true, SeqCst);
    let engines = [t.engine.clone(), t.world.engine(2, None).await, t.world.engine(3, None).await];
    t.world.clock.advance(Duration::from_mins(57));
    let preloading: Vec<_> = engines
        .iter()
        .cloned()
        .map(|engine| tokio::spawn(async move { while engine.preload().await.unwrap() > 0 {} }))
        .collect();
    for preloading in preloading {
        preloading.await.unwrap();
    }
    t.world.provider.finished(300).await;
    for id in &ids {
        while t.engine.connections().status(&Caller::Local, id).await.unwrap().generation < Generation(2) {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(t.world.store.claimed.load(SeqCst), 300, "nobody is handed what somebody else has");
    assert_eq!(t.world.provider.calls(), 300);
    assert!(seeds.iter().all(|seed| t.world.provider.spends(seed) == 1));
    assert!(t.world.provider.spent_twice().is_empty());
}
