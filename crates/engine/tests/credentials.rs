//! Providers without OAuth: one login for all who wait, none with a password that was refused, and what is kept of it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{sync::Arc, time::Duration};

use common::{MIN_TTL, World, bare, now};
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ConnectionId, Generation, Rotation, Status, Tenant, credentials::Credentials};
use tokenkeep_engine::{
    Caller, ConnectionView, Engine, Error, Given, GivenCredentials, PutMode, PutTokens, Ready,
    catalogue::parse_provider_toml,
};
use tokenkeep_store::MemoryCounter;
use tokenkeep_testkit::{Config, Fault};

const HOUR: Duration = Duration::from_hours(1);

/// A world whose provider logs `acme` in with `s3cret`.
async fn world() -> World {
    world_with("").await
}

async fn world_with(more: &str) -> World {
    let accounts = ["acme", "beta", "c", "d", "e"].map(|name| (name.to_owned(), "s3cret".to_owned())).into();
    let mut world = World::with(Config { accounts, ..Config::rotating(Rotation::None) }).await;
    let url = world.provider.url("/login");
    let stakes = format!(
        "id = \"stakes\"\nkind = \"login\"\ndefault_lifetime = 3600\nmargin = 300\n{more}\n\
         [login]\nurl = \"{url}\"\nbody = \"json\"\ntoken = \"/Authorization\"\ntoken_prefix = \"Bearer \"\n"
    );
    world.providers = vec![
        parse_provider_toml("stakes", &stakes).unwrap(),
        parse_provider_toml("keyed", "id = \"keyed\"\nkind = \"api_key\"").unwrap(),
        parse_provider_toml("basic", "id = \"basic\"\nkind = \"basic\"").unwrap(),
    ];
    world
}

fn at(id: &str) -> ConnectionId {
    id.parse().unwrap()
}

fn acme() -> ConnectionId {
    at("stakes/acme/_default")
}

fn password(username: &str, password: &str) -> Credentials {
    Credentials::Password { username: username.to_owned(), password: password.into() }
}

fn given(credentials: Credentials) -> GivenCredentials {
    GivenCredentials { credentials, ttl: None, display_name: None }
}

async fn put(engine: &Engine, id: &ConnectionId, credentials: Credentials, login_first: bool) -> Result<bool, Error> {
    let given = given(credentials);
    let put = engine.connections().put_credentials(&Caller::Local, id, given, PutMode::default(), login_first).await;
    put.map(|(created, _)| created)
}

async fn token(engine: &Engine, id: &ConnectionId) -> Result<Arc<Ready>, Error> {
    engine.connections().token(&Caller::Local, id, MIN_TTL).await
}

async fn status(engine: &Engine, id: &ConnectionId) -> ConnectionView {
    engine.connections().status(&Caller::Local, id).await.unwrap()
}

/// Lets `what` end while time passes in small steps: an instance that waits for another looks again by the clock.
async fn while_time_passes<T>(world: &World, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            () = tokio::task::yield_now() => world.clock.advance(Duration::from_micros(200)),
        }
    }
}

