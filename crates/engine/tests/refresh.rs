//! Reads, refreshes and outages, against a provider that counts.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{MIN_TTL, TestEngine, World, alice, bare, fake, put_fake, store_seeded};
use futures_util::FutureExt as _;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ConnectionId, Generation, Rotation, Status, provider::Successor};
use tokenkeep_engine::{Blame, Caller, Engine, Error, Given, HealthStatus, PutMode, PutTokens, Ready};
use tokenkeep_store::{EnvFile, MemoryCounter};
use tokenkeep_testkit::{Fault, SeededEntropy};

fn text(ready: &Ready) -> &str {
    ready.token.expose_secret()
}

#[tokio::test]
async fn many_readers_of_an_expired_token_make_one_call() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.expire();
    let gate = t.world.provider.hold_next();
    let readers: Vec<_> = (0..256)
        .map(|_| {
            let engine = t.engine.clone();
            tokio::spawn(async move { engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await })
        })
        .collect();
    gate.arrived().await;
    gate.release();
    for reader in readers {
        let ready = reader.await.unwrap().unwrap();
        assert_eq!(ready.generation, Generation(2));
        assert!(t.world.provider.is_access_live(text(&ready)));
    }
    assert_eq!(t.world.provider.calls(), 1);
}

#[tokio::test]
async fn many_reports_of_one_generation_make_one_call() {
    let t = TestEngine::new(Rotation::Strict).await;
    let gate = t.world.provider.hold_next();
    let reports: Vec<_> = (0..1000)
        .map(|_| {
            let engine = t.engine.clone();
            tokio::spawn(
                async move { engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(1))).await },
            )
        })
        .collect();
    gate.arrived().await;
    gate.release();
    for report in reports {
        assert_eq!(report.await.unwrap().unwrap().generation, Generation(2));
    }
    assert_eq!(t.world.provider.calls(), 1);
    let late = t.engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(1))).await.unwrap();
    assert_eq!(late.generation, Generation(2));
    assert_eq!(t.world.provider.calls(), 1, "an older generation is answered with the current token");
    let ahead = t.engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(9))).await;
    assert_eq!(ahead.unwrap_err().code(), "store_unavailable", "a younger generation than ours is never refreshed");
    assert_eq!(t.world.provider.calls(), 1);
}

#[tokio::test]
async fn reports_are_counted_over_all_instances() {
    let mut world = World::new(Rotation::Strict).await;
    world.counter = Some(Arc::new(MemoryCounter::new(world.clock.clone())));
    let t = TestEngine::in_world(world, None).await;
    let other = t.world.engine(2, None).await;
    let report = async |engine: &Engine, generation| {
        engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(generation))).await
    };
    for generation in 1..=5 {
        let (first, second) = if generation % 2 == 0 { (&t.engine, &other) } else { (&other, &t.engine) };
        assert_eq!(report(first, generation).await.unwrap().generation, Generation(generation + 1));
        // The same report at another instance is not another report.
        assert_eq!(report(second, generation).await.unwrap().generation, Generation(generation + 1));
    }
    assert!(matches!(report(&t.engine, 6).await, Err(Error::TooMany { .. })));
    assert_eq!(t.world.provider.calls(), 5);
    t.world.clock.advance(Duration::from_mins(1));
    assert_eq!(report(&t.engine, 6).await.unwrap().generation, Generation(7));
}

#[tokio::test]
async fn several_instances_make_one_call() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other = t.world.engine(2, None).await;
    t.expire();
    let gate = t.world.provider.hold_next();
    let mut readers = Vec::new();
    for engine in [t.engine.clone(), other] {
        for _ in 0..32 {
            let engine = engine.clone();
            readers
                .push(tokio::spawn(async move { engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await }));
        }
    }
    gate.arrived().await;
    gate.release();
    // The instance that lost the race looks again every tenth of a second, on the clock that is told the time.
    let mut done = std::pin::pin!(async {
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap().generation, Generation(2));
        }
    });
    loop {
        tokio::select! {
            biased;
            () = &mut done => break,
            () = tokio::task::yield_now() => t.world.clock.advance(Duration::from_micros(200)),
        }
    }
    assert_eq!(t.world.provider.calls(), 1);
}

