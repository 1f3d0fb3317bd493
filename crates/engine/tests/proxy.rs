//! Calls to providers' APIs, against APIs on real sockets.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use common::{TestEngine, World, alice, fake, put_fake};
use futures_util::{FutureExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use tokenkeep_core::{ApiKey, Generation, Role, Rotation};
use tokenkeep_engine::{
    Caller, CircuitSettings, Engine, Error, NewKey, PutIntegration,
    transport::{BodyError, OutboundBody},
};
use tokenkeep_testkit::{ApiBody, FakeApi, Fault};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

/// An engine whose provider has an API.
struct Caught {
    t: TestEngine,
    api: FakeApi,
    /// Values of `Authorization` that the API does not take.
    refused: Arc<Mutex<HashSet<String>>>,
}

impl Caught {
    /// The API answers with what it was sent, if it takes the token.
    async fn new() -> Self {
        Self::with(Rotation::Strict).await
    }

    async fn with(rotation: Rotation) -> Self {
        let refused: Arc<Mutex<HashSet<String>>> = Arc::default();
        let list = refused.clone();
        let api = FakeApi::start(move |request: Request<ApiBody>| {
            let token = request.headers()["authorization"].to_str().unwrap().to_owned();
            let refused = list.lock().unwrap().contains(&token);
            async move {
                if refused {
                    return answer(401, "no good");
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(ApiBody::from([b"you sent ", &body[..]].concat()))
            }
        })
        .await;
        let t = TestEngine::in_world(World::new(rotation).await, None).await;
        integrate(&t.engine, vec![api.host()]).await;
        Self { t, api, refused }
    }

    /// The API takes no token that it has seen so far.
    fn refuse_all_seen(&self) {
        let seen = self.api.asked().into_iter().filter_map(|asked| asked.header("authorization").map(str::to_owned));
        self.refused.lock().unwrap().extend(seen);
    }

    async fn call(&self, request: Request<OutboundBody>) -> Result<Response<OutboundBody>, Error> {
        self.t.engine.proxy().call(&Caller::Local, &alice(), request).await
    }
}

async fn engine(api_hosts: Vec<String>) -> TestEngine {
    let t = TestEngine::in_world(World::new(Rotation::Strict).await, None).await;
    integrate(&t.engine, api_hosts).await;
    t
}

async fn integrate(engine: &Engine, api_hosts: Vec<String>) {
    let put = PutIntegration { api_hosts, ..put_fake() };
    engine.integrations().put(&Caller::Local, &fake(), put).await.unwrap();
}

fn answer(status: u16, body: &str) -> Response<ApiBody> {
    Response::builder().status(status).body(ApiBody::from(body.to_owned())).unwrap()
}

fn get(target: &str) -> Request<OutboundBody> {
    send(Method::GET, target, "")
}

fn send(method: Method, target: &str, body: &'static str) -> Request<OutboundBody> {
    let body = OutboundBody::new(Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}));
    Request::builder().method(method).uri(target).body(body).unwrap()
}

async fn text(reply: Response<OutboundBody>) -> String {
    String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

/// A body that comes when the test says so. What is left of it is known, if its length was said.
struct Script(mpsc::UnboundedReceiver<Bytes>, Option<u64>);

impl Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self(script, left) = self.get_mut();
        script.poll_recv(cx).map(|data| {
            let data = data?;
            *left = left.map(|left| left - data.len() as u64);
            Some(Ok(Frame::data(data)))
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.1.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn script(length: Option<u64>) -> (mpsc::UnboundedSender<Bytes>, OutboundBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, OutboundBody::new(Script(receiver, length)))
}

async fn frame(body: &mut OutboundBody) -> Bytes {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    frame.unwrap().unwrap().into_data().unwrap()
}

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
    let tokens = tokenkeep_engine::PutTokens { access_token: Some("only".into()), ..common::bare() };
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
async fn both_directions_stream() {
    // Each line is answered before the next is sent.
    let api = FakeApi::start(|request: Request<ApiBody>| async {
        Response::builder().header("content-type", "text/event-stream").body(request.into_body()).unwrap()
    })
    .await;
    let t = engine(vec![api.host()]).await;
    let (caller, body) = script(None);
    let request = Request::post("/events").body(body).unwrap();
    let reply = t.engine.proxy().call(&Caller::Local, &alice(), request).await.unwrap();
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let mut events = reply.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        assert!(poll_fn(|cx| Pin::new(&mut events).poll_frame(cx)).now_or_never().is_none());
        caller.send(event.into()).unwrap();
        assert_eq!(frame(&mut events).await, event);
    }
    // Time goes by between two events: that ends nothing.
    t.world.clock.advance(Duration::from_hours(1));
    caller.send("data: 4\n\n".into()).unwrap();
    assert_eq!(frame(&mut events).await, "data: 4\n\n");
    drop(caller);
    assert!(poll_fn(|cx| Pin::new(&mut events).poll_frame(cx)).await.is_none());
}

#[tokio::test]
async fn a_caller_who_goes_away_ends_the_call() {
    let api = FakeApi::start(|request: Request<ApiBody>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
        sender.send("begun".into()).unwrap();
        std::mem::forget(sender);
        Response::new(ApiBody::new(Script(receiver, None)))
    })
    .await;
    let t = engine(vec![api.host()]).await;
    let mut begun = t.engine.proxy().call(&Caller::Local, &alice(), get("/begun")).await.unwrap().into_body();
    assert_eq!(frame(&mut begun).await, "begun");
    drop(begun);
    api.was_left(1).await;

    let engine = t.engine.clone();
    let waiting = tokio::spawn(async move { engine.proxy().call(&Caller::Local, &alice(), get("/never")).await });
    api.was_asked(2).await;
    waiting.abort();
    api.was_left(2).await;
}

