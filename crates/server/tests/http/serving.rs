//! The accept loop, over real sockets of this machine.

use std::{path::Path, time::Duration};

use serde_json::json;
use tokenkeep_server::{Limits, Listener, serve};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};

use crate::app::TestApp;

pub(crate) struct Serving {
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

fn start(app: &TestApp, listener: Listener, limits: Limits) -> Serving {
    let (stop, stopped) = oneshot::channel();
    let state = app.state.clone();
    let task = tokio::spawn(serve(listener, state, limits, async { drop(stopped.await) }));
    Serving { stop, task }
}

pub(crate) async fn tcp(app: &TestApp, limits: Limits) -> (std::net::SocketAddr, Serving) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, start(app, Listener::Tcp(listener), limits))
}

pub(crate) async fn connect(address: std::net::SocketAddr) -> BufReader<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "a client of our own server, in a test")]
    let stream = TcpStream::connect(address).await.unwrap();
    BufReader::new(stream)
}

/// A client of `app`'s with little room on the way to it: what is sent it has soon read, or it has not.
pub(crate) async fn narrow(app: &TestApp, limits: Limits) -> (TcpStream, Serving) {
    const ROOM: u32 = 8 * 1024;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(ROOM).unwrap(); // of all whom the listener lets in
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = start(app, Listener::Tcp(listener), limits);
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(ROOM).unwrap();
    (client.connect(address).await.unwrap(), serving)
}

/// Lets everybody do what they can do without the clock.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Reads one answer: its head, and a body of `content-length`.
pub(crate) async fn read(stream: &mut (impl AsyncBufReadExt + Unpin)) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "cut off: {head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn tokens_over_one_connection_pipelined() {
    let app = TestApp::start().await;
    app.put("/v1/connections/fake/_default/alice", json!({"access_token": "at-1"})).await;
    app.get("/v1/connections/fake/_default/alice/token").await;
    let (address, serving) = tcp(&app, Limits::default()).await;
    let mut stream = connect(address).await;
    let get =
        format!("GET /v1/connections/fake/_default/alice/token HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n", app.key);
    let healthz = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(format!("{get}{healthz}{get}").as_bytes()).await.unwrap();
    let (head, body) = read(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert_eq!(body, r#"{"access_token":"at-1","token_type":"Bearer","generation":1}"#);
    assert_eq!(read(&mut stream).await.1, r#"{"status":"live"}"#);
    assert_eq!(read(&mut stream).await.1, body);

    let _ = serving.stop.send(());
    serving.task.await.unwrap().unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed");
}

#[tokio::test]
async fn an_answer_under_way_is_finished_before_the_end() {
    let app = TestApp::start().await;
    app.integrate().await;
    app.hold("alice", 60).await;
    app.clock.advance(Duration::from_secs(61));
    let (address, serving) = tcp(&app, Limits::default()).await;
    let mut stream = connect(address).await;
    let gate = app.provider.hold_reply();
    let get =
        format!("GET /v1/connections/fake/_default/alice/token HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n", app.key);
    stream.write_all(get.as_bytes()).await.unwrap();
    gate.arrived().await;
    let _ = serving.stop.send(());
    gate.release();
    let (head, body) = read(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(body.contains("\"generation\":2"), "{body}");
    serving.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    let app = TestApp::start().await;
    let (address, serving) = tcp(&app, Limits { connections: 1, ..Limits::default() }).await;
    let ask = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = connect(address).await;
    first.write_all(ask.as_bytes()).await.unwrap();
    read(&mut first).await;
    let mut second = connect(address).await;
    second.write_all(ask.as_bytes()).await.unwrap();
    first.write_all(ask.as_bytes()).await.unwrap();
    read(&mut first).await;
    drop(first);
    read(&mut second).await;
    let _ = serving.stop.send(());
    serving.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn nonsense_on_the_wire_ends_its_connection_only() {
    let app = TestApp::start().await;
    let (address, serving) = tcp(&app, Limits::default()).await;
    let headers = "a: b\r\n".repeat(100);
    for (nonsense, answer) in [
        ("\0\0\0\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("no request at all\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (format!("GET / HTTP/1.1\r\n{headers}\r\n"), "HTTP/1.1 431"),
    ] {
        let mut stream = connect(address).await;
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        assert!(read.starts_with(answer), "{nonsense:?}: {read}");
    }
    let mut stream = connect(address).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(read(&mut stream).await.1, r#"{"status":"live"}"#);
    let _ = serving.stop.send(());
    serving.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_socket_in_the_data_directory_lets_its_owner_in() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("tokenkeep.sock");
    let serving = start(&app, Listener::Unix(UnixListener::bind(path).unwrap()), Limits::default());
    let mut stream = BufReader::new(UnixStream::connect(path).await.unwrap());
    stream.write_all(b"GET /v1/keys HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (head, body) = read(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(body.contains("\"role\":\"admin\""), "{body}");
    let _ = serving.stop.send(());
    serving.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn whoever_sends_too_slowly_is_sent_away() {
    let app = TestApp::start().await;
    let limits = Limits::default();
    let look = limits.quiet / 3;
    let (address, serving) = tcp(&app, limits).await;
    let mut lively = connect(address).await;
    let mut slow = connect(address).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
    let mut byte = [0; 1];
    let mut closed = std::pin::pin!(slow.read(&mut byte));
    for looks in 0.. {
        assert!(looks < 100, "it was never sent away");
        lively.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read(&mut lively).await;
        tokio::select! {
            biased;
            end = &mut closed => {
                assert_eq!(end.unwrap(), 0);
                break;
            }
            () = tokio::task::yield_now() => app.clock.advance(look),
        }
    }
    lively.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(read(&mut lively).await.1, r#"{"status":"live"}"#);
    let _ = serving.stop.send(());
    serving.task.await.unwrap().unwrap();
}