#[tokio::test]
async fn who_joins_a_refresh_behind_waits_for_another_instance_all_the_same() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other = t.world.engine(2, None).await;
    // Inside the margin: readers are answered, and the refresh goes on behind.
    t.world.clock.advance(Duration::from_mins(57));
    let gate = t.world.provider.hold_next();
    t.token().await.unwrap();
    t.token().await.unwrap();
    gate.arrived().await;

    // At the other instance a refresh is forced, and one is begun behind a reader before it gets to it.
    let in_memory = async || other.connections().token(&Caller::Local, &alice(), MIN_TTL).await.unwrap();
    in_memory().await;
    let reads = t.world.store.reads.lock().await;
    let forcing = other.clone();
    let mut forced =
        tokio::spawn(async move { forcing.connections().refresh(&Caller::Local, &alice(), None).await.unwrap() });
    tokio::task::yield_now().await;
    in_memory().await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    drop(reads);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.release();
    let ready = loop {
        tokio::select! {
            biased;
            ready = &mut forced => break ready.unwrap(),
            () = tokio::task::yield_now() => t.world.clock.advance(Duration::from_micros(200)),
        }
    };
    assert_eq!(ready.generation, Generation(2));
    assert_eq!(t.world.provider.calls(), 1);
}

#[tokio::test]
async fn inside_the_margin_readers_do_not_wait() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.token().await.unwrap();
    t.world.clock.advance(Duration::from_mins(56));
    let gate = t.world.provider.hold_next();
    let ready = t.token().await.unwrap();
    assert_eq!(ready.generation, Generation(1), "the reader is answered while the refresh is under way");
    gate.arrived().await;
    gate.release();
    t.world.provider.finished(1).await;
    while t.status().await.generation == Generation(1) {
        tokio::task::yield_now().await;
    }
    assert_eq!(t.token().await.unwrap().generation, Generation(2));
}

#[tokio::test]
async fn a_late_reply_still_counts() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.expire();
    let gate = t.world.provider.hold_reply();
    let reader = {
        let engine = t.engine.clone();
        tokio::spawn(async move { engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await })
    };
    gate.arrived().await;
    t.world.clock.advance(Duration::from_secs(11));
    let waited_out = reader.await.unwrap().unwrap_err();
    assert_eq!(waited_out.code(), "provider_unavailable");
    assert!(waited_out.retry_after().is_some());
    gate.release();
    t.world.provider.finished(1).await;
    let ready = t.token().await.unwrap();
    assert_eq!(ready.generation, Generation(2));
    assert!(t.world.provider.is_access_live(text(&ready)));
    assert_eq!(t.world.provider.spends(&t.seed), 1);
}

#[tokio::test]
async fn an_outage_of_the_provider_is_no_refusal() {
    let t = TestEngine::new(Rotation::None).await;
    t.token().await.unwrap();
    t.world.provider.fault(Fault::server_error());
    t.world.clock.advance(Duration::from_mins(56));
    assert_eq!(t.token().await.unwrap().generation, Generation(1), "it is good until it dies");
    t.world.provider.finished(1).await;
    t.expire();
    t.world.provider.fault(Fault::server_error());
    let error = t.token().await.unwrap_err();
    assert_eq!(error.code(), "provider_unavailable");
    let status = t.status().await;
    assert_ne!(status.status, Status::ReauthRequired);
    assert_eq!(status.last_error.unwrap().code, "no_outcome");
    t.world.provider.clear_faults();
    t.world.clock.advance(Duration::from_mins(2));
    assert_eq!(t.token().await.unwrap().generation, Generation(2));
    assert_eq!(t.status().await.last_error, None);
}

