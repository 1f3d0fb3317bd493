//! Bodies that last: events that come when they come, and much of everything.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::IntoResponse as _};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, header};
use http_body_util::BodyExt as _;
use tokenkeep_server::{Door, FastLane, Limits, Listener, serve};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tower::ServiceExt as _;

use super::{Behind, IssuerApp, calling};
use crate::serving::{narrow, settle};

/// A server whose answer to anything is a stream of what the test sends.
struct Events {
    behind: Behind,
    /// One for each request, in their order.
    streams: mpsc::UnboundedReceiver<mpsc::UnboundedSender<io::Result<Bytes>>>,
}

impl Events {
    async fn start() -> Self {
        let (note, streams) = mpsc::unbounded_channel();
        let handler = move |_: Request| async move {
            let (sender, receiver) = mpsc::unbounded_channel();
            note.send(sender).unwrap();
            let frames = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
            ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from_stream(frames)).into_response()
        };
        let behind = Behind::running(Router::new().fallback(handler), Arc::default()).await;
        Self { behind, streams }
    }
}

#[tokio::test]
async fn each_event_comes_when_it_is_sent_and_nobody_speaks_to_a_client_that_is_gone() {
    let mut events = Events::start().await;
    let app = IssuerApp::before(&events.behind, "").await;
    let token = app.tools_token("").await;
    for method in ["GET", "POST"] {
        let request = calling(method, "/mcp", &token, &[("accept", "text/event-stream")]);
        let Ok(answer) = FastLane::new(app.app.state.clone(), Door::Network).oneshot(request).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(answer.headers()["x-accel-buffering"], "no", "a proxy in front of us must not wait for more either");
        assert!(!answer.headers().contains_key("content-length"));
        let behind = events.streams.recv().await.unwrap();
        let mut body = answer.into_body();
        for n in 0..3 {
            let event = format!("id: {n}\ndata: {{}}\n\n");
            behind.send(Ok(event.clone().into())).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), event);
        }
        drop(body);
        behind.closed().await;
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_does_not_look_finished() {
    let mut events = Events::start().await;
    let app = IssuerApp::before(&events.behind, "").await;
    let token = app.tools_token("").await;
    for breaks in [false, true] {
        let Ok(answer) =
            FastLane::new(app.app.state.clone(), Door::Network).oneshot(calling("POST", "/mcp", &token, &[])).await;
        let behind = events.streams.recv().await.unwrap();
        behind.send(Ok("half".into())).unwrap();
        let mut body = answer.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        if breaks {
            behind.send(Err(io::Error::other("cut"))).unwrap();
        }
        drop(behind);
        assert_eq!(body.frame().await.is_some_and(|frame| frame.is_err()), breaks);
    }
}

const MIB: usize = 1024 * 1024;
const MANY: usize = 48;

fn much() -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::repeat(Bytes::from(vec![7; MIB])).take(MANY).map(Ok)
}

#[tokio::test]
async fn much_goes_through_both_ways_without_being_kept() {
    let swallow = |request: Request| async move {
        if request.method() == Method::GET {
            return Body::from_stream(much()).into_response();
        }
        let mut body = request.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame.unwrap().into_data().map_or(0, |data| data.len());
        }
        length.to_string().into_response()
    };
    let behind = Behind::running(Router::new().fallback(swallow), Arc::default()).await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    let mut upload = calling("POST", "/mcp", &token, &[]);
    *upload.body_mut() = Body::from_stream(much());
    assert_eq!(app.app.send(upload).await.text(), (MANY * MIB).to_string());
    let download = app.call("GET", "/mcp", &token, &[]).await;
    assert_eq!(download.body.len(), MANY * MIB);
}

/// A client that never reads holds the server back, and not us: nothing piles up here.
#[tokio::test]
async fn a_server_is_no_faster_than_its_client() {
    let sent = Arc::new(Mutex::new(0));
    let counted = sent.clone();
    let flood = move |_: Request| async move {
        let chunks = stream::repeat(Bytes::from(vec![7; MIB])).map(move |chunk| {
            *counted.lock().unwrap() += 1;
            Ok::<_, Infallible>(chunk)
        });
        Body::from_stream(chunks).into_response()
    };
    let behind = Behind::running(Router::new().fallback(flood), Arc::default()).await;
    let app = IssuerApp::before(&behind, "").await;
    let request = calling("GET", "/mcp", &app.tools_token("").await, &[]);
    let Ok(answer) = FastLane::new(app.app.state.clone(), Door::Network).oneshot(request).await;
    let mut body = answer.into_body();
    body.frame().await.unwrap().unwrap();
    let mut before = usize::MAX;
    while *sent.lock().unwrap() != before {
        before = *sent.lock().unwrap();
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
    }
    assert!(before < 64, "{before} MiB were taken from it");
}

