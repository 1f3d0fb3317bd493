//! Backend sessions: our token to the browser, the provider's behind it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{World, alice, bare, fake, now, put_fake, store_seeded};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ApiKey, ConnectionId, Role, Rotation, Tenant, ports::Kind, time::after};
use tokenkeep_engine::{
    Caller, Engine, Error, Given, NewKey, PutTokens, Ready,
    issuer::{GrantFilter, ProtectedResource},
    sessions::{IssuedSession, NewSession, SessionSettings, SessionUpstream, Sessions},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{jws::Algorithm, metadata::Issuer as IssuerUrl, resource::Resource, scope::ScopeSet},
};
use tokenkeep_testkit::{Fault, MemoryBus};

const MIN_TTL: Duration = Duration::from_secs(60);

fn settings() -> SessionSettings {
    SessionSettings {
        issuer: IssuerUrl::parse("http://localhost:7420").unwrap(),
        resource: ProtectedResource {
            resource: Resource::parse("http://localhost:7420/v1/sessions").unwrap(),
            name: None,
            scopes: ScopeSet::default(),
            algorithm: Some(Algorithm::Es256),
            signing_secret: None,
            introspectors: BTreeSet::new(),
            exchangers: BTreeSet::new(),
            needs_upstream: false,
            upstreams: Vec::new(),
        },
        ttl: Duration::from_hours(4),
        grace: Duration::from_mins(1),
        websocket_ttl: Duration::from_mins(5),
        refresh_token_ttl: Some(Duration::from_hours(30 * 24)),
        allowed_origins: Vec::new(),
    }
}

/// A world with sessions in it, and alice's connection.
struct Stage {
    world: World,
    engine: Engine,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut World)) -> Self {
        let mut world = World::new(Rotation::Predecessor).await;
        world.sessions = Some(settings());
        change(&mut world);
        let engine = world.engine(1, None).await;
        engine.integrations().put(&Caller::Local, &fake(), put_fake()).await.unwrap();
        store_seeded(&engine, &world, &alice()).await;
        Self { world, engine }
    }

    fn sessions(&self) -> &Sessions {
        self.engine.sessions().unwrap()
    }

    async fn login(&self) -> IssuedSession {
        self.sessions().issue(&Caller::Local, on_alice()).await.unwrap()
    }

    fn pass(&self, minutes: u64) {
        self.world.clock.advance(Duration::from_mins(minutes));
    }

    fn now(&self) -> Timestamp {
        now(&self.world)
    }

    async fn ensure(&self, issued: &IssuedSession) -> Result<Arc<Ready>, Error> {
        self.sessions().ensure(&issued.access_token, MIN_TTL).await
    }
}

fn on_alice() -> NewSession {
    NewSession {
        subject: "alice".parse().unwrap(),
        email: Some("alice@example.com".into()),
        on: SessionUpstream::Connection(alice()),
        ttl: None,
        coordinate_expiry: true,
        refresh_token: false,
    }
}

fn tokens(access: &str, refresh: Option<&str>, dies: Option<Timestamp>) -> PutTokens {
    PutTokens {
        access_token: Some(access.into()),
        refresh_token: refresh.map_or(Given::Absent, |token| Given::Value(token.into())),
        expires_at: dies,
        ..bare()
    }
}

fn jti(token: &Secret) -> String {
    claims(token)["jti"].as_str().unwrap().to_owned()
}

fn claims(token: &Secret) -> serde_json::Value {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let payload = token.expose_secret().split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "none")
}

