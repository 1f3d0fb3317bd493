//! Calls to providers' APIs, as callers make them.

use std::{convert::Infallible, sync::Mutex, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokenkeep_core::Role;
use tokenkeep_server::Limits;
use tokenkeep_testkit::{FakeApi, Fault};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use crate::{
    app::TestApp,
    operations::Log,
    serving::{connect, narrow, read, settle, tcp},
};

const ALICE: &str = "/proxy/fake/_default/alice";

/// An app whose provider has this API, and alice's token for it.
async fn with_api(api: &FakeApi) -> TestApp {
    let app = TestApp::start().await;
    let body = json!({"client_id": "fake-client", "client_secret": "fake-client-secret", "api_hosts": [api.host()]});
    assert_eq!(app.put("/v1/integrations/fake", body).await.status, 201);
    app.hold("alice", 3600).await;
    app
}

/// Answers with what it was sent.
async fn echo() -> FakeApi {
    FakeApi::start(|request: Request<Body>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::builder().status(201).header("x-request-id", "theirs").body(Body::from(body)).unwrap()
    })
    .await
}

#[tokio::test]
async fn the_path_and_the_query_go_there_as_they_came() {
    let api = echo().await;
    let app = with_api(&api).await;
    for (rest, target) in [
        ("", "/"),
        ("/", "/"),
        ("?x=1", "/?x=1"),
        ("/?x=1", "/?x=1"),
        ("/v1/me", "/v1/me"),
        ("/v1/me/", "/v1/me/"),
        ("/projects/a%2Fb/x%20y?q=%2F..%2F&r=a%0d%0ab", "/projects/a%2Fb/x%20y?q=%2F..%2F&r=a%0d%0ab"),
        ("/a//b;c=d/@e:f", "/a//b;c=d/@e:f"),
        ("/token", "/token"),
    ] {
        let answer = app.get(&format!("{ALICE}{rest}")).await;
        assert_eq!(answer.status, 201, "{rest}: {answer:?}");
        assert_eq!(api.asked().last().unwrap().target, target, "{rest}");
        let slowly = app.send_slowly(app.request("GET", &format!("{ALICE}{rest}")).body(Body::empty()).unwrap()).await;
        assert_eq!(slowly.status, 201, "{rest}: {slowly:?}");
        assert_eq!(api.asked().last().unwrap().target, target, "{rest}");
    }
}

#[tokio::test]
async fn any_method_and_body_goes_through_and_the_provider_s_answer_comes_back_as_it_is() {
    let api = echo().await;
    let app = with_api(&api).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "HEAD"] {
        let request = app.request(method, &format!("{ALICE}/x")).body(Body::from("hello")).unwrap();
        let answer = app.send(request).await;
        assert_eq!((answer.status.as_u16(), api.asked().last().unwrap().method.as_str()), (201, method));
        assert_eq!(answer.text(), if method == "HEAD" { "" } else { "hello" });
        assert_eq!(answer.header("x-request-id"), Some("theirs"));
        for ours in ["x-tokenkeep-error", "cache-control", "x-content-type-options"] {
            assert_eq!(answer.header(ours), None, "{ours}");
        }
    }
    assert!(!format!("{:?}", api.asked()).contains(&app.key), "our key stays here");
}

#[tokio::test]
async fn an_error_says_whose_it_is() {
    let api = FakeApi::start(|request: Request<Body>| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        Response::builder()
            .status(status)
            .header("content-type", "application/problem+json")
            .header("x-tokenkeep-error", "forged")
            .header("set-cookie", "session=theirs")
            .body(Body::from("{\"code\":\"theirs\"}"))
            .unwrap()
    })
    .await;
    let app = with_api(&api).await;
    for status in [301, 403, 404, 424, 503] {
        let answer = app.get(&format!("{ALICE}/{status}")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.text(), "{\"code\":\"theirs\"}");
        assert_eq!(answer.header("x-tokenkeep-error"), None);
        assert_eq!(answer.header("set-cookie"), None);
    }
    let both = async |path: &str, status: u16, code: &str| {
        let fast = app.get(path).await;
        let slow = app.send_slowly(app.request("GET", path).body(Body::empty()).unwrap()).await;
        for answer in [fast, slow] {
            answer.problem(status, code);
            assert_eq!(answer.header("x-tokenkeep-error"), Some(code), "{path}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert!(answer.header("x-request-id").is_some());
        }
    };
    both("/proxy/fake/_default/nobody/x", 404, "connection_not_found").await;
    both("/proxy/unknown/_default/alice/x", 502, "integration_missing").await;
    both("/proxy/Unknown/_default/alice/x", 400, "invalid_identifier").await;
    both("/proxy/fake/_default/%zz/x", 400, "invalid_identifier").await;
    both(&format!("{ALICE}/../x"), 400, "invalid_path").await;
    both(&format!("{ALICE}//x"), 400, "invalid_path").await;
    app.provider.revoke_subject("alice");
    app.clock.advance(Duration::from_hours(2));
    both(&format!("{ALICE}/200"), 424, "reauth_required").await;
    let metrics = app.get("/metrics").await;
    let counted = metrics.text().lines().any(|line| line.starts_with("tokenkeep_http_requests_total{route=\"/proxy/"));
    assert!(counted, "{}", metrics.text());
}