#[tokio::test]
async fn nothing_is_read_faster_than_it_is_taken() {
    let (taken, api) = {
        let taken = Arc::new(Mutex::new(0_usize));
        let counter = taken.clone();
        let api = FakeApi::start(move |_| {
            let counter = counter.clone();
            async move {
                // Without an end: whoever reads ahead shows it.
                let endless = futures_util::stream::repeat_with(move || {
                    *counter.lock().unwrap() += 1;
                    Ok::<_, BodyError>(Bytes::from(vec![0; 1 << 16]))
                });
                Response::new(ApiBody::from_stream(endless))
            }
        })
        .await;
        (taken, api)
    };
    let t = engine(vec![api.host()]).await;
    let mut body = t.engine.proxy().call(&Caller::Local, &alice(), get("/")).await.unwrap().into_body();
    let mut read = 0;
    while read < 8 << 20 {
        read += frame(&mut body).await.len();
    }
    // It goes on until every buffer on the way is full, and then stands still.
    let mut before = 0;
    let mut still = 0;
    while still < 1000 {
        tokio::task::yield_now().await;
        let now = *taken.lock().unwrap();
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    assert!(before * (1 << 16) < read + (32 << 20), "{before} pieces for {read} bytes");
}

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
    assert_eq!(call().await.unwrap().code(), "provider_unavailable");
}

#[tokio::test]
async fn an_upload_that_breaks_off_says_nothing_of_the_provider() {
    let caught = Caught::new().await;
    let part = || Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"half")));
    let broken = || StreamBody::new(stream::iter([part(), Err("gone".into())]));
    for _ in 0..2 * CircuitSettings::default().failures {
        let request = Request::post("/upload").body(OutboundBody::new(broken())).unwrap();
        assert_eq!(caught.call(request).await.unwrap_err().code(), "invalid_request");
    }
    assert_eq!(text(caught.call(send(Method::POST, "/upload", "whole")).await.unwrap()).await, "you sent whole");
}

#[tokio::test]
async fn an_api_of_the_last_century_does_not_make_us_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let t = engine(vec![format!("http://{}", listener.local_addr().unwrap())]).await;
    let answers = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4096];
        assert_ne!(stream.read(&mut asked).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
    };
    let proxy = t.engine.proxy();
    let id = alice();
    let (reply, ()) = tokio::join!(proxy.call(&Caller::Local, &id, get("/")), answers);
    let reply = reply.unwrap();
    assert_eq!(reply.version(), http::Version::HTTP_11);
    assert_eq!(text(reply).await, "until the end");
}

/// Answers on kept connections; the second request on any of them is read, and hung up on.
async fn forgetful() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = heard.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let log = log.clone();
            tokio::spawn(async move {
                for answered in [true, false] {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap() == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    log.lock().unwrap().push(request.split_once(' ').unwrap().0.to_owned());
                    if answered {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                }
            });
        }
    });
    (host, heard)
}

#[tokio::test]
async fn what_may_be_done_twice_is_sent_again_when_a_kept_connection_ends_under_it() {
    let (host, heard) = forgetful().await;
    let t = engine(vec![host]).await;
    let call = async |method: Method| {
        let reply = t.engine.proxy().call(&Caller::Local, &alice(), send(method, "/", "")).await;
        reply.map(|reply| reply.status().as_u16()).map_err(|error| error.code())
    };
    assert_eq!(call(Method::GET).await, Ok(200));
    assert_eq!(call(Method::GET).await, Ok(200));
    assert_eq!(*heard.lock().unwrap(), ["GET", "GET", "GET"]);
    // Nobody knows whether a POST was acted upon.
    assert_eq!(call(Method::POST).await, Err("provider_unavailable"));
    assert_eq!(heard.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let t = engine(vec![format!("http://{}", listener.local_addr().unwrap())]).await;
    for _ in 0..3 {
        let engine = t.engine.clone();
        let call = tokio::spawn(async move {
            engine.proxy().call(&Caller::Local, &alice(), send(Method::POST, "/", "")).await.map(|r| r.status())
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(call.await.unwrap().unwrap(), StatusCode::NO_CONTENT);
        stream.shutdown().await.unwrap();
        // Our side has seen the end once it has closed, too.
        assert_eq!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn kept_connections_are_closed_after_a_while() {
    let c = Caught::new().await;
    c.call(get("/")).await.map(text).unwrap().await;
    c.call(get("/")).await.map(text).unwrap().await;
    assert_eq!(c.api.opened(), 1);
    c.t.world.clock.advance(Duration::from_secs(31));
    c.api.was_left(1).await;
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_never_a_whole_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let t = engine(vec![format!("http://{}", listener.local_addr().unwrap())]).await;
    for half in ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let engine = t.engine.clone();
        let call = tokio::spawn(async move { engine.proxy().call(&Caller::Local, &alice(), get("/")).await.unwrap() });
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{half}").as_bytes()).await.unwrap();
        drop(stream);
        assert!(call.await.unwrap().into_body().collect().await.is_err(), "{half}");
    }
    assert_eq!(t.status().await.generation, Generation(1));
}