struct Serving {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

async fn serving(app: &IssuerApp, limits: Limits) -> Serving {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task =
        tokio::spawn(serve(Listener::Tcp(listener), app.app.state.clone(), limits, async { drop(stopped.await) }));
    Serving { address, stop, task }
}

/// What a client asks to listen: since the revision of 2026-07-28 by `POST`.
const LISTEN: &str = "subscriptions/listen";

fn asking(method: &str, named: &str, token: &str) -> String {
    format!(
        "{method} /mcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\naccept: text/event-stream\r\n\
         mcp-method: {named}\r\ncontent-length: 0\r\n\r\n"
    )
}

async fn ask(address: std::net::SocketAddr, method: &str, named: &str, token: &str) -> BufReader<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "a client of our own server, in a test")]
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(asking(method, named, token).as_bytes()).await.unwrap();
    BufReader::new(stream)
}

/// Reads lines until one is `wanted`.
async fn until(stream: &mut BufReader<TcpStream>, wanted: &str) {
    let mut line = String::new();
    while line.trim_end() != wanted {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "it ended before {wanted:?}");
    }
}

#[tokio::test]
async fn a_stream_may_be_silent_and_a_connection_without_one_may_not() {
    let mut events = Events::start().await;
    let app = IssuerApp::before(&events.behind, "").await;
    let token = app.tools_token("").await;
    let limits = Limits::default();
    let look = limits.quiet / 3;
    let serving = serving(&app, limits).await;
    let mut listening = ask(serving.address, "GET", "", &token).await;
    let behind = events.streams.recv().await.unwrap();
    until(&mut listening, "").await;

    #[expect(clippy::disallowed_methods, reason = "a client of our own server, in a test")]
    let mut idle = TcpStream::connect(serving.address).await.unwrap();
    let mut byte = [0; 1];
    let mut closed = std::pin::pin!(idle.read(&mut byte));
    for looks in 0.. {
        assert!(looks < 100, "the idle one was never sent away");
        tokio::select! {
            biased;
            end = &mut closed => {
                assert_eq!(end.unwrap(), 0);
                break;
            }
            () = tokio::task::yield_now() => app.app.clock.advance(look),
        }
    }
    for _ in 0..60 {
        app.app.clock.advance(look);
        tokio::task::yield_now().await;
    }
    behind.send(Ok("data: still here\n\n".into())).unwrap();
    until(&mut listening, "data: still here").await;
    drop(listening);
    behind.closed().await;
    let _ = serving.stop.send(());
    serving.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn going_down_ends_streams_that_would_go_on_and_waits_for_answers() {
    let mut events = Events::start().await;
    let app = IssuerApp::before(&events.behind, "").await;
    let token = app.tools_token("").await;
    let limits = Limits { drain: Duration::from_secs(30), ..Limits::default() };
    let serving = serving(&app, limits).await;
    let mut listening = Vec::new();
    for (method, named) in [("GET", ""), ("POST", LISTEN)] {
        let mut client = ask(serving.address, method, named, &token).await;
        let endless = events.streams.recv().await.unwrap();
        until(&mut client, "").await;
        listening.push((client, endless));
    }
    let mut calling = ask(serving.address, "POST", "tools/call", &token).await;
    let answer = events.streams.recv().await.unwrap();
    until(&mut calling, "").await;
    let _ = serving.stop.send(());
    for (mut client, endless) in listening {
        // The last chunk is there: it ended in order.
        until(&mut client, "0").await;
        endless.closed().await;
    }
    answer.send(Ok("data: done\n\n".into())).unwrap();
    until(&mut calling, "data: done").await;
    drop(answer);
    until(&mut calling, "0").await;
    serving.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_was_opened_with() {
    let mut events = Events::start().await;
    let app = IssuerApp::before(&events.behind, "").await;
    for (method, named, is_revoked) in [
        ("GET", "", true),
        ("GET", "", false),
        ("POST", LISTEN, true),
        ("POST", LISTEN, false),
        ("POST", "tools/call", true),
        ("POST", "tools/call", false),
    ] {
        let token = app.tools_token("").await;
        let request = calling(method, "/mcp", &token, &[("mcp-method", named)]);
        let Ok(answer) = FastLane::new(app.app.state.clone(), Door::Network).oneshot(request).await;
        let behind = events.streams.recv().await.unwrap();
        behind.send(Ok("data: 1\n\n".into())).unwrap();
        let mut body = answer.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        if is_revoked {
            let form = [("client_id", "native"), ("token", &*token)];
            assert_eq!(app.post("/revoke", None, &form).await.status, 200);
        }
        let mut end = std::pin::pin!(body.frame());
        for looks in 0.. {
            assert!(looks < 1000, "{method} {named} never ended");
            tokio::select! {
                biased;
                end = &mut end => {
                    assert!(end.is_none(), "it ends in order");
                    break;
                }
                () = tokio::task::yield_now() => app.app.clock.advance(Duration::from_secs(30)),
            }
            assert!(!is_revoked || looks < 100, "{method} {named} outlived the revocation");
        }
        drop(body);
        behind.closed().await;
    }
}

#[tokio::test]
async fn an_answer_under_way_may_outlive_its_token_for_a_while() {
    let mut events = Events::start().await;
    let app = IssuerApp::before(&events.behind, "").await;
    let token = app.tools_token("").await;
    let request = calling("POST", "/mcp", &token, &[("mcp-method", "tools/call")]);
    let Ok(answer) = FastLane::new(app.app.state.clone(), Door::Network).oneshot(request).await;
    let behind = events.streams.recv().await.unwrap();
    let mut body = answer.into_body();
    while app.introspected(&token).await["active"] == true {
        app.app.clock.advance(Duration::from_mins(1));
    }
    for n in 0..10 {
        behind.send(Ok(format!("data: {n}\n\n").into())).unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        app.app.clock.advance(Duration::from_secs(30));
    }
}

#[tokio::test]
async fn a_client_listens_to_so_many_streams_and_no_more() {
    let mut events = Events::start().await;
    let app = IssuerApp::before(&events.behind, "").await;
    let token = app.tools_token("").await;
    let lane = FastLane::new(app.app.state.clone(), Door::Network);
    let ask = async |method: &str, named: &str, token: &str| {
        let request = calling(method, "/mcp", token, &[("mcp-method", named)]);
        let Ok(answer) = lane.clone().oneshot(request).await;
        answer
    };
    let mut listening = Vec::new();
    for _ in 0..32 {
        listening.push((ask("GET", "", &token).await, events.streams.recv().await.unwrap()));
        listening.push((ask("POST", LISTEN, &token).await, events.streams.recv().await.unwrap()));
    }
    assert!(listening.iter().all(|(answer, _)| answer.status() == 200));
    for (method, named) in [("GET", ""), ("POST", LISTEN)] {
        let refused = ask(method, named, &token).await;
        assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"60".parse().unwrap()));
        events.streams.recv().await.unwrap().closed().await;
    }
    assert_eq!(ask("POST", "tools/call", &token).await.status(), 200);
    // What somebody allowed another client is another's to use.
    let another = app.tools_token("").await;
    assert_eq!(ask("GET", "", &another).await.status(), 200);
    listening.pop();
    assert_eq!(ask("GET", "", &token).await.status(), 200);
}

