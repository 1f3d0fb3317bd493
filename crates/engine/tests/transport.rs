//! The transport against real sockets.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokenkeep_core::{
    Boot,
    ports::{Clock as _, Endpoint, Peers, Reply, Request, SendError, Transport as _, TransportError},
};
use tokenkeep_engine::transport::{HyperTransport, Pacer, Pacing, TransportOptions};
use tokenkeep_testkit::{Config, FakeProvider, Fault, ManualClock, Site};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(5);

fn transport(options: &TransportOptions) -> (ManualClock, HyperTransport) {
    let clock = ManualClock::at("2030-01-01T00:00:00Z".parse().unwrap());
    let pacer = Arc::new(Pacer::new(Arc::new(clock.clone()), Pacing::default()));
    (clock.clone(), HyperTransport::new(Arc::new(clock), pacer, options).unwrap())
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint { url: url.parse().unwrap(), timeout: TIMEOUT, peers: Peers::Any }
}

fn post(url: &str, body: &str) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
    Request { method: Method::POST, url: url.parse().unwrap(), headers, body: body.as_bytes().to_vec().into() }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token?x=1", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads one request with a body of `length` bytes.
async fn read_request(stream: &mut (impl AsyncRead + Unpin), length: usize) -> String {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") || !body_is_there(&request, length) {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request broke off");
    }
    String::from_utf8(request).unwrap()
}

fn body_is_there(request: &[u8], length: usize) -> bool {
    let end = request.windows(4).position(|w| w == b"\r\n\r\n");
    end.is_some_and(|end| request.len() >= end + 4 + length)
}

/// Sends `secret=1` to a server that answers with `answer` and closes.
async fn ask(answer: &[u8]) -> (Result<Reply, SendError>, String) {
    let (_, transport) = transport(&TransportOptions::default());
    let (listener, url) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream, "secret=1".len()).await;
        // Whoever is told too much may hang up early.
        let _gone = stream.write_all(answer).await;
        request
    };
    let client = async {
        let connected = transport.connect(&endpoint(&url)).await.unwrap();
        connected.send(post(&url, "secret=1"), None).await
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn a_request_is_written_as_asked_and_its_reply_read_whole() {
    let answer =
        b"HTTP/1.1 201 Created\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let (reply, request) = ask(answer).await;
    let reply = reply.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::CREATED, &b"abcde"[..]));
    assert_eq!(reply.headers["x-a"], "b");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /token?x=1 HTTP/1.1\r\n"), "{head}");
    let agent = concat!("user-agent: tokenkeep/", env!("CARGO_PKG_VERSION"));
    for line in ["host: 127.0.0.1:", "content-length: 8", "connection: close", agent] {
        assert!(head.contains(&format!("\r\n{line}")), "{line} in {head}");
    }
    assert_eq!(body, "secret=1");
}

#[tokio::test]
async fn a_redirect_is_a_reply() {
    let (reply, _) =
        ask(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
    let reply = reply.unwrap();
    assert_eq!(
        (reply.status, &reply.headers["location"]),
        (StatusCode::TEMPORARY_REDIRECT, &"http://127.0.0.1:1/".parse().unwrap())
    );
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_a_cut() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"nonsense\r\n\r\n",
    ] {
        let (reply, _) = ask(answer).await;
        assert!(matches!(reply, Err(SendError::Cut { .. })), "{reply:?}");
    }
}

