//! Where a call goes, and who may make it.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use http::{Method, Response, StatusCode};
use tokenkeep_core::{ApiKey, ConnectionId, Role, Rotation};
use tokenkeep_engine::{Caller, Engine, Error, NewKey, PutIntegration};
use tokenkeep_testkit::{ApiBody, FakeApi};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use crate::{
    common::{MIN_TTL, World, alice, fake, put_fake, store_seeded},
    support::{Caught, answer, engine, get, integrate, send, text},
};

#[tokio::test]
async fn a_redirect_is_the_caller_s_to_follow() {
    let elsewhere = FakeApi::start(|_| async { answer(200, "you should not be here") }).await;
    let location = format!("{}/me", elsewhere.host());
    let api = FakeApi::start(move |_| {
        let reply = Response::builder().status(302).header("location", &location).body(ApiBody::empty()).unwrap();
        async { reply }
    })
    .await;
    let t = engine(vec![api.host()]).await;
    let reply = t.engine.proxy().call(&Caller::Local, &alice(), get("/me")).await.unwrap();
    assert_eq!(reply.status(), StatusCode::FOUND);
    assert_eq!(reply.headers()["location"], format!("{}/me", elsewhere.host()));
    assert_eq!(elsewhere.opened(), 0);
}

#[tokio::test]
async fn a_token_goes_to_the_integration_s_hosts_only() {
    let elsewhere = FakeApi::start(|_| async { answer(200, "you should not be here") }).await;
    let first = FakeApi::start(|_| async { answer(200, "first") }).await;
    let second = FakeApi::start(|_| async { answer(200, "second") }).await;
    let t = engine(vec![first.host(), second.host()]).await;
    let call = async |target: &str, host: Option<&str>| {
        let mut request = get(target);
        if let Some(host) = host {
            request.headers_mut().insert("x-tokenkeep-host", host.parse().unwrap());
        }
        match t.engine.proxy().call(&Caller::Local, &alice(), request).await {
            Ok(reply) => text(reply).await,
            Err(error) => error.code().to_owned(),
        }
    };
    assert_eq!(call("/", None).await, "first");
    assert_eq!(call("/", Some(&first.authority())).await, "first");
    assert_eq!(call("/", Some(&second.authority())).await, "second");
    assert_eq!(call(&format!("{}/", second.host()), None).await, "second");
    assert_eq!(call("/", Some(&elsewhere.authority())).await, "api_host_not_allowed");
    assert_eq!(call(&format!("{}/", elsewhere.host()), None).await, "api_host_not_allowed");
    assert_eq!(
        call(&format!("http://{}@{}/", first.authority(), elsewhere.authority()), None).await,
        "api_host_not_allowed"
    );
    assert_eq!(call(&format!("//{}/", elsewhere.authority()), None).await, "invalid_path");
    assert_eq!(call("/a/%2e%2e/b", None).await, "invalid_path");
    integrate(&t.engine, Vec::new()).await;
    assert_eq!(call("/", None).await, "no_api_host");
    assert_eq!((elsewhere.opened(), second.asked().len()), (0, 2));
}

#[tokio::test]
async fn an_integration_of_one_tenant_sends_no_other_s_tokens_anywhere() {
    let elsewhere = FakeApi::start(|_| async { answer(200, "thank you") }).await;
    let world = World::new(Rotation::Strict).await;
    let engine = world.engine(1, None).await;
    let theirs: ConnectionId = "fake/b/alice".parse().unwrap();
    store_seeded(&engine, &world, &theirs).await;
    let put = PutIntegration { tenant: Some("a".parse().unwrap()), api_hosts: vec![elsewhere.host()], ..put_fake() };
    engine.integrations().put(&Caller::Local, &fake(), put).await.unwrap();
    let connections = engine.connections();
    let call = async || engine.proxy().call(&Caller::Local, &theirs, get("/")).await.unwrap_err().code();
    assert_eq!(call().await, "integration_missing");
    connections.token(&Caller::Local, &theirs, MIN_TTL).await.expect("what lives is theirs all the same");
    let revoked = connections.delete(&Caller::Local, &theirs, true).await;
    assert_eq!(revoked.unwrap_err().code(), "integration_missing");
    let refreshed = connections.refresh(&Caller::Local, &theirs, None).await;
    assert_eq!(refreshed.unwrap_err().code(), "integration_missing");
    // Inside the margin it is refreshed behind.
    world.clock.advance(Duration::from_mins(57));
    connections.token(&Caller::Local, &theirs, Duration::ZERO).await.unwrap();
    world.clock.advance(Duration::from_hours(1));
    let dead = connections.token(&Caller::Local, &theirs, MIN_TTL).await;
    assert_eq!(dead.unwrap_err().code(), "integration_missing");
    assert_eq!(call().await, "integration_missing");
    assert_eq!((elsewhere.opened(), world.provider.calls(), world.provider.revocations()), (0, 0, Vec::new()));
}

#[tokio::test]
async fn trace_and_connect_go_nowhere() {
    let c = Caught::new().await;
    for method in [Method::TRACE, Method::CONNECT] {
        let error = c.call(send(method, "/", "")).await.unwrap_err();
        assert_eq!(error.code(), "invalid_request");
    }
    assert_eq!(c.api.opened(), 0);
}

async fn key(engine: &Engine, role: Role) -> Arc<ApiKey> {
    let new = NewKey { name: "k".to_owned(), role, tenants: None, providers: None };
    let (_, secret) = engine.keys().create(&Caller::Local, new).await.unwrap();
    engine.keys().authenticate(secrecy::ExposeSecret::expose_secret(&secret)).unwrap()
}

#[tokio::test]
async fn only_who_may_call_calls() {
    let c = Caught::new().await;
    for (role, allowed) in
        [(Role::Admin, true), (Role::Application, true), (Role::Operator, false), (Role::Reader, false)]
    {
        let caller = Caller::Key(key(&c.t.engine, role).await);
        let called = c.t.engine.proxy().call(&caller, &alice(), get("/")).await;
        assert_eq!(called.is_ok(), allowed, "{role:?}");
        assert!(matches!(called, Ok(_) | Err(Error::Forbidden(_))));
    }
    let nobody = "fake/_default/nobody".parse().unwrap();
    let error = c.t.engine.proxy().call(&Caller::Local, &nobody, get("/")).await.unwrap_err();
    assert_eq!(error.code(), "connection_not_found");
}

#[tokio::test]
async fn an_api_that_is_not_there_or_says_nothing_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let t = engine(vec![host]).await;
    let call = || {
        let engine = t.engine.clone();
        tokio::spawn(async move { engine.proxy().call(&Caller::Local, &alice(), get("/")).await.unwrap_err() })
    };
    let silent = call();
    let (mut stream, _) = listener.accept().await.unwrap();
    while !silent.is_finished() {
        stream.read_u8().now_or_never();
        t.world.clock.advance(Duration::from_secs(30));
        tokio::task::yield_now().await;
    }
    let error = silent.await.unwrap();
    assert!(matches!(&error, Error::ProviderUnavailable { detail, .. } if detail.contains("in time")), "{error:?}");

    let hung_up = call();
    drop(listener.accept().await.unwrap());
    assert_eq!(hung_up.await.unwrap().code(), "provider_unavailable");
    drop(listener);
    let gone = call().await.unwrap();
    assert_eq!(gone.code(), "provider_unavailable");
    let told = gone.to_string();
    assert!(!told.contains("127.0.0.1") && !told.contains("refresh"), "where it is, is for the log: {told}");
}