#[tokio::test]
async fn garbage_keeps_the_old_refresh_token() {
    let t = TestEngine::new(Rotation::None).await;
    t.expire();
    t.world.provider.fault(Fault::garbage());
    assert_eq!(t.token().await.unwrap_err().code(), "provider_unavailable");
    let status = t.status().await;
    assert!(status.has_refresh_token);
    assert!(status.last_error.is_some());
    t.world.clock.advance(Duration::from_mins(2));
    assert_eq!(t.token().await.unwrap().generation, Generation(2));
    assert_eq!(t.world.provider.spends(&t.seed), 2);
}

#[tokio::test]
async fn an_answer_lost_by_a_strict_provider_is_said_to_be_lost() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.world.provider.fault(Fault::cut_after());
    let report = t.engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(1))).await;
    assert_eq!(report.unwrap_err().code(), "provider_unavailable");
    assert_eq!(t.status().await.status, Status::Unresolved);
    assert_eq!(t.token().await.unwrap().generation, Generation(1), "the access token is alive, so nothing is risked");
    t.world.clock.advance(Duration::from_mins(10));
    assert_eq!(t.token().await.unwrap().generation, Generation(1));
    assert_eq!(t.world.provider.calls(), 1, "a strict provider's token is not spent again while there is another way");
    t.expire();
    let error = t.token().await.unwrap_err();
    assert!(matches!(&error, Error::ReauthRequired { reason, .. } if reason == "refresh_token_spent"), "{error:?}");
    assert_eq!(t.world.provider.calls(), 2);
}

#[tokio::test]
async fn an_answer_lost_inside_a_grace_window_is_asked_for_again() {
    let window = Duration::from_mins(1);
    let t = TestEngine::new(Rotation::Grace { window, successor: Successor::Same }).await;
    t.expire();
    t.world.provider.fault(Fault::cut_after());
    let ready = t.token().await.unwrap();
    assert_eq!(ready.generation, Generation(2));
    assert_eq!(t.world.provider.spends(&t.seed), 2);
    assert!(t.world.provider.is_access_live(text(&ready)));
}

#[tokio::test]
async fn a_refusal_is_for_good_until_the_user_comes_back() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.world.provider.revoke_subject("alice");
    t.expire();
    for _ in 0..3 {
        let error = t.token().await.unwrap_err();
        assert!(matches!(&error, Error::ReauthRequired { reason, .. } if reason == "invalid_grant"), "{error:?}");
    }
    assert_eq!(t.world.provider.calls(), 1, "a dead connection is not tried again and again");
    assert_eq!(t.status().await.status, Status::ReauthRequired);
    store_seeded(&t.engine, &t.world, &alice()).await;
    assert_eq!(t.status().await.status, Status::Active);
    assert_eq!(t.token().await.unwrap().generation, Generation(2));
}

#[tokio::test]
async fn a_refused_client_marks_the_integration_alone() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.world.provider.configure(|config| config.client_secret = "changed at the provider".into());
    t.expire();
    assert_eq!(t.token().await.unwrap_err().code(), "integration_rejected");
    assert_eq!(t.token().await.unwrap_err().code(), "integration_rejected");
    assert_eq!(t.world.provider.calls(), 1, "the client is not tried again at once");
    let status = t.status().await;
    assert_ne!(status.status, Status::ReauthRequired);
    assert!(status.has_refresh_token);
    let mut corrected = put_fake();
    corrected.client_secret = Some("changed at the provider".into());
    t.engine.integrations().put(&Caller::Local, &fake(), corrected).await.unwrap();
    assert_eq!(t.token().await.unwrap().generation, Generation(2), "the correction is felt at once");
}

#[tokio::test]
async fn refusals_of_all_at_once_mark_nobody() {
    let t = TestEngine::new(Rotation::Strict).await;
    let ids: Vec<ConnectionId> = (0..40).map(|n| format!("fake/_default/user-{n}").parse().unwrap()).collect();
    for id in &ids {
        store_seeded(&t.engine, &t.world, id).await;
        t.world.provider.revoke_subject(id.subject.as_str());
    }
    t.expire();
    let mut codes = BTreeMap::new();
    for id in &ids {
        let error = t.engine.connections().token(&Caller::Local, id, MIN_TTL).await.unwrap_err();
        *codes.entry(error.code()).or_insert(0) += 1;
    }
    assert!(codes["reauth_required"] <= 10, "{codes:?}");
    assert!(codes["provider_unavailable"] >= 30, "{codes:?}");
}