#[tokio::test]
async fn a_reply_may_have_a_mebibyte_and_no_more() {
    for (length, fits) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let (reply, _) = ask(&[head.as_bytes(), &vec![b'x'; length]].concat()).await;
        match reply {
            Ok(reply) => assert!(fits && reply.body.len() == length),
            Err(error) => assert!(!fits && matches!(error, SendError::TooLong { .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn of_a_reply_no_more_is_read_than_was_asked_for() {
    let (_, transport) = transport(&TransportOptions::default());
    let (listener, url) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream, 0).await;
        // One that never ends.
        let head = b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(&[&head[..], b"4\r\nabcd\r\n", b"2\r\nef\r\n"].concat()).await.unwrap();
        let _gone = stream.read_to_end(&mut Vec::new()).await;
    };
    let client = async {
        let connected = transport.connect(&endpoint(&url)).await.unwrap();
        connected.send_for(post(&url, ""), None, 5).await
    };
    let (reply, ()) = tokio::join!(client, server);
    assert!(matches!(reply, Err(SendError::TooLong { status: StatusCode::NOT_FOUND })), "{reply:?}");
}

/// Connects, lets `wait` pass, and sends a request that may go out within two seconds. Says what the server saw.
async fn send_late(
    wait: Duration,
    url: &str,
    listener: TcpListener,
    options: &TransportOptions,
) -> (SendError, Vec<u8>) {
    let (clock, transport) = transport(options);
    let tls = url.starts_with("https");
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        // The connection may end by a reset instead of a farewell.
        let _end = if tls {
            Site::acceptor().accept(stream).await.unwrap().read_to_end(&mut seen).await
        } else {
            stream.read_to_end(&mut seen).await
        };
        seen
    };
    let client = async {
        let connected = transport.connect(&endpoint(url)).await.unwrap();
        let not_after = clock.now().boot + Duration::from_secs(2);
        clock.advance(wait);
        let exchange = connected.send(post(url, "secret=1"), Some(not_after));
        // A server that only listens never answers: what was sent in time ends with the cap.
        let cap = async {
            clock.sleepers(1).await;
            clock.advance(Duration::from_mins(2));
        };
        tokio::select! {
            biased;
            result = exchange => result.unwrap_err(),
            error = async { cap.await; std::future::pending().await } => error,
        }
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn nothing_is_sent_once_its_time_is_over() {
    let (listener, url) = listen().await;
    let (error, seen) = send_late(Duration::from_secs(2), &url, listener, &TransportOptions::default()).await;
    assert!(matches!(error, SendError::NotSent { .. }), "{error:?}");
    assert_eq!(seen, b"");
}

#[tokio::test]
async fn nothing_is_sent_over_tls_either() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let (error, seen) = send_late(Duration::from_secs(2), &url, listener, &extra_ca()).await;
    assert!(matches!(error, SendError::NotSent { .. }), "{error:?}");
    assert_eq!(seen, b"");
}

#[tokio::test]
async fn an_exchange_without_a_reply_ends_as_a_cut() {
    let (listener, url) = listen().await;
    let (error, seen) = send_late(Duration::from_millis(1999), &url, listener, &TransportOptions::default()).await;
    assert!(matches!(&error, SendError::Cut { reason } if reason == "no complete reply within 120 s"), "{error:?}");
    assert!(seen.ends_with(b"secret=1"));
}

#[tokio::test]
async fn whoever_drops_an_exchange_cuts_it() {
    let (_, transport) = transport(&TransportOptions::default());
    let (listener, url) = listen().await;
    let connected = transport.connect(&endpoint(&url)).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    tokio::select! {
        biased;
        result = connected.send(post(&url, "secret=1"), None) => panic!("{result:?}"),
        request = read_request(&mut stream, "secret=1".len()) => assert!(request.ends_with("secret=1")),
    }
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_goes_only_where_its_connection_leads() {
    let (_, transport) = transport(&TransportOptions::default());
    let provider = FakeProvider::start(Arc::new(ManualClock::default()), Config::default()).await;
    let connected = transport.connect(&endpoint(provider.url("/token").as_str())).await.unwrap();
    let result = connected.send(post("https://127.0.0.1/token", "secret=1"), None).await;
    assert!(matches!(result, Err(SendError::NotSent { .. })), "{result:?}");
    assert_eq!(provider.calls(), 0);
}

#[tokio::test]
async fn plain_http_is_for_this_machine_only() {
    let (_, strict) = transport(&TransportOptions::default());
    for url in [
        "http://192.0.2.1/",
        "http://provider.example/",
        "http://localhost.evil.example/",
        "ftp://127.0.0.1/",
        "data:x",
    ] {
        let error = strict.connect(&endpoint(url)).await.unwrap_err();
        assert!(matches!(error, TransportError::Forbidden { .. }), "{url}: {error:?}");
    }
    let (listener, url) = listen().await;
    let url = url.replace("127.0.0.1", "localhost");
    strict.connect(&endpoint(&url)).await.unwrap();
    drop(listener);
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let (listener, url) = listen().await;
    drop(listener);
    let (_, transport) = transport(&TransportOptions::default());
    let error = transport.connect(&endpoint(&url)).await.unwrap_err();
    assert!(matches!(&error, TransportError::Unreachable { host, .. } if host == "127.0.0.1"), "{error:?}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let (listener, url) = listen().await;
    let (clock, transport) = transport(&extra_ca());
    let url = url.replace("http:", "https:");
    let endpoint = endpoint(&url);
    let connecting = transport.connect(&endpoint);
    let time = async {
        let _silent = listener.accept().await.unwrap();
        clock.sleepers(1).await;
        clock.advance(TIMEOUT);
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        result = connecting => result.unwrap_err(),
        () = time => unreachable!(),
    };
    assert!(
        matches!(&error, TransportError::Unreachable { reason, .. } if reason == "no connection within 5 s"),
        "{error:?}"
    );
}

fn extra_ca() -> TransportOptions {
    TransportOptions { extra_ca_file: Some(Site::ca_file()), ..TransportOptions::default() }
}

/// A TLS server that answers every request with 204.
async fn tls_server() -> SocketAddr {
    async fn answer(stream: TcpStream) -> std::io::Result<()> {
        let mut stream = Site::acceptor().accept(stream).await?;
        answer_no_content(&mut stream).await
    }
    async fn answer_no_content(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
        read_request(stream, 0).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        stream.shutdown().await
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us hangs up.
            let _refused = answer(stream).await;
        }
    });
    address
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_named() {
    let port = tls_server().await.port();
    let url = format!("https://localhost:{port}/");
    let (clock, trusting) = transport(&extra_ca());
    let connected = trusting.connect(&endpoint(&url)).await.unwrap();
    let reply = connected.send(post(&url, ""), Some(clock.now().boot + TIMEOUT)).await.unwrap();
    assert_eq!(reply.status, StatusCode::NO_CONTENT);

    let (_, untrusting) = transport(&TransportOptions::default());
    let other_name = format!("https://127.0.0.1:{port}/");
    for (transport, url) in [(&untrusting, &url), (&trusting, &other_name)] {
        let error = transport.connect(&endpoint(url)).await.unwrap_err();
        assert!(matches!(&error, TransportError::Unreachable { reason, .. } if reason.starts_with("TLS")), "{error:?}");
    }

    clock.set_wall("2200-01-01T00:00:00Z".parse().unwrap());
    assert!(trusting.connect(&endpoint(&url)).await.is_err(), "expired by our clock");
}

#[test]
fn an_unusable_extra_authority_is_named() {
    for file in ["missing.pem", "README.md", "tls-server.key.pem"] {
        let clock = Arc::new(ManualClock::default());
        let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
        let options = TransportOptions {
            extra_ca_file: Some(Site::ca_file().with_file_name(file)),
            ..TransportOptions::default()
        };
        let error = HyperTransport::new(clock, pacer, &options).unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[tokio::test]
async fn a_provider_that_rotates_and_hangs_up_is_a_cut() {
    let (clock, transport) = transport(&TransportOptions::default());
    let provider = FakeProvider::start(Arc::new(clock.clone()), Config::default()).await;
    let first = provider.seed("alice").refresh_token.unwrap();
    let url: Url = provider.url("/token");
    let body = |token: &str| {
        format!("grant_type=refresh_token&client_id=fake-client&client_secret=fake-client-secret&refresh_token={token}")
    };
    provider.fault(Fault::cut_after());
    let connected = transport.connect(&endpoint(url.as_str())).await.unwrap();
    let result = connected.send(post(url.as_str(), &body(&first)), None).await;
    assert!(matches!(result, Err(SendError::Cut { .. })), "{result:?}");
    let second = provider.families()[0].refresh_tokens[1].token.clone();

    let connected = transport.connect(&endpoint(url.as_str())).await.unwrap();
    let not_after = Some(Boot(clock.now().boot.0));
    let result = connected.send(post(url.as_str(), &body(&second)), not_after).await;
    assert!(matches!(result, Err(SendError::NotSent { .. })), "{result:?}");
    assert!(provider.is_live(&second), "the provider saw nothing");

    let connected = transport.connect(&endpoint(url.as_str())).await.unwrap();
    assert_eq!(connected.send(post(url.as_str(), &body(&second)), None).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn what_a_stranger_named_is_reached_at_public_addresses_and_by_https_only() {
    let (_, transport) = transport(&extra_ca());
    let tls = tls_server().await.port();
    let (_listener, plain) = listen().await;
    for url in [
        format!("https://localhost:{tls}/"),
        format!("https://127.0.0.1:{tls}/"),
        format!("https://[::ffff:127.0.0.1]:{tls}/"),
        plain,
    ] {
        let endpoint = Endpoint { peers: Peers::Public, ..endpoint(&url) };
        let refused = transport.connect(&endpoint).await.unwrap_err();
        assert!(matches!(refused, TransportError::Forbidden { .. }), "{url}: {refused}");
    }
}