#[tokio::test]
async fn many_readers_at_several_instances_make_one_login() {
    let world = world().await;
    let engines = [world.engine(1, None).await, world.engine(2, None).await, world.engine(3, None).await];
    put(&engines[0], &acme(), password("acme", "s3cret"), false).await.unwrap();
    assert_eq!(world.provider.calls(), 0, "nobody needed a token yet");
    for round in 1..=3 {
        let gate = world.provider.hold_next();
        let mut readers = Vec::new();
        for engine in &engines {
            for _ in 0..64 {
                let engine = engine.clone();
                readers.push(tokio::spawn(async move { token(&engine, &acme()).await }));
            }
        }
        gate.arrived().await;
        gate.release();
        while_time_passes(&world, async {
            for reader in readers {
                let ready = reader.await.unwrap().unwrap();
                assert!(world.provider.is_access_live(ready.token.expose_secret()));
                assert_eq!(ready.token_type, "Bearer");
            }
        })
        .await;
        assert_eq!(world.provider.calls(), round, "one login per round");
        world.clock.advance(2 * HOUR);
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_a_new_one_heals() {
    let world = world().await;
    let (engine, other) = (world.engine(1, None).await, world.engine(2, None).await);
    put(&engine, &acme(), password("acme", "wrong"), false).await.unwrap();
    for _ in 0..50 {
        for engine in [&engine, &other] {
            let refused = token(engine, &acme()).await.unwrap_err();
            assert!(
                matches!(&refused, Error::ReauthRequired { reason, .. } if reason == "invalid_credentials"),
                "{refused}"
            );
        }
        world.clock.advance(HOUR);
    }
    let forced = engine.connections().refresh(&Caller::Local, &acme(), None).await.unwrap_err();
    assert_eq!(forced.code(), "reauth_required", "not even for an operator");
    assert_eq!(world.provider.calls(), 1);
    let view = status(&engine, &acme()).await;
    assert_eq!((view.status, view.reason.as_deref()), (Status::ReauthRequired, Some("invalid_credentials")));
    assert!(view.next_refresh_at.is_none() && view.has_credentials);

    put(&engine, &acme(), password("acme", "s3cret"), false).await.unwrap();
    assert!(token(&other, &acme()).await.is_ok());
    assert_eq!(world.provider.calls(), 2);
    assert_eq!(status(&engine, &acme()).await.status, Status::Active);
}

#[tokio::test]
async fn a_password_that_is_changed_at_the_provider_costs_one_refused_login() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    put(&engine, &acme(), password("acme", "s3cret"), true).await.unwrap();
    world.provider.configure(|config| drop(config.accounts.insert("acme".into(), "other".into())));
    let live = token(&engine, &acme()).await.unwrap();
    world.clock.advance(Duration::from_mins(57));
    // Inside the margin: readers are served, the login behind them is refused once.
    for _ in 0..100 {
        assert_eq!(token(&engine, &acme()).await.unwrap().generation, live.generation);
        tokio::task::yield_now().await;
    }
    world.provider.finished(2).await;
    while status(&engine, &acme()).await.status != Status::ReauthRequired {
        tokio::task::yield_now().await;
    }
    assert!(token(&engine, &acme()).await.is_ok(), "what is alive is served");
    world.clock.advance(HOUR);
    for _ in 0..100 {
        assert_eq!(token(&engine, &acme()).await.unwrap_err().code(), "reauth_required");
    }
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test]
async fn an_outage_is_no_refusal() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    put(&engine, &acme(), password("acme", "s3cret"), false).await.unwrap();
    world.provider.faults(3, Fault::server_error());
    let mut refused = 0;
    while let Err(error) = token(&engine, &acme()).await {
        assert_eq!(error.code(), "provider_unavailable");
        assert!(status(&engine, &acme()).await.status == Status::Expired);
        refused += 1;
        world.clock.advance(error.retry_after().unwrap());
        assert!(refused < 50);
    }
    assert_eq!(world.provider.calls(), 4);
    for fault in [Fault::cut_after(), Fault::garbage(), Fault::too_many_requests(30)] {
        world.clock.advance(2 * HOUR);
        world.provider.fault(fault);
        assert_eq!(token(&engine, &acme()).await.unwrap_err().code(), "provider_unavailable");
        world.clock.advance(Duration::from_mins(1));
        assert!(token(&engine, &acme()).await.is_ok());
    }
}

#[tokio::test]
async fn an_answer_that_is_neither_is_asked_for_ever_more_slowly_whoever_waits() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    put(&engine, &acme(), password("acme", "s3cret"), false).await.unwrap();
    world.provider.faults(1000, Fault::answer(200, "{\"error\": \"wrong password, in words of our own\"}"));
    for _ in 0..(24 * 60) {
        let _ = token(&engine, &acme()).await.unwrap_err();
        world.clock.advance(Duration::from_mins(1));
    }
    let calls = world.provider.calls();
    assert!(calls <= 18, "{calls} logins in a day");
    world.provider.clear_faults();
    world.clock.advance(Duration::from_hours(6));
    assert!(token(&engine, &acme()).await.is_ok());
}

#[tokio::test]
async fn nobody_is_paused_by_the_wrong_passwords_of_others_and_all_of_them_are_believed() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    let ids: Vec<ConnectionId> = (0..40).map(|n| at(&format!("stakes/company{n}/_default"))).collect();
    for id in &ids {
        put(&engine, id, password("acme", "wrong"), false).await.unwrap();
    }
    for id in &ids {
        assert_eq!(token(&engine, id).await.unwrap_err().code(), "reauth_required");
    }
    assert_eq!(world.provider.calls(), 40);
    put(&engine, &acme(), password("acme", "s3cret"), false).await.unwrap();
    assert!(token(&engine, &acme()).await.is_ok());
}