#[tokio::test]
async fn an_outage_is_never_a_refusal() {
    let api = echo().await;
    let app = with_api(&api).await;
    assert_eq!(app.get(ALICE).await.status, 201);
    app.break_store(true);
    assert_eq!(app.get(ALICE).await.status, 201, "what is known is enough");
    let answer = app.get("/proxy/fake/_default/bob").await;
    answer.problem(503, "store_unavailable");
    app.break_store(false);
    let nowhere = json!({"client_id": "c", "client_secret": "s", "api_hosts": ["http://127.0.0.1:1"]});
    assert_eq!(app.put("/v1/integrations/fake", nowhere).await.status, 200);
    app.get(ALICE).await.problem(503, "provider_unavailable");
}

#[tokio::test]
async fn only_who_may_call_calls() {
    let api = echo().await;
    let app = with_api(&api).await;
    for (key, status, code) in [
        (app.key(Role::Application, &[]).await, 201, None),
        (app.key(Role::Application, &["_default"]).await, 201, None),
        (app.key(Role::Application, &["acme"]).await, 403, Some("forbidden")),
        (app.key(Role::Operator, &[]).await, 403, Some("forbidden")),
        (app.key(Role::Reader, &[]).await, 403, Some("forbidden")),
        ("tk_unknown".to_owned(), 401, Some("invalid_api_key")),
    ] {
        for header in ["authorization", "x-api-key"] {
            let value = if header == "x-api-key" { key.clone() } else { format!("Bearer {key}") };
            let request = || Request::get(format!("{ALICE}/x")).header(header, &value).body(Body::empty()).unwrap();
            for answer in [app.send(request()).await, app.send_slowly(request()).await] {
                assert_eq!(answer.status, status, "{answer:?}");
                assert_eq!(answer.header("x-tokenkeep-error"), code);
            }
        }
    }
    let nobody = app.send(Request::get(ALICE).body(Body::empty()).unwrap()).await;
    nobody.problem(401, "invalid_api_key");
    assert_eq!(nobody.header("x-tokenkeep-error"), Some("invalid_api_key"));
    assert_eq!(api.asked().len(), 8);
}

#[tokio::test]
async fn an_upload_that_stands_still_is_its_caller_s_to_mend() {
    let api = echo().await;
    let app = with_api(&api).await;
    let (sender, body) = mpsc::unbounded_channel::<Bytes>();
    let body = Body::from_stream(futures_util::stream::unfold(body, async |mut body| {
        body.recv().await.map(|data| (Ok::<_, Infallible>(data), body))
    }));
    sender.send("half".into()).unwrap();
    let mut call = std::pin::pin!(app.send(app.request("POST", &format!("{ALICE}/x")).body(body).unwrap()));
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut call => break answer,
            () = tokio::task::yield_now() => app.clock.advance(Duration::from_secs(30)),
        }
    };
    answer.problem(408, "request_timeout");
    assert_eq!(answer.header("x-tokenkeep-error"), Some("request_timeout"));
}

#[tokio::test]
async fn every_retry_is_a_line_in_the_log() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let first = Mutex::new(None);
    let api = FakeApi::start(move |request: Request<Body>| {
        let token = request.headers()["authorization"].clone();
        let refused = *first.lock().unwrap().get_or_insert(token.clone()) == token;
        async move { Response::builder().status(if refused { 401 } else { 200 }).body(Body::empty()).unwrap() }
    })
    .await;
    let app = with_api(&api).await;
    let lines = |word: &str| -> Vec<String> {
        log.text().lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    };
    assert_eq!(app.get(ALICE).await.status, 200);
    let retries = lines("a call is made once more");
    assert_eq!(retries.len(), 1, "{}", log.text());
    for part in ["WARN", "connection=fake/_default/alice", "generation=1", "attempt=1", "status=401", "wait=0"] {
        assert!(retries[0].contains(part), "{part}: {}", retries[0]);
    }
    app.provider.fault(Fault::server_error());
    app.clock.advance(Duration::from_hours(2));
    app.get(ALICE).await.problem(503, "provider_unavailable");
    let failed = lines("a refresh failed");
    assert_eq!(failed.len(), 1, "{}", log.text());
    for part in ["WARN", "connection=fake/_default/alice", "generation=2", "attempt=1", "status=503", "wait=1"] {
        assert!(failed[0].contains(part), "{part}: {}", failed[0]);
    }
}