/// A server whose answer never ends, however much of it is taken; and what ends once nobody wants it any more.
async fn endless(kind: &'static str) -> (Behind, mpsc::UnboundedReceiver<()>) {
    let (wanted, gone) = mpsc::unbounded_channel();
    let wanted = Arc::new(Mutex::new(Some(wanted)));
    let flood = move |_: Request| async move {
        let wanted = wanted.lock().unwrap().take();
        let chunks = stream::repeat(Bytes::from(vec![7; MIB])).map(move |chunk| {
            let _until_it_is_dropped = &wanted;
            Ok::<_, Infallible>(chunk)
        });
        ([(header::CONTENT_TYPE, kind)], Body::from_stream(chunks)).into_response()
    };
    (Behind::running(Router::new().fallback(flood), Arc::default()).await, gone)
}

#[tokio::test]
async fn who_never_reads_an_answer_is_hung_up_on() {
    for (method, kind) in [("GET", "text/event-stream"), ("POST", "text/event-stream"), ("POST", "application/json")] {
        let (behind, mut gone) = endless(kind).await;
        let app = IssuerApp::before(&behind, "").await;
        let token = app.tools_token("").await;
        let limits = Limits::default();
        let look = limits.quiet / 3;
        let (mut client, serving) = narrow(&app.app, limits).await;
        client.write_all(asking(method, "", &token).as_bytes()).await.unwrap();
        assert_ne!(client.read(&mut [0; 12]).await.unwrap(), 0);
        let mut gone = std::pin::pin!(gone.recv());
        for looks in 0.. {
            assert!(looks < 100, "{method} {kind}: it holds its connection for ever");
            tokio::select! {
                biased;
                _ = &mut gone => break,
                () = settle() => app.app.clock.advance(look),
            }
        }
        let _ = serving.stop.send(());
    }
}

#[tokio::test]
async fn a_length_that_is_not_the_answers_cuts_nothing_off() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/inner", listener.local_addr().unwrap()).parse().unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        until(&mut stream, "").await;
        let said = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
                    b\r\nhello world\r\n0\r\n\r\n";
        stream.write_all(said.as_bytes()).await.unwrap();
    });
    let behind = Behind { url, seen: Arc::default(), task };
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    let serving = serving(&app, Limits::default()).await;
    let mut client = ask(serving.address, "POST", "", &token).await;
    let mut line = String::new();
    while line.trim_end() != "hello world" {
        line.clear();
        assert_ne!(client.read_line(&mut line).await.unwrap(), 0, "it was cut");
        assert!(!line.starts_with("content-length"), "{line}");
    }
    until(&mut client, "0").await;
}