#[tokio::test]
async fn whoever_reports_every_new_token_is_slowed_down() {
    let t = TestEngine::new(Rotation::Strict).await;
    for generation in 1..=5 {
        let ready = t.engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(generation))).await;
        assert_eq!(ready.unwrap().generation, Generation(generation + 1));
    }
    let error = t.engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(6))).await.unwrap_err();
    assert_eq!(error.code(), "too_many_requests");
    assert!(error.retry_after().is_some());
    assert_eq!(t.token().await.unwrap().generation, Generation(6), "reading is not slowed down");
    t.world.clock.advance(Duration::from_secs(61));
    t.engine.connections().refresh(&Caller::Local, &alice(), Some(Generation(6))).await.unwrap();
}

#[tokio::test]
async fn a_put_keeps_what_it_does_not_name() {
    let t = TestEngine::new(Rotation::Strict).await;
    let put = |tokens: PutTokens, force: bool| {
        let mode = PutMode { force, only_if_absent: false };
        let engine = t.engine.clone();
        async move { engine.connections().put(&Caller::Local, &alice(), tokens, mode).await }
    };
    let access = || PutTokens { access_token: Some("another".into()), ..bare() };
    put(access(), false).await.unwrap();
    assert!(t.status().await.has_refresh_token, "a second consent without a refresh token loses nothing");
    assert_eq!(t.status().await.generation, Generation(2));

    t.expire();
    t.engine.connections().refresh(&Caller::Local, &alice(), None).await.unwrap();
    let spent = || PutTokens { refresh_token: Given::Value(t.seed.as_str().into()), ..access() };
    assert_eq!(put(spent(), false).await.unwrap_err().code(), "stale_refresh_token");
    assert_eq!(t.status().await.generation, Generation(3), "a refused PUT changes nothing");
    put(spent(), true).await.unwrap();

    put(PutTokens { refresh_token: Given::Null, ..access() }, false).await.unwrap();
    assert!(!t.status().await.has_refresh_token);

    let mode = PutMode { force: false, only_if_absent: true };
    let seeded = t.engine.connections().put(&Caller::Local, &alice(), access(), mode).await;
    assert_eq!(seeded.unwrap_err().code(), "already_there");
    assert_eq!(put(bare(), false).await.unwrap_err().code(), "invalid_request");
    let nowhere: ConnectionId = "no-such-provider/_default/alice".parse().unwrap();
    let error = t.engine.connections().put(&Caller::Local, &nowhere, access(), PutMode::default()).await.unwrap_err();
    assert_eq!(error.code(), "provider_not_found");
}

#[tokio::test]
async fn a_refresh_token_alone_is_enough() {
    let t = TestEngine::new(Rotation::Strict).await;
    let id: ConnectionId = "fake/_default/carol".parse().unwrap();
    let refresh = t.world.provider.seed("carol").refresh_token.unwrap();
    let tokens = PutTokens { refresh_token: Given::Value(refresh.into()), ..bare() };
    t.engine.connections().put(&Caller::Local, &id, tokens, PutMode::default()).await.unwrap();
    let ready = t.engine.connections().token(&Caller::Local, &id, MIN_TTL).await.unwrap();
    assert_eq!(ready.generation, Generation(2));
    assert!(t.world.provider.is_access_live(text(&ready)));
}

