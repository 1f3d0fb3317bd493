//! Bodies in both directions: they stream, and whoever breaks off is known.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http::{Method, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tokenkeep_core::Generation;
use tokenkeep_engine::{
    Caller, CircuitSettings, Error,
    transport::{BodyError, OutboundBody},
};
use tokenkeep_testkit::{ApiBody, FakeApi};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, sync::mpsc};

use crate::{
    common::{TestEngine, alice},
    support::{Caught, Script, engine, frame, get, script, send, text},
};

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
async fn an_upload_that_stands_still_says_nothing_of_the_provider() {
    let caught = Caught::new().await;
    for nth in 1..=2 * CircuitSettings::default().failures as usize {
        let (caller, body) = script(Some(10));
        caller.send("hello".into()).unwrap();
        let error = given_up(&caught.t, Request::post("/").body(body).unwrap(), async || {
            caught.api.was_asked(nth).await;
        });
        assert_eq!(error.await.code(), "request_timeout");
    }
    assert_eq!(text(caught.call(send(Method::POST, "/", "whole")).await.unwrap()).await, "you sent whole");
}

#[tokio::test]
async fn an_api_that_takes_no_more_of_an_upload_is_the_one_that_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let t = engine(vec![format!("http://{}", listener.local_addr().unwrap())]).await;
    let endless = stream::repeat_with(|| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![0; 1 << 16]))));
    let request = Request::post("/").body(OutboundBody::new(StreamBody::new(endless))).unwrap();
    let mut taken = None;
    let error = given_up(&t, request, async || taken = Some(listener.accept().await.unwrap()));
    assert_eq!(error.await.code(), "provider_unavailable");
}

/// What a call ends with that nothing moves any more, once `begun`.
async fn given_up(t: &TestEngine, request: Request<OutboundBody>, begun: impl AsyncFnOnce()) -> Error {
    let engine = t.engine.clone();
    let call = tokio::spawn(async move { engine.proxy().call(&Caller::Local, &alice(), request).await.unwrap_err() });
    begun().await;
    while !call.is_finished() {
        t.world.clock.advance(Duration::from_secs(30));
        tokio::task::yield_now().await;
    }
    call.await.unwrap()
}

#[tokio::test]
async fn a_body_of_unknown_length_arrives_whole_whatever_the_method() {
    let api = FakeApi::start(|request: Request<ApiBody>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::builder().header("x-body", std::str::from_utf8(&body).unwrap()).body(ApiBody::empty()).unwrap()
    })
    .await;
    let t = engine(vec![api.host()]).await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::POST] {
        let (caller, body) = script(None);
        caller.send("hello".into()).unwrap();
        drop(caller);
        let request = Request::builder().method(&method).uri("/").body(body).unwrap();
        let reply = t.engine.proxy().call(&Caller::Local, &alice(), request).await.unwrap();
        assert_eq!(reply.headers()["x-body"], "hello", "{method}");
    }
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