#[tokio::test]
async fn trying_credentials_stores_nothing_and_a_failed_put_changes_nothing() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    let connections = engine.connections();
    let (stakes, tenant) = (acme().integration, Tenant::new("acme").unwrap());
    let test = |credentials| connections.test_credentials(&Caller::Local, &stakes, &tenant, credentials);
    test(password("acme", "s3cret")).await.unwrap();
    assert_eq!(test(password("acme", "wrong")).await.unwrap_err().code(), "invalid_credentials");
    let login = connections.login(&Caller::Local, &stakes, &tenant, password("acme", "s3cret")).await.unwrap();
    assert!(world.provider.is_access_live(login.access_token.expose_secret()));
    assert_eq!(login.expires_at, Some(tokenkeep_core::time::after(now(&world), HOUR)));
    assert_eq!(token(&engine, &acme()).await.unwrap_err().code(), "connection_not_found");

    assert_eq!(put(&engine, &acme(), password("acme", "wrong"), true).await.unwrap_err().code(), "invalid_credentials");
    assert_eq!(token(&engine, &acme()).await.unwrap_err().code(), "connection_not_found");
    assert!(put(&engine, &acme(), password("acme", "s3cret"), true).await.unwrap());
    let stored = token(&engine, &acme()).await.unwrap();
    assert_eq!(put(&engine, &acme(), password("beta", "wrong"), true).await.unwrap_err().code(), "invalid_credentials");
    world.provider.fault(Fault::server_error());
    assert_eq!(
        put(&engine, &acme(), password("beta", "s3cret"), true).await.unwrap_err().code(),
        "provider_unavailable"
    );
    assert_eq!(token(&engine, &acme()).await.unwrap().generation, stored.generation);
    world.clock.advance(2 * HOUR);
    token(&engine, &acme()).await.unwrap();
    assert!(world.provider.log().last().unwrap().params.contains(&("username".into(), "acme".into())));

    let absent = PutMode { only_if_absent: true, ..PutMode::default() };
    let calls = world.provider.calls();
    let put =
        connections.put_credentials(&Caller::Local, &acme(), given(password("beta", "s3cret")), absent, true).await;
    assert_eq!(put.unwrap_err().code(), "already_there");
    assert_eq!(world.provider.calls(), calls, "nobody logs in for what is not stored");
}

#[tokio::test]
async fn a_connection_says_how_long_its_tokens_live() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    let ttl = Some(Duration::from_mins(20));
    let given = GivenCredentials { ttl, ..given(password("acme", "s3cret")) };
    engine.connections().put_credentials(&Caller::Local, &acme(), given, PutMode::default(), false).await.unwrap();
    put(&engine, &at("stakes/beta/_default"), password("beta", "s3cret"), false).await.unwrap();
    for (id, minutes) in [(acme(), 20), (at("stakes/beta/_default"), 60)] {
        for _ in 0..2 {
            let expires_at = token(&engine, &id).await.unwrap().expires_at;
            assert_eq!(expires_at, Some(tokenkeep_core::time::after(now(&world), Duration::from_mins(minutes))));
            world.clock.advance(Duration::from_mins(minutes));
        }
    }
    put(&engine, &acme(), password("acme", "s3cret"), true).await.unwrap();
    let expires_at = token(&engine, &acme()).await.unwrap().expires_at;
    let kept = tokenkeep_core::time::after(now(&world), Duration::from_mins(20));
    assert_eq!(expires_at, Some(kept), "a new password says nothing of that");
}

#[tokio::test]
async fn a_dropped_token_is_fetched_anew_and_credentials_outlive_clean_up() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    let connections = engine.connections();
    assert_eq!(connections.drop_token(&Caller::Local, &acme()).await.unwrap_err().code(), "connection_not_found");
    put(&engine, &acme(), password("acme", "s3cret"), true).await.unwrap();
    let first = token(&engine, &acme()).await.unwrap();
    connections.drop_token(&Caller::Local, &acme()).await.unwrap();
    connections.drop_token(&Caller::Local, &acme()).await.unwrap();
    let second = token(&engine, &acme()).await.unwrap();
    assert!(second.generation > first.generation);
    assert_eq!(world.provider.calls(), 2);

    // A token without anything beside it is removed; of credentials only the dead token is.
    let bare = PutTokens { access_token: Some("a".into()), ..bare() };
    connections.put(&Caller::Local, &at("stakes/bare/_default"), bare, PutMode::default()).await.unwrap();
    world.clock.advance(HOUR + Duration::from_mins(4));
    let cleaned = engine.cleanup(&Caller::Local).await.unwrap();
    assert_eq!((cleaned.removed, cleaned.tokens_dropped), (0, 0), "five minutes of grace");
    world.clock.advance(Duration::from_mins(2));
    let cleaned = engine.cleanup(&Caller::Local).await.unwrap();
    assert_eq!((cleaned.removed, cleaned.tokens_dropped), (1, 1));
    assert!(status(&engine, &acme()).await.has_credentials);
    assert!(token(&engine, &acme()).await.is_ok());
    assert_eq!(world.provider.calls(), 3);
}