#[tokio::test]
async fn what_has_no_integration_is_served_until_it_dies() {
    let t = TestEngine::new(Rotation::Strict).await;
    let id: ConnectionId = "google/_default/bob".parse().unwrap();
    let tokens = PutTokens {
        access_token: Some("ya29".into()),
        refresh_token: Given::Value("1//refresh".into()),
        expires_at: Some(tokenkeep_core::time::after(common::now(&t.world), Duration::from_mins(30))),
        ..bare()
    };
    t.engine.connections().put(&Caller::Local, &id, tokens, PutMode::default()).await.unwrap();
    let read = || t.engine.connections().token(&Caller::Local, &id, MIN_TTL);
    assert_eq!(text(&read().await.unwrap()), "ya29");
    t.expire();
    assert_eq!(read().await.unwrap_err().code(), "integration_missing");
    let refresh = |id: ConnectionId| {
        let engine = t.engine.clone();
        async move { engine.connections().refresh(&Caller::Local, &id, None).await.unwrap_err().code() }
    };
    assert_eq!(refresh(id).await, "integration_missing");
    assert_eq!(refresh("google/_default/nobody".parse().unwrap()).await, "connection_not_found");
}

#[tokio::test]
async fn what_is_deleted_stays_deleted() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.expire();
    let gate = t.world.provider.hold_reply();
    let reader = {
        let engine = t.engine.clone();
        tokio::spawn(async move { engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await })
    };
    gate.arrived().await;
    t.engine.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
    gate.release();
    assert_eq!(reader.await.unwrap().unwrap_err().code(), "connection_not_found");
    while t.world.provider.revocations().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(t.token().await.unwrap_err().code(), "connection_not_found");
    let gone = t.engine.connections().delete(&Caller::Local, &alice(), false).await;
    assert_eq!(gone.unwrap_err().code(), "connection_not_found");
    store_seeded(&t.engine, &t.world, &alice()).await;
    assert_eq!(t.status().await.generation, Generation(2), "a new life's generation goes on");
    assert_eq!(t.token().await.unwrap().generation, Generation(2));
}

#[tokio::test]
async fn a_person_is_forgotten_everywhere_and_told_so() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other: ConnectionId = "google/_default/alice".parse().unwrap();
    let bystander: ConnectionId = "google/_default/bob".parse().unwrap();
    for id in [&other, &bystander] {
        let tokens = PutTokens { access_token: Some("ya29".into()), ..bare() };
        t.engine.connections().put(&Caller::Local, id, tokens, PutMode::default()).await.unwrap();
    }
    let (tenant, subject) = (alice().tenant, alice().subject);
    let forgotten = t.engine.connections().forget(&Caller::Local, &tenant, &subject, false).await;
    assert_eq!(forgotten.unwrap(), 2);
    assert_eq!(t.token().await.unwrap_err().code(), "connection_not_found");
    assert!(t.engine.connections().status(&Caller::Local, &bystander).await.is_ok());
    let again = t.engine.connections().forget(&Caller::Local, &tenant, &subject, false).await;
    assert!(matches!(again, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn deleting_can_tell_the_provider_first() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.engine.connections().delete(&Caller::Local, &alice(), true).await.unwrap();
    assert_eq!(t.world.provider.revocations(), std::slice::from_ref(&t.seed));
    assert!(!t.world.provider.is_live(&t.seed));
}

#[tokio::test]
async fn a_store_that_is_down_is_no_absence() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.token().await.unwrap();
    t.world.store.down.store(true, SeqCst);
    t.world.clock.advance(Duration::from_mins(20));
    assert_eq!(t.token().await.unwrap().generation, Generation(1), "what is cached is served until it dies");
    let unknown: ConnectionId = "fake/_default/nobody".parse().unwrap();
    let error = t.engine.connections().token(&Caller::Local, &unknown, MIN_TTL).await.unwrap_err();
    assert_eq!(error.code(), "store_unavailable");
    assert_eq!(t.engine.health().await.status, HealthStatus::Degraded);
    let tokens = PutTokens { access_token: Some("x".into()), ..bare() };
    let put = t.engine.connections().put(&Caller::Local, &alice(), tokens, PutMode::default()).await;
    assert_eq!(put.unwrap_err().code(), "store_unavailable");
    t.expire();
    assert_eq!(t.token().await.unwrap_err().code(), "store_unavailable");
    assert_eq!(t.world.provider.calls(), 0, "without an intent nothing is spent");
    t.world.store.down.store(false, SeqCst);
    assert_eq!(t.token().await.unwrap().generation, Generation(2));
    let error = t.engine.connections().token(&Caller::Local, &unknown, MIN_TTL).await.unwrap_err();
    assert_eq!(error.code(), "connection_not_found");
}

