//! Connections to APIs that are kept.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, StatusCode};
use tokenkeep_engine::Caller;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    common::alice,
    support::{Caught, engine, get, send, text},
};

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