#[tokio::test]
async fn tokens_that_are_put_leave_the_credentials_and_a_null_removes_them() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    put(&engine, &acme(), password("acme", "s3cret"), true).await.unwrap();
    let put_tokens = async |refresh_token| {
        let tokens = PutTokens { access_token: Some("given".into()), refresh_token, ..bare() };
        engine.connections().put(&Caller::Local, &acme(), tokens, PutMode::default()).await.unwrap()
    };
    put_tokens(Given::Absent).await;
    assert_eq!(token(&engine, &acme()).await.unwrap().token.expose_secret(), "given");
    world.clock.advance(2 * HOUR);
    assert_eq!(token(&engine, &acme()).await.unwrap().generation, Generation(3));
    assert_eq!(world.provider.calls(), 2);

    put_tokens(Given::Null).await;
    assert!(!status(&engine, &acme()).await.has_credentials);
    world.clock.advance(HOUR + Duration::from_mins(1));
    let dead = token(&engine, &acme()).await.unwrap_err();
    assert!(matches!(&dead, Error::ReauthRequired { reason, .. } if reason == "no_refresh_token"), "{dead}");
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test]
async fn a_login_that_the_new_password_overtakes_does_not_bring_the_old_account_back() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    put(&engine, &acme(), password("acme", "s3cret"), false).await.unwrap();
    let gate = world.provider.hold_reply();
    let reader = tokio::spawn({
        let engine = engine.clone();
        async move { token(&engine, &acme()).await }
    });
    gate.arrived().await;
    put(&engine, &acme(), password("beta", "s3cret"), true).await.unwrap();
    let stored = token(&engine, &acme()).await.unwrap();
    gate.release();
    let _ = while_time_passes(&world, reader).await.unwrap();
    let now = token(&engine, &acme()).await.unwrap();
    assert_eq!(now.token.expose_secret(), stored.token.expose_secret());
    world.clock.advance(2 * HOUR);
    token(&engine, &acme()).await.unwrap();
    assert!(world.provider.log().last().unwrap().params.contains(&("username".into(), "beta".into())));
}

#[tokio::test]
async fn keys_and_basic_auth_are_the_token_and_nobody_is_asked() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    let (keyed, basic) = (at("keyed/_default/_default"), at("basic/_default/_default"));
    put(&engine, &keyed, Credentials::ApiKey("sk-1".into()), false).await.unwrap();
    put(&engine, &basic, password("Aladdin", "open sesame"), true).await.unwrap();
    world.clock.advance(Duration::from_hours(24 * 365));
    let ready = token(&engine, &keyed).await.unwrap();
    assert_eq!((ready.token.expose_secret(), ready.token_type.as_str()), ("sk-1", "Bearer"));
    assert_eq!(ready.expires_at, None);
    let ready = token(&engine, &basic).await.unwrap();
    assert_eq!((ready.token.expose_secret(), ready.token_type.as_str()), ("QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic"));

    // Said to be no good, there is no other; the one there is stays, for one answer of 401 proves little.
    let reported = engine.connections().refresh(&Caller::Local, &keyed, Some(Generation(1))).await.unwrap_err();
    assert!(matches!(&reported, Error::ReauthRequired { reason, .. } if reason == "invalid_credentials"));
    assert_eq!(engine.connections().refresh(&Caller::Local, &keyed, None).await.unwrap().generation, Generation(1));
    assert_eq!(status(&engine, &keyed).await.status, Status::Active);
    put(&engine, &keyed, Credentials::ApiKey("sk-2".into()), false).await.unwrap();
    let newer = engine.connections().refresh(&Caller::Local, &keyed, Some(Generation(1))).await.unwrap();
    assert_eq!(newer.token.expose_secret(), "sk-2");

    engine.connections().drop_token(&Caller::Local, &keyed).await.unwrap();
    assert_eq!(token(&engine, &keyed).await.unwrap().token.expose_secret(), "sk-2");
    assert_eq!(world.provider.calls(), 0);
}