#[tokio::test]
async fn a_store_known_to_be_down_is_waited_for_by_nobody_who_has_a_fresh_token() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other = t.world.engine(2, None).await;
    t.token().await.unwrap();
    t.world.store.down.store(true, SeqCst);
    t.world.clock.advance(Duration::from_secs(6));
    t.token().await.unwrap();
    t.world.store.down.store(false, SeqCst);
    other.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
    // From now on it neither answers nor refuses.
    let reads = t.world.store.reads.lock().await;
    for _ in 0..3 {
        t.world.clock.advance(Duration::from_secs(6));
        assert!(t.token().now_or_never().is_some(), "a reader waits for the store");
    }
    // It is asked all the same: once it answers, it counts again.
    drop(reads);
    while t.token().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(t.token().await.unwrap_err().code(), "connection_not_found");
}

#[tokio::test]
async fn a_reply_the_store_refuses_is_served_once_and_committed_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let t = TestEngine::in_world(World::new(Rotation::Strict).await, Some(dir.path().to_owned())).await;
    t.expire();
    let gate = t.world.provider.hold_reply();
    let reader = {
        let engine = t.engine.clone();
        tokio::spawn(async move { engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await })
    };
    gate.arrived().await;
    t.world.store.refuses_writes.store(true, SeqCst);
    gate.release();
    let ready = reader.await.unwrap().unwrap();
    assert!(t.world.provider.is_access_live(text(&ready)));
    assert_eq!(text(&t.token().await.unwrap()), text(&ready));
    assert_eq!(t.engine.health().await.status, HealthStatus::Degraded, "it answers, and takes nothing");
    t.engine.shutdown(Duration::ZERO).await;

    t.world.store.refuses_writes.store(false, SeqCst);
    let next = t.world.engine(2, Some(dir.path().to_owned())).await;
    let again = next.connections().token(&Caller::Local, &alice(), MIN_TTL).await.unwrap();
    assert_eq!(text(&again), text(&ready));
    assert_eq!(again.generation, ready.generation);
    assert_eq!(t.world.provider.calls(), 1);
}

#[tokio::test]
async fn a_reply_found_too_late_brings_nobody_back() {
    let dir = tempfile::tempdir().unwrap();
    let t = TestEngine::in_world(World::new(Rotation::Strict).await, Some(dir.path().to_owned())).await;
    t.engine.connections().refresh(&Caller::Local, &alice(), None).await.unwrap();
    t.engine.shutdown(Duration::ZERO).await;
    let elsewhere = t.world.engine(2, None).await;
    elsewhere.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
    // Long enough for the tombstone to be swept, too.
    t.world.clock.advance(Duration::from_hours(31 * 24));
    elsewhere.cleanup(&Caller::Local).await.unwrap();
    let next = t.world.engine(3, Some(dir.path().to_owned())).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let gone = next.connections().token(&Caller::Local, &alice(), MIN_TTL).await;
    assert_eq!(gone.unwrap_err().code(), "connection_not_found");
}

#[tokio::test]
async fn another_instances_change_is_seen_within_the_soft_life() {
    let t = TestEngine::new(Rotation::Strict).await;
    let other = t.world.engine(2, None).await;
    other.connections().token(&Caller::Local, &alice(), MIN_TTL).await.unwrap();
    t.engine.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
    t.world.clock.advance(Duration::from_secs(5));
    let error = other.connections().token(&Caller::Local, &alice(), MIN_TTL).await.unwrap_err();
    assert_eq!(error.code(), "connection_not_found");
}