/// What is sent over a socket, byte for byte, after a request line and a host; `KEY` stands for a key. What comes of it:
/// a status of ours, or 201 for a call that arrived at `/x` as it should.
const ON_THE_WIRE: &[(&str, u16)] = &[
    // Targets.
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 201),
    ("GET http://elsewhere.example/proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 201),
    ("GET /proxy/fake/_default/alice/http://elsewhere.example/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 201),
    ("GET /proxy/fake/_default/alice/x#@elsewhere.example/ HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 201),
    ("GET /proxy/fake/_default/alice//elsewhere.example/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/\\elsewhere.example/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/%2Felsewhere.example HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/../../../v1/keys HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/%2e%2e/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/a%2f..%2fx HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/..;/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/x%0d%0aHost:%20elsewhere.example HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/x%00 HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/x\0 HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/x y HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice/x\r\nx-a: b\r\n HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/_default/alice@elsewhere.example/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 404),
    ("GET /proxy/fake/_default/../x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("GET /proxy/fake/../alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("CONNECT elsewhere.example HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 404),
    ("TRACE /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 400),
    ("OPTIONS * HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\n", 404),
    // Hosts.
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: elsewhere.example\r\nx-api-key: KEY\r\n", 201),
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: a\r\nhost: b\r\nx-api-key: KEY\r\n", 201),
    (
        "GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nx-forwarded-host: elsewhere.example\r\nforwarded: host=elsewhere.example\r\nx-original-url: /y\r\nx-rewrite-url: /y\r\n",
        201,
    ),
    (
        "GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nx-tokenkeep-host: elsewhere.example\r\n",
        400,
    ),
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nx-tokenkeep-host:\r\n", 400),
    // Credentials.
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nauthorization: Bearer KEY\r\nx-api-key: KEY\r\n", 201),
    (
        "GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nconnection: authorization, x-api-key, host, te\r\nte: trailers\r\n",
        201,
    ),
    (
        "GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\ncookie: a=KEY\r\nproxy-authorization: KEY\r\n",
        201,
    ),
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nauthorization: Basic dGs6\r\n", 401),
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\n", 401),
    // Framing.
    (
        "POST /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\ncontent-length: 5\r\ncontent-length: 6\r\n",
        400,
    ),
    ("POST /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\ncontent-length: 5, 6\r\n", 400),
    ("POST /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\ncontent-length: -1\r\n", 400),
    ("POST /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\ntransfer-encoding: xchunked\r\n", 400),
    (
        "POST /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\ntransfer-encoding: chunked, identity\r\n",
        400,
    ),
    (
        "GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nupgrade: websocket\r\nconnection: upgrade\r\n",
        201,
    ),
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nx-a: b\rc: d\r\n", 400),
    ("GET /proxy/fake/_default/alice/x HTTP/1.1\r\nhost: t\r\nx-api-key: KEY\r\nx-a : b\r\n", 400),
];

#[tokio::test]
async fn whatever_is_on_the_wire_leads_to_the_api_or_nowhere() {
    let elsewhere = echo().await;
    let api = FakeApi::start(|request: Request<Body>| async {
        request.into_body().collect().await.unwrap();
        Response::builder().status(201).body(Body::empty()).unwrap()
    })
    .await;
    let app = with_api(&api).await;
    let (address, serving) = tcp(&app, Limits::default()).await;
    let mut arrived = 0;
    for (wire, status) in ON_THE_WIRE {
        let wire = wire.replace("KEY", &app.key).replace("elsewhere.example", &elsewhere.authority());
        let mut stream = connect(address).await;
        stream.write_all(format!("{wire}\r\n").as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{wire}\n{head}");
        assert!(!head.contains(&app.key));
        arrived += usize::from(*status == 201);
        let asked = api.asked();
        assert_eq!(asked.len(), arrived, "{wire}");
        if *status == 201 {
            let asked = asked.last().unwrap();
            let expected = if wire.contains("alice/http:") {
                format!("/http://{}/x", elsewhere.authority())
            } else {
                "/x".to_owned()
            };
            assert_eq!(asked.target, expected, "{wire}");
            assert_eq!(asked.headers.get_all("host").iter().count(), 1);
            assert_eq!(asked.header("host"), Some(&*api.authority()), "{wire}");
            let token = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap();
            assert!(app.provider.is_access_live(token), "{wire}");
            let sent = format!("{:?}", asked.headers);
            assert!(!sent.contains(&app.key) && !sent.contains(&elsewhere.authority()), "{wire}\n{sent}");
        }
    }
    assert_eq!(elsewhere.opened(), 0);
    let _ = serving.stop.send(());
}

#[tokio::test]
async fn a_request_that_smuggles_another_is_one_request() {
    let api = FakeApi::start(|request: Request<Body>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::from(body))
    })
    .await;
    let app = with_api(&api).await;
    let (address, serving) = tcp(&app, Limits::default()).await;
    // Two lengths: whoever goes by the shorter one takes the rest for a request of its own.
    let body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = connect(address).await;
    let head = format!("POST {ALICE}/x HTTP/1.1\r\nhost: t\r\nx-api-key: {}\r\n", app.key);
    let lengths = format!("content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n", body.len());
    stream.write_all(format!("{head}{lengths}{body}").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(api.asked().iter().all(|asked| asked.target == "/x"), "{:?}", api.asked());
    for asked in api.asked() {
        assert!(asked.header("content-length").is_none() || asked.header("transfer-encoding").is_none());
    }
    let _ = serving.stop.send(());
}

#[tokio::test]
async fn a_caller_who_expects_it_is_told_to_go_on() {
    let api = echo().await;
    let app = with_api(&api).await;
    let (address, serving) = tcp(&app, Limits::default()).await;
    let mut stream = connect(address).await;
    let head = format!(
        "PUT {ALICE}/x HTTP/1.1\r\nhost: t\r\nx-api-key: {}\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
        app.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (head, _) = read(&mut stream).await;
    assert_eq!(head, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let (head, body) = read(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 201 Created\r\n"), "{head}");
    assert_eq!(body, "hello");
    assert_eq!(api.asked()[0].header("expect"), None);
    let _ = serving.stop.send(());
}

#[tokio::test]
async fn events_come_as_they_are_sent_however_long_they_take() {
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    let receiver = Mutex::new(Some(receiver));
    let api = FakeApi::start(move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        let events = futures_util::stream::unfold(receiver, |mut receiver| async {
            Some((Ok::<_, Infallible>(receiver.recv().await?), receiver))
        });
        let reply = Response::builder().header("content-type", "text/event-stream");
        let reply = reply.body(Body::from_stream(events)).unwrap();
        async { reply }
    })
    .await;
    let app = with_api(&api).await;
    let (address, serving) = tcp(&app, Limits::default()).await;
    let mut stream = connect(address).await;
    let get = format!("GET {ALICE}/events HTTP/1.1\r\nhost: t\r\nx-api-key: {}\r\n\r\n", app.key);
    stream.write_all(get.as_bytes()).await.unwrap();
    let (head, _) = read(&mut stream).await;
    assert!(head.contains("content-type: text/event-stream\r\n") && head.contains("transfer-encoding: chunked\r\n"));
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        sender.send(event.into()).unwrap();
        let mut chunk = vec![0; format!("{:X}\r\n{event}\r\n", event.len()).len()];
        stream.read_exact(&mut chunk).await.unwrap();
        assert!(String::from_utf8(chunk).unwrap().contains(event));
        // Longer than any connection may be quiet for.
        for _ in 0..20 {
            app.clock.advance(Duration::from_secs(25));
            tokio::task::yield_now().await;
        }
    }
    drop(stream);
    api.was_left(1).await;
    let _ = serving.stop.send(());
}

#[tokio::test]
async fn a_download_lasts_for_as_long_as_its_client_reads() {
    let api = FakeApi::start(|_| async {
        let chunks = futures_util::stream::repeat(Bytes::from(vec![7; 64 * 1024])).map(Ok::<_, Infallible>);
        Response::new(Body::from_stream(chunks))
    })
    .await;
    let app = with_api(&api).await;
    let limits = Limits::default();
    let look = limits.quiet / 3;
    let (mut client, serving) = narrow(&app, limits).await;
    let get = format!("GET {ALICE}/endless HTTP/1.1\r\nhost: t\r\nx-api-key: {}\r\n\r\n", app.key);
    client.write_all(get.as_bytes()).await.unwrap();
    let mut some = vec![0; 64 * 1024];
    for _ in 0..30 {
        client.read_exact(&mut some).await.unwrap();
        app.clock.advance(look);
        settle().await;
    }
    // From now on it reads nothing.
    let mut left = std::pin::pin!(api.was_left(1));
    for looks in 0.. {
        assert!(looks < 100, "it holds its connection for ever");
        tokio::select! {
            biased;
            () = &mut left => break,
            () = settle() => app.clock.advance(look),
        }
    }
    let _ = serving.stop.send(());
}