#[tokio::test]
async fn a_sign_in_brings_a_token_that_says_whose_it_is() {
    let stage = Stage::new().await;
    let issued = stage.world.provider.seed("bob");
    let dies = after(stage.now(), Duration::from_hours(1));
    let new = NewSession {
        subject: "bob".parse().unwrap(),
        email: Some("bob@example.com".into()),
        on: SessionUpstream::Tokens {
            integration: fake(),
            tenant: Tenant::default_tenant(),
            tokens: tokens(&issued.access_token, issued.refresh_token.as_deref(), Some(dies)),
        },
        ..on_alice()
    };
    let session = stage.sessions().issue(&Caller::Local, new).await.unwrap();
    assert_eq!(session.expires_at, after(session.issued_at, Duration::from_mins(45)));
    assert_eq!(session.upstream_expires_at, Some(dies));
    let said = claims(&session.access_token);
    assert_eq!(
        (&said["sub"], &said["email"], &said["type"]),
        (&"bob".into(), &"bob@example.com".into(), &"api".into())
    );
    assert_eq!(said["supa_exp"].as_i64(), Some(dies.as_second()));
    assert_eq!(said["exp"].as_i64(), Some(session.expires_at.as_second()));
    assert_eq!(stage.ensure(&session).await.unwrap().token.expose_secret(), issued.access_token);
    let view = stage.sessions().current(&session.access_token).await.unwrap();
    assert_eq!((view.subject.as_str(), view.email.as_deref()), ("bob", Some("bob@example.com")));
    assert!(!view.near_expiry && !view.upstream_near_expiry && !view.refreshable && !view.for_websocket);
    stage.pass(35);
    assert!(stage.sessions().current(&session.access_token).await.unwrap().near_expiry);
    stage.pass(10);
    assert_eq!(code(stage.sessions().current(&session.access_token).await), "invalid_session");
}

#[tokio::test]
async fn a_hundred_who_ask_at_expiry_make_one_refresh() {
    let stage = Stage::new().await;
    let long = NewSession { ttl: Some(Duration::from_hours(8)), coordinate_expiry: false, ..on_alice() };
    let session = stage.sessions().issue(&Caller::Local, long).await.unwrap();
    let before = stage.ensure(&session).await.unwrap();
    stage.pass(120);
    let asked = (0..100).map(|_| stage.ensure(&session));
    for ready in futures_util::future::join_all(asked).await {
        assert_eq!(ready.unwrap().generation.0, before.generation.0 + 1);
    }
    assert_eq!(stage.world.provider.calls(), 1);
}

#[tokio::test]
async fn what_is_fresh_is_ensured_from_memory() {
    let stage = Stage::new().await;
    let session = stage.login().await;
    stage.ensure(&session).await.unwrap();
    stage.world.store.down.store(true, SeqCst);
    assert!(stage.sessions().ensured(session.access_token.expose_secret(), MIN_TTL).is_some());
    assert!(stage.ensure(&session).await.is_ok());
}

#[tokio::test]
async fn two_tabs_that_refresh_at_once_agree_and_the_old_token_lives_on() {
    let stage = Stage::new().await;
    let session = stage.login().await;
    stage.pass(40);
    let tab = || stage.sessions().refresh(&session.access_token);
    let (one, two) = tokio::join!(tab(), tab());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(jti(&one.access_token), jti(&two.access_token));
    assert_eq!(claims(&one.access_token), claims(&two.access_token));
    assert_eq!(stage.world.provider.calls(), 1);
    assert_eq!(one.upstream_expires_at, Some(after(one.issued_at, Duration::from_hours(1))), "both were renewed");
    assert_eq!(one.expires_at, after(one.issued_at, Duration::from_mins(45)));
    // A third tab is late, and the first goes on with what it has.
    stage.world.clock.advance(Duration::from_secs(59));
    assert_eq!(
        jti(&stage.sessions().refresh(&session.access_token).await.unwrap().access_token),
        jti(&one.access_token)
    );
    assert_eq!(stage.world.provider.calls(), 1);
    assert!(stage.ensure(&session).await.is_ok());
    stage.world.clock.advance(Duration::from_secs(1));
    assert_eq!(code(stage.ensure(&session).await), "invalid_session", "the window is over, also in memory");
    assert!(stage.ensure(&one).await.is_ok());
}