#[tokio::test]
async fn what_does_not_fit_the_provider_is_refused() {
    let world = world().await;
    let engine = world.engine(1, None).await;
    for (id, credentials, code) in [
        ("stakes/a/b", Credentials::ApiKey("k".into()), "invalid_request"),
        ("keyed/a/b", password("a", "b"), "invalid_request"),
        ("basic/a/b", password("a:b", "c"), "invalid_request"),
        ("stakes/a/b", password("", "c"), "invalid_request"),
        ("google/a/b", password("a", "c"), "invalid_request"),
        ("qontak-crm/a/b", password("a", "c"), "integration_missing"),
        ("nobody/a/b", password("a", "c"), "provider_not_found"),
    ] {
        assert_eq!(put(&engine, &at(id), credentials, true).await.unwrap_err().code(), code, "{id}");
    }
    for ttl in [Duration::ZERO, Duration::from_secs(59), Duration::from_hours(10_000)] {
        let given = GivenCredentials { ttl: Some(ttl), ..given(password("acme", "s3cret")) };
        let put = engine.connections().put_credentials(&Caller::Local, &acme(), given, PutMode::default(), true).await;
        assert_eq!(put.unwrap_err().code(), "invalid_request");
    }
    assert_eq!(world.provider.calls(), 0);
}

#[tokio::test]
async fn logins_take_from_the_providers_limits_where_they_count() {
    let limits = "[api]\nlogins_count = true\nlimits = [{ requests = 2, seconds = 60 }]";
    let mut world = world_with(limits).await;
    world.counter = Some(Arc::new(MemoryCounter::new(world.clock.clone())));
    let engines = [world.engine(1, None).await, world.engine(2, None).await];
    for (n, name) in ["acme", "beta", "c"].into_iter().enumerate() {
        let id = at(&format!("stakes/{name}/_default"));
        put(&engines[n % 2], &id, password(name, "s3cret"), false).await.unwrap();
        let read = token(&engines[n % 2], &id).await;
        if n < 2 {
            assert!(read.is_ok(), "{name}");
        } else {
            let error = read.unwrap_err();
            assert_eq!(error.code(), "provider_unavailable");
            assert!(error.retry_after().unwrap() >= Duration::from_secs(50), "{:?}", error.retry_after());
        }
    }
    assert_eq!(world.provider.calls(), 2);
    world.clock.advance(Duration::from_mins(1));
    assert!(token(&engines[0], &at("stakes/c/_default")).await.is_ok());
}

#[tokio::test]
async fn eight_hours_of_five_companies_cost_a_login_per_company_and_life() {
    let world = world().await;
    let engines = [world.engine(1, None).await, world.engine(2, None).await];
    let companies = ["acme", "beta", "c", "d", "e"];
    let id = |name: &str| at(&format!("stakes/{name}/_default"));
    for name in companies {
        put(&engines[0], &id(name), password(name, "s3cret"), false).await.unwrap();
    }
    let step = Duration::from_hours(8) / 1000;
    let mut waited = 0;
    for call in 0..1000_usize {
        let (engine, id) = (&engines[call % 3 % 2], id(companies[call % 5]));
        let before = world.provider.calls();
        let cached =
            engine.connections().cached(id.integration.as_str(), id.tenant.as_str(), id.subject.as_str(), MIN_TTL);
        let ready = match cached {
            Some(ready) => ready,
            None => while_time_passes(&world, token(engine, &id)).await.unwrap(),
        };
        assert!(world.provider.is_access_live(ready.token.expose_secret()));
        if world.provider.calls() > before {
            waited += 1;
        }
        // Whatever goes on behind the reader comes to its end.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(step);
    }
    let log = world.provider.log();
    for name in companies {
        let logins = log.iter().filter(|call| call.params.contains(&("username".into(), name.into()))).count();
        // A token of an hour with a margin of five minutes lasts for 55: eight hours take nine of them.
        assert!((8..=9).contains(&logins), "{name}: {logins} logins");
    }
    assert!(waited <= 50, "{waited} of 1,000 calls waited for a login: fewer than 95 % were hits");
}
