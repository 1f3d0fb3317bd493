//! Which token a call carries, and what is done when the API refuses it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use tokenkeep_core::{Generation, Rotation};
use tokenkeep_engine::{Caller, Error, PutTokens};
use tokenkeep_testkit::{ApiBody, FakeApi, Fault};
use tokio::sync::Semaphore;

use crate::{
    common::{alice, bare},
    support::{Caught, answer, engine, get, integrate, script, send, text},
};

#[tokio::test]
async fn a_call_carries_the_connection_s_token_and_nothing_of_the_caller_s() {
    let c = Caught::new().await;
    let mut request = send(Method::POST, "/v1/things%2Fa?x=%20y", "hello");
    for (name, value) in [
        ("authorization", "Bearer tk_secret"),
        ("x-api-key", "tk_secret"),
        ("cookie", "tk_secret"),
        ("proxy-authorization", "tk_secret"),
        ("content-length", "500"),
        ("host", "elsewhere.example"),
        ("x-mine", "yes"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let reply = c.call(request).await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(text(reply).await, "you sent hello");
    let asked = c.api.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/v1/things%2Fa?x=%20y"));
    let token = asked.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    assert!(c.t.world.provider.is_access_live(token));
    assert_eq!(asked.header("host"), Some(c.api.authority().as_str()));
    assert_eq!(asked.header("content-length"), Some("5"));
    assert_eq!(asked.header("x-mine"), Some("yes"));
    assert!(!format!("{:?}", asked.headers).contains("tk_secret"));
    assert_eq!(c.t.world.provider.calls(), 0);
}

#[tokio::test]
async fn any_body_can_be_sent_with_a_call_of_the_library() {
    let c = Caught::new().await;
    let request = Request::put("/v1/me").body(Full::new(Bytes::from_static(b"x"))).unwrap();
    let reply = c.t.engine.request(&Caller::Local, &alice(), request).await.unwrap();
    assert_eq!(text(reply).await, "you sent x");
    let url = format!("{}/v1/me", c.api.host());
    let request = Request::post(url).body(Empty::<Bytes>::new()).unwrap();
    let reply = c.t.engine.request(&Caller::Local, &alice(), request).await.unwrap();
    assert_eq!(text(reply).await, "you sent ");
    assert_eq!(c.api.asked()[1].header("content-length"), Some("0"), "RFC 9110 8.6");
    assert_eq!(c.api.opened(), 1, "one connection serves both");
}

#[tokio::test]
async fn an_expired_token_is_refreshed_before_the_call() {
    let c = Caught::new().await;
    c.t.expire();
    let reply = c.call(get("/")).await.unwrap();
    assert_eq!((reply.status(), c.t.world.provider.calls()), (StatusCode::OK, 1));
    assert_eq!(c.api.asked().len(), 1);
}

#[tokio::test]
async fn a_refused_token_is_refreshed_once_for_all_and_the_request_sent_once_more() {
    let c = Caught::new().await;
    c.call(get("/")).await.unwrap();
    c.refuse_all_seen();
    let gate = c.t.world.provider.hold_next();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let engine = c.t.engine.clone();
            let request = send(Method::POST, "/", "hello");
            tokio::spawn(async move { engine.proxy().call(&Caller::Local, &alice(), request).await })
        })
        .collect();
    gate.arrived().await;
    c.api.was_asked(101).await;
    gate.release();
    for call in calls {
        let reply = call.await.unwrap().unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        assert_eq!(text(reply).await, "you sent hello");
    }
    assert_eq!(c.t.world.provider.calls(), 1);
    assert_eq!(c.api.asked().len(), 201, "each was sent twice");
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_the_caller_s_to_see() {
    let c = Caught::new().await;
    c.call(get("/")).await.unwrap();
    c.refuse_all_seen();
    let mut refused = Vec::new();
    for _ in 0..8 {
        let reply = c.call(get("/")).await.unwrap();
        refused.push(reply.status().as_u16());
        c.refuse_all_seen();
    }
    // Whoever refuses every new token is not asked for another each time: after five, what they say is passed on.
    assert_eq!(refused[..5], [200; 5]);
    assert_eq!(refused[5..], [401; 3]);
    assert_eq!(c.t.world.provider.calls(), 5);
}

#[tokio::test]
async fn what_came_of_the_refresh_is_not_taken_for_the_provider_s_refusal() {
    let c = Caught::with(Rotation::None).await;
    c.call(get("/")).await.unwrap();
    c.refuse_all_seen();
    c.t.world.provider.fault(Fault::server_error());
    let outage = c.call(get("/")).await.unwrap_err();
    assert!(matches!(outage, Error::ProviderUnavailable { .. }), "{outage:?}");
    c.t.world.clock.advance(Duration::from_mins(10));
    c.t.world.provider.revoke_subject("alice");
    let over = c.call(get("/")).await.unwrap_err();
    assert!(matches!(over, Error::ReauthRequired { .. }), "{over:?}");
}

#[tokio::test]
async fn a_token_that_nothing_can_renew_is_the_provider_s_to_refuse() {
    let c = Caught::new().await;
    let tokens = PutTokens { access_token: Some("only".into()), ..bare() };
    let bob = "fake/_default/bob".parse().unwrap();
    c.t.engine.connections().put(&Caller::Local, &bob, tokens, tokenkeep_engine::PutMode::default()).await.unwrap();
    c.refused.lock().unwrap().insert("Bearer only".to_owned());
    let reply = c.t.engine.proxy().call(&Caller::Local, &bob, get("/")).await.unwrap();
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(text(reply).await, "no good");
}

#[tokio::test]
async fn a_long_body_goes_once_and_the_next_call_finds_a_new_token() {
    let c = Caught::new().await;
    c.call(get("/")).await.unwrap();
    let refused = Arc::new(Mutex::new(c.api.asked()[0].header("authorization").unwrap().to_owned()));
    // An API that reads first and judges then.
    let judge = refused.clone();
    let api = FakeApi::start(move |request: Request<ApiBody>| {
        let refused = *judge.lock().unwrap() == request.headers()["authorization"].to_str().unwrap();
        async move {
            let length = request.into_body().collect().await.unwrap().to_bytes().len();
            answer(if refused { 401 } else { 200 }, &length.to_string())
        }
    })
    .await;
    integrate(&c.t.engine, vec![api.host()]).await;
    let long = vec![b'x'; (1 << 20) + 1];
    let gate = c.t.world.provider.hold_next();
    let put = async || {
        let request = Request::put("/").body(Full::from(long.clone())).unwrap();
        c.t.engine.request(&Caller::Local, &alice(), request).await.unwrap()
    };
    let reply = put().await;
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(text(reply).await, long.len().to_string());
    assert_eq!(api.asked().len(), 1);
    gate.arrived().await;
    gate.release();
    while c.t.status().await.generation == Generation(1) {
        tokio::task::yield_now().await;
    }
    assert_eq!(put().await.status(), StatusCode::OK);
    assert_eq!(c.t.world.provider.calls(), 1);
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_short_body_costs_nothing() {
    let c = Caught::new().await;
    c.call(get("/")).await.unwrap();
    c.refuse_all_seen();
    let (caller, body) = script(Some(10));
    let engine = c.t.engine.clone();
    let request = Request::post("/").body(body).unwrap();
    let call = tokio::spawn(async move { engine.proxy().call(&Caller::Local, &alice(), request).await });
    caller.send("hello".into()).unwrap();
    // Refused at its head, and sent again while it is still on its way.
    c.api.was_asked(3).await;
    caller.send("world".into()).unwrap();
    drop(caller);
    let reply = call.await.unwrap().unwrap();
    assert_eq!(text(reply).await, "you sent helloworld");
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_body_is_passed_on_whole_if_nothing_can_renew_the_token() {
    // It refuses at the head, and reads on all the same.
    let api = FakeApi::start(|request: Request<ApiBody>| async {
        Response::builder().status(401).body(request.into_body()).unwrap()
    })
    .await;
    let t = engine(vec![api.host()]).await;
    let tokens = PutTokens { access_token: Some("only".into()), ..bare() };
    let bob = "fake/_default/bob".parse().unwrap();
    t.engine.connections().put(&Caller::Local, &bob, tokens, tokenkeep_engine::PutMode::default()).await.unwrap();
    let (caller, body) = script(Some(10));
    caller.send("hello".into()).unwrap();
    let reply = t.engine.proxy().call(&Caller::Local, &bob, Request::post("/").body(body).unwrap()).await.unwrap();
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    caller.send("world".into()).unwrap();
    drop(caller);
    assert_eq!(text(reply).await, "helloworld");
}

#[tokio::test]
async fn where_there_is_no_room_to_keep_a_body_the_refusal_is_passed_on() {
    let c = Caught::new().await;
    c.call(get("/")).await.unwrap();
    let refused = c.api.asked()[0].header("authorization").unwrap().to_owned();
    let held = Arc::new(Semaphore::new(0));
    let arrived = held.clone();
    let api = FakeApi::start(move |request: Request<ApiBody>| {
        let (arrived, hangs) = (arrived.clone(), request.uri().path() == "/hangs");
        let status = if request.headers()["authorization"] == *refused { 401 } else { 200 };
        async move {
            request.into_body().collect().await.unwrap();
            if hangs {
                arrived.add_permits(1);
                std::future::pending::<()>().await;
            }
            answer(status, "")
        }
    })
    .await;
    integrate(&c.t.engine, vec![api.host()]).await;
    let put = |path: &str, size: usize| {
        let (engine, request) = (c.t.engine.clone(), Request::put(path).body(Full::from(vec![b'x'; size])).unwrap());
        tokio::spawn(async move { engine.request(&Caller::Local, &alice(), request).await.unwrap().status() })
    };
    let hanging: Vec<_> = (0..64).map(|_| put("/hangs", 1 << 20)).collect();
    held.acquire_many(64).await.unwrap().forget();
    assert_eq!(put("/", 5).await.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.asked().len(), 65, "it went once");
    for call in hanging {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
}