#[tokio::test]
async fn tabs_on_two_instances_agree_and_logout_reaches_both() {
    let bus = MemoryBus::default();
    let stage = Stage::with(|world| world.bus = Some(bus.attached())).await;
    let mut world = stage.world;
    world.bus = Some(bus.attached());
    let other = world.engine(2, None).await;
    let (here, there) = (stage.engine.sessions().unwrap(), other.sessions().unwrap());
    let session = here.issue(&Caller::Local, on_alice()).await.unwrap();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    let gate = world.provider.hold_next();
    let refresh = |sessions: &Sessions| {
        let (sessions, token) = (sessions.clone(), session.access_token.clone());
        tokio::spawn(async move { sessions.refresh(&token).await.unwrap() })
    };
    let one = refresh(here);
    gate.arrivals(1).await;
    let two = refresh(there);
    gate.release();
    let one = one.await.unwrap();
    // The other looks again now and then; a second is enough for that.
    while !two.is_finished() {
        world.clock.advance(Duration::from_millis(10));
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
    let two = two.await.unwrap();
    assert_eq!(claims(&one.access_token), claims(&two.access_token));
    assert_eq!(world.provider.calls(), 1);
    let token = &one.access_token;
    // What is verified in the very moment of a doubt is doubted, too; and that of the refreshes is to have arrived.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    world.clock.advance(Duration::from_millis(1));
    there.ensure(token, MIN_TTL).await.unwrap();
    assert!(there.ensured(token.expose_secret(), MIN_TTL).is_some());
    here.logout(token).await.unwrap();
    let heard = async {
        // No time passes: only the bus can tell.
        while there.ensured(token.expose_secret(), MIN_TTL).is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the other instance never heard of it");
    for sessions in [here, there] {
        assert_eq!(code(sessions.ensure(token, MIN_TTL).await), "invalid_session");
        assert_eq!(code(sessions.refresh(&session.access_token).await), "invalid_session", "nor what it came from");
    }
}

#[tokio::test]
async fn a_restart_ends_no_session() {
    let stage = Stage::new().await;
    let session = stage.login().await;
    stage.engine.shutdown(Duration::ZERO).await;
    let again = stage.world.engine(9, None).await;
    let sessions = again.sessions().unwrap();
    assert!(sessions.ensure(&session.access_token, MIN_TTL).await.is_ok());
    assert!(sessions.refresh(&session.access_token).await.is_ok());
}

#[tokio::test]
async fn one_more_leaves_the_first_and_one_for_a_websocket_does_nothing_else() {
    let stage = Stage::new().await;
    let session = stage.login().await;
    let other = stage.sessions().reissue(&session.access_token, Some(Duration::from_secs(90))).await.unwrap();
    assert_eq!(other.expires_at, after(other.issued_at, Duration::from_secs(90)));
    assert_eq!(other.id, session.id);
    let socket = stage.sessions().for_websocket(&session.access_token).await.unwrap();
    assert_eq!(socket.expires_at, after(socket.issued_at, Duration::from_mins(5)));
    for issued in [&session, &other, &socket] {
        assert!(stage.ensure(issued).await.is_ok());
    }
    let token = &socket.access_token;
    assert!(stage.sessions().current(token).await.unwrap().for_websocket);
    assert_eq!(code(stage.sessions().refresh(token).await), "forbidden");
    assert_eq!(code(stage.sessions().reissue(token, None).await), "forbidden");
    assert_eq!(code(stage.sessions().for_websocket(token).await), "forbidden");
    assert_eq!(code(stage.sessions().logout(token).await), "forbidden");
    stage.sessions().logout(&other.access_token).await.unwrap();
    assert_eq!(code(stage.ensure(&socket).await), "invalid_session", "it ends with its session");
}

#[tokio::test]
async fn a_laptop_that_slept_comes_back_with_its_refresh_token() {
    let stage = Stage::new().await;
    let new = NewSession { refresh_token: true, ..on_alice() };
    let session = stage.sessions().issue(&Caller::Local, new).await.unwrap();
    let refresh_token = session.refresh_token.clone().unwrap();
    assert!(stage.sessions().current(&session.access_token).await.unwrap().refreshable);
    stage.pass(60 * 24 * 3);
    assert_eq!(code(stage.sessions().refresh(&session.access_token).await), "invalid_session");
    let woken = stage.sessions().refresh_with(&refresh_token).await.unwrap();
    let again = stage.sessions().refresh_with(&refresh_token).await.unwrap();
    assert_eq!(claims(&woken.access_token), claims(&again.access_token));
    assert_eq!(woken.refresh_token.as_ref().unwrap().expose_secret(), again.refresh_token.unwrap().expose_secret());
    assert!(stage.ensure(&woken).await.is_ok());
    assert_eq!(stage.world.provider.calls(), 1);
    let next = stage.sessions().refresh_with(&woken.refresh_token.unwrap()).await.unwrap();
    stage.pass(1);
    assert_eq!(code(stage.sessions().refresh_with(&refresh_token).await), "invalid_session", "used before");
    assert_eq!(code(stage.ensure(&next).await), "invalid_session", "and whoever stole it has nothing either");
    for wrong in ["", "x", &format!("{}.1.{}", session.id, "A".repeat(43))] {
        assert_eq!(code(stage.sessions().refresh_with(&wrong.into()).await), "invalid_session", "{wrong}");
    }
}

/// The faults of the service that this takes the place of.
mod failures {
    use super::*;

    #[tokio::test]
    async fn a_dead_token_is_never_passed_off_as_fresh() {
        let stage = Stage::new().await;
        let long = NewSession { ttl: Some(Duration::from_hours(8)), coordinate_expiry: false, ..on_alice() };
        let session = stage.sessions().issue(&Caller::Local, long).await.unwrap();
        stage.pass(120);
        stage.world.provider.fault(Fault::server_error());
        assert_eq!(code(stage.ensure(&session).await), "provider_unavailable");
        stage.pass(5);
        stage.world.provider.revoke_subject("alice");
        assert_eq!(code(stage.ensure(&session).await), "reauth_required");
        assert_eq!(code(stage.sessions().refresh(&session.access_token).await), "reauth_required");
    }

    #[tokio::test]
    async fn what_cannot_be_renewed_is_not_outlived() {
        let stage = Stage::new().await;
        let bob: ConnectionId = "fake/_default/bob".parse().unwrap();
        let dies = after(stage.now(), Duration::from_mins(4));
        let on = SessionUpstream::Tokens {
            integration: fake(),
            tenant: Tenant::default_tenant(),
            tokens: tokens("bobs", None, Some(dies)),
        };
        let new = NewSession { subject: "bob".parse().unwrap(), on, ..on_alice() };
        let session = stage.sessions().issue(&Caller::Local, new.clone()).await.unwrap();
        assert_eq!(session.expires_at, dies);
        stage.pass(1);
        let refreshed = stage.sessions().refresh(&session.access_token).await.unwrap();
        assert_eq!(refreshed.expires_at, dies, "our part of it is renewed, and no further");
        stage.pass(3);
        assert_eq!(code(stage.ensure(&refreshed).await), "invalid_session");
        let late = NewSession { on: SessionUpstream::Connection(bob), ..new };
        assert_eq!(code(stage.sessions().issue(&Caller::Local, late).await), "reauth_required");
        assert_eq!(stage.world.provider.calls(), 0);
    }

    #[tokio::test]
    async fn what_the_provider_ended_is_not_renewed_even_when_its_dead_token_is_gone() {
        let stage = Stage::new().await;
        let new = NewSession { refresh_token: true, ..on_alice() };
        let session = stage.sessions().issue(&Caller::Local, new).await.unwrap();
        let refresh_token = session.refresh_token.clone().unwrap();
        let long = stage.sessions().reissue(&session.access_token, Some(Duration::from_hours(8))).await.unwrap();
        stage.world.provider.revoke_subject("alice");
        let reason = |result: Result<IssuedSession, Error>| match result {
            Err(Error::ReauthRequired { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        for _ in 0..2 {
            assert_eq!(reason(stage.sessions().refresh(&session.access_token).await), "invalid_grant");
        }
        let bounded = stage.sessions().reissue(&session.access_token, None).await.unwrap();
        assert!(Some(bounded.expires_at) <= bounded.upstream_expires_at, "its token is alive, and not outlived");
        stage.pass(70);
        stage.engine.cleanup(&Caller::Local).await.unwrap();
        let view = stage.sessions().current(&long.access_token).await.unwrap();
        assert!(
            view.connection.expires_at.is_none() && view.upstream_near_expiry,
            "there is none, which is not for ever"
        );
        assert_eq!(reason(stage.sessions().refresh_with(&refresh_token).await), "invalid_grant");
        assert_eq!(reason(stage.sessions().refresh(&long.access_token).await), "invalid_grant");
        assert_eq!(reason(stage.sessions().reissue(&long.access_token, None).await), "invalid_grant");
        assert_eq!(reason(stage.sessions().for_websocket(&long.access_token).await), "invalid_grant");
    }

    #[tokio::test]
    async fn a_provider_that_is_down_is_not_knocked_at_by_every_browser() {
        let stage = Stage::new().await;
        let session = stage.login().await;
        for _ in 0..3 {
            stage.world.provider.fault(Fault::server_error());
        }
        assert_eq!(code(stage.sessions().refresh(&session.access_token).await), "provider_unavailable");
        let calls = stage.world.provider.calls();
        for _ in 0..10 {
            let refused = stage.sessions().refresh(&session.access_token).await.unwrap_err();
            assert_eq!(refused.code(), "provider_unavailable");
            assert!(refused.retry_after().is_some());
        }
        assert_eq!(stage.world.provider.calls(), calls);
        stage.pass(1);
        stage.sessions().refresh(&session.access_token).await.unwrap_err();
        assert_eq!(stage.world.provider.calls(), calls + 1, "when it is time again, it is asked");
    }

    #[tokio::test]
    async fn what_could_not_be_stored_is_not_handed_out() {
        let stage = Stage::new().await;
        let session = stage.login().await;
        *stage.world.store.lost.lock().unwrap() = Some(Kind::Grant);
        assert_eq!(code(stage.sessions().issue(&Caller::Local, on_alice()).await), "store_unavailable");
        assert_eq!(code(stage.sessions().refresh(&session.access_token).await), "store_unavailable");
        assert_eq!(code(stage.sessions().reissue(&session.access_token, None).await), "store_unavailable");
        assert_eq!(code(stage.sessions().logout(&session.access_token).await), "store_unavailable");
        *stage.world.store.lost.lock().unwrap() = None;
        assert!(stage.ensure(&session).await.is_ok(), "an outage ends no session");
        assert_eq!(stage.sessions().stats(&Caller::Local).await.unwrap().total_tokens, 1);
    }

    #[tokio::test]
    async fn an_answer_of_the_store_that_got_lost_makes_no_second_token() {
        let stage = Stage::new().await;
        let session = stage.login().await;
        *stage.world.store.unanswered.lock().unwrap() = Some(Kind::Grant);
        let refreshed = stage.sessions().refresh(&session.access_token).await.unwrap();
        assert!(stage.ensure(&refreshed).await.is_ok());
        assert_eq!(stage.sessions().stats(&Caller::Local).await.unwrap().active_tokens, 2);
    }

    #[tokio::test]
    async fn with_its_connection_a_session_is_over_whoever_takes_the_name_later() {
        let stage = Stage::new().await;
        let session = stage.login().await;
        stage.ensure(&session).await.unwrap();
        stage.engine.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
        assert_eq!(code(stage.ensure(&session).await), "invalid_session");
        assert_eq!(code(stage.sessions().current(&session.access_token).await), "invalid_session");
        assert_eq!(code(stage.sessions().refresh(&session.access_token).await), "invalid_session");
        store_seeded(&stage.engine, &stage.world, &alice()).await;
        assert_eq!(code(stage.ensure(&session).await), "invalid_session");
        assert_eq!(code(stage.sessions().refresh(&session.access_token).await), "invalid_session");
        assert_eq!(code(stage.sessions().reissue(&session.access_token, None).await), "invalid_session");
        let fresh = stage.login().await;
        assert!(stage.ensure(&fresh).await.is_ok());
        stage.sessions().refresh(&fresh.access_token).await.unwrap();
        stage.engine.connections().delete(&Caller::Local, &alice(), false).await.unwrap();
        let again = stage.sessions().refresh(&fresh.access_token).await;
        assert_eq!(code(again), "invalid_session", "nor is the answer to a refresh given once more");
    }
}

async fn key(engine: &Engine, role: Role, tenants: Option<&[&str]>) -> Arc<ApiKey> {
    let tenants = tenants.map(|all| all.iter().map(|t| t.parse().unwrap()).collect());
    let new = NewKey { name: "test".into(), role, tenants, providers: None };
    let (_, secret) = engine.keys().create(&Caller::Local, new).await.unwrap();
    engine.keys().authenticate(secret.expose_secret()).unwrap()
}

#[tokio::test]
async fn what_leads_to_tokens_takes_the_right_to_read_them() {
    let stage = Stage::new().await;
    for (role, tenants, expected) in [
        (Role::Application, None, "none"),
        (Role::Application, Some(&["_default"][..]), "none"),
        (Role::Application, Some(&["acme"][..]), "forbidden"),
        (Role::Operator, None, "forbidden"),
        (Role::Reader, None, "forbidden"),
    ] {
        let caller = Caller::Key(key(&stage.engine, role, tenants).await);
        assert_eq!(code(stage.sessions().issue(&caller, on_alice()).await), expected, "{role:?} {tenants:?}");
    }
    let acme = Caller::Key(key(&stage.engine, Role::Application, Some(&["acme"])).await);
    assert_eq!(stage.sessions().stats(&acme).await.unwrap().total_tokens, 0, "others' are not counted");
    assert_eq!(stage.sessions().stats(&Caller::Local).await.unwrap().total_tokens, 2);
    let nobody = NewSession { on: SessionUpstream::Connection("fake/_default/nobody".parse().unwrap()), ..on_alice() };
    assert_eq!(code(stage.sessions().issue(&Caller::Local, nobody).await), "connection_not_found");
    for ttl in [0, 7 * 24 * 3600 + 1] {
        let new = NewSession { ttl: Some(Duration::from_secs(ttl)), ..on_alice() };
        assert_eq!(code(stage.sessions().issue(&Caller::Local, new).await), "invalid_request");
    }
    for email in [String::new(), "a\nb@example.com".to_owned(), "a".repeat(321)] {
        let new = NewSession { email: Some(email), ..on_alice() };
        assert_eq!(code(stage.sessions().issue(&Caller::Local, new).await), "invalid_request");
    }
}

/// For services that know nothing else.
#[tokio::test]
async fn a_shared_key_signs_where_it_is_asked_for() {
    let stage = Stage::with(|world| {
        let sessions = world.sessions.as_mut().unwrap();
        sessions.resource.algorithm = Some(Algorithm::Hs256);
        sessions.resource.signing_secret = Some("0123456789abcdef0123456789abcdef".into());
    })
    .await;
    let session = stage.login().await;
    assert!(stage.ensure(&session).await.is_ok());
    let jwks = stage.engine.granting().unwrap().jwks();
    assert_eq!(jwks.as_ref(), br#"{"keys":[]}"#, "it is published nowhere");
    let twice = stage.sessions().refresh(&session.access_token).await.unwrap();
    let again = stage.sessions().refresh(&session.access_token).await.unwrap();
    assert_eq!(twice.access_token.expose_secret(), again.access_token.expose_secret(), "the same to the letter");
}

#[tokio::test]
async fn a_person_who_is_forgotten_has_no_session_left() {
    let stage = Stage::new().await;
    let session = stage.login().await;
    let acme: ConnectionId = "fake/acme/alice".parse().unwrap();
    store_seeded(&stage.engine, &stage.world, &acme).await;
    let other = NewSession { on: SessionUpstream::Connection(acme), ..on_alice() };
    let other = stage.sessions().issue(&Caller::Local, other).await.unwrap();
    let subject = "alice".parse().unwrap();
    let filter = || GrantFilter { client: Some("_sessions".parse().unwrap()), limit: 10, ..GrantFilter::default() };
    let grants = stage.engine.granting().unwrap();
    assert_eq!(grants.list_grants(&Caller::Local, filter()).await.unwrap().items.len(), 2);
    stage.engine.forget(&Caller::Local, &Tenant::default_tenant(), &subject, false).await.unwrap();
    assert_eq!(code(stage.ensure(&session).await), "invalid_session");
    let view = grants.grant_view(&Caller::Local, &session.id).await.unwrap();
    assert_eq!(view.revoked_reason, Some("asked"));
    assert!(stage.ensure(&other).await.is_ok(), "another tenant's alice is another");
    let again = stage.engine.forget(&Caller::Local, &Tenant::default_tenant(), &subject, false).await;
    assert_eq!(code(again), "not_found");
}

#[tokio::test]
async fn dead_tokens_are_counted_and_cleaned_up() {
    let stage = Stage::new().await;
    let session = stage.login().await;
    stage.sessions().reissue(&session.access_token, Some(Duration::from_mins(1))).await.unwrap();
    stage.pass(2);
    let stats = stage.sessions().stats(&Caller::Local).await.unwrap();
    assert_eq!((stats.total_tokens, stats.expired_tokens, stats.active_tokens), (2, 1, 1));
    assert_eq!(stats.storage_type, "memory");
    assert_eq!(stage.sessions().cleanup(&Caller::Local).await.unwrap(), 0, "clocks may differ by minutes");
    stage.pass(5);
    assert_eq!(stage.sessions().cleanup(&Caller::Local).await.unwrap(), 1);
    let stats = stage.sessions().stats(&Caller::Local).await.unwrap();
    assert_eq!((stats.total_tokens, stats.expired_tokens, stats.active_sessions), (1, 0, 1));
    assert!(stage.ensure(&session).await.is_ok());
}