#[tokio::test]
async fn what_is_due_is_refreshed_before_anybody_asks() {
    let t = TestEngine::new(Rotation::Strict).await;
    t.world.clock.advance(Duration::from_mins(57));
    let claimed = Arc::new(t.engine.clone());
    while t.world.provider.calls() == 0 {
        claimed.preload().await.unwrap();
        tokio::task::yield_now().await;
    }
    t.world.provider.finished(1).await;
    while t.status().await.generation == Generation(1) {
        tokio::task::yield_now().await;
    }
    assert_eq!(t.world.provider.calls(), 1);
    assert_eq!(t.status().await.status, Status::Active);
}

#[tokio::test]
async fn clean_up_takes_what_is_dead_and_nothing_else() {
    let t = TestEngine::new(Rotation::Strict).await;
    let short: ConnectionId = "google/_default/bob".parse().unwrap();
    let tokens = PutTokens {
        access_token: Some("ya29".into()),
        expires_at: Some(tokenkeep_core::time::after(common::now(&t.world), Duration::from_mins(30))),
        ..bare()
    };
    t.engine.connections().put(&Caller::Local, &short, tokens, PutMode::default()).await.unwrap();
    t.world.provider.revoke_subject("alice");
    t.expire();
    t.token().await.unwrap_err();
    let cleaned = t.engine.cleanup(&Caller::Local).await.unwrap();
    assert_eq!((cleaned.removed, cleaned.tokens_dropped), (1, 1));
    let gone = t.engine.connections().status(&Caller::Local, &short).await;
    assert_eq!(gone.unwrap_err().code(), "connection_not_found");
    let status = t.status().await;
    assert!(status.has_refresh_token, "a refresh token is never cleaned away");
    assert_eq!(t.engine.cleanup(&Caller::Local).await.unwrap().tokens_dropped, 0);
}

#[tokio::test]
async fn nothing_that_holds_a_secret_shows_it() {
    let t = TestEngine::new(Rotation::Strict).await;
    let ready = t.token().await.unwrap();
    let tokens = PutTokens {
        access_token: Some("canary-access".into()),
        refresh_token: Given::Value("canary-refresh".into()),
        ..bare()
    };
    let integration = put_fake();
    let error = t.engine.connections().put(&Caller::Local, &alice(), bare(), PutMode::default()).await.unwrap_err();
    let shown = format!(
        "{:?} {ready:?} {tokens:?} {integration:?} {error:?} {:?} {:?}",
        t.engine,
        t.status().await,
        t.engine.integrations().get(&Caller::Local, &fake()).await
    );
    for secret in [text(&ready), t.seed.as_str(), "canary-access", "canary-refresh", "fake-client-secret"] {
        assert!(!shown.contains(secret), "{secret} shows in {shown}");
    }
    assert!(!t.engine.metrics().render().contains(text(&ready)));
}

#[tokio::test]
async fn what_rotates_is_not_refreshed_where_its_successor_would_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    for (rotation, file, is_refreshed) in [
        (Rotation::Strict, None, false),
        (Rotation::Overlap, None, false),
        (Rotation::None, None, true),
        (Rotation::Strict, Some(dir.path().join(".env")), true),
    ] {
        let world = World::new(rotation).await;
        let (mut parts, settings) = world.parts(1, None);
        parts.store = Arc::new(EnvFile::open(file.as_deref(), &SeededEntropy::new(1)).unwrap());
        let engine = Engine::start(parts, settings).await.unwrap();
        engine.integrations().put(&Caller::Local, &fake(), put_fake()).await.unwrap();
        let seed = store_seeded(&engine, &world, &alice()).await;
        let token = async || engine.connections().token(&Caller::Local, &alice(), MIN_TTL).await;
        token().await.unwrap();
        world.clock.advance(Duration::from_hours(2));
        let refreshed = token().await;
        let calls = world.provider.calls();
        if is_refreshed {
            assert_eq!((refreshed.unwrap().generation, calls), (Generation(2), 1), "{rotation:?}");
            continue;
        }
        let error = refreshed.unwrap_err();
        assert_eq!((error.code(), calls), ("integration_rejected", 0), "{rotation:?}: {error}");
        assert_eq!(error.blame(), Blame::Operator);
        assert!(world.provider.is_live(&seed));
    }
}
