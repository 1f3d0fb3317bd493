//! The accept loop: connections in, bounded in number and in patience; on shutdown none is cut in mid-answer.

use std::{io, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use crate::{AppState, auth::Door, fast_lane::FastLane, local};

/// Where requests come in.
#[derive(Debug)]
pub enum Listener {
    /// The network.
    Tcp(TcpListener),
    /// The socket in the data directory. Only this process's own user (or root) is let in.
    Unix(UnixListener),
}

/// How much, and how long, clients may hold on to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the listener's backlog.
    pub connections: usize,
    /// How long a request's head may take to arrive, which is also how long a connection may idle.
    pub head: Duration,
    /// How long answers under way may take to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, head: Duration::from_secs(75), drain: Duration::from_secs(30) }
    }
}

/// The largest request head, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// The most header fields in one request.
const MAX_HEADERS: usize = 64;

/// How long to wait when the machine has no file descriptor left for another connection.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes and the answers under way are finished (or `limits.drain` is over).
///
/// # Errors
/// When the listener itself breaks. What goes wrong with one connection ends that connection only.
pub async fn serve(
    listener: Listener,
    state: AppState,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let clock = Arc::clone(state.clock());
    let door = match listener {
        Listener::Tcp(_) => Door::Network,
        Listener::Unix(_) => Door::Local,
    };
    let house = House { lane: FastLane::new(state, door), http: http(&limits), closing: watch::channel(()).0 };
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
            () = &mut shutdown => break,
        };
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok(Some(Stream::Tcp(stream))) => house.welcome(stream, place),
            Ok(Some(Stream::Unix(stream))) => house.welcome(stream, place),
            Ok(None) => tracing::warn!("another user tried the local socket and was turned away"),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections at present");
                clock.sleep(OUT_OF_FILES).await;
            }
        }
    }
    drop(listener);
    house.closing.send_replace(());
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    tokio::select! {
        _ = places.acquire_many(all) => {}
        () = clock.sleep(limits.drain) => {
            let left = limits.connections - places.available_permits();
            tracing::warn!(connections = left, "some answers did not finish in time and are cut off");
        }
    }
    Ok(())
}

/// hyper's `pipeline_flush` stays off: it holds an answer back while more bytes lie in the read buffer, and loses the last
/// one of a connection that ends there.
fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_headers(MAX_HEADERS).max_header_size(MAX_HEAD);
    http
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// The next connection; `None` if it is not let in.
async fn accept(listener: &Listener) -> io::Result<Option<Stream>> {
    match listener {
        Listener::Tcp(tcp) => {
            let (stream, _) = tcp.accept().await?;
            // Answers are small and complete: waiting for more to send only delays them.
            stream.set_nodelay(true)?;
            Ok(Some(Stream::Tcp(stream)))
        }
        Listener::Unix(unix) => {
            let (stream, _) = unix.accept().await?;
            Ok(local::is_owner(&stream)?.then_some(Stream::Unix(stream)))
        }
    }
}

/// Whether only the one connection broke, before it was ours.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected)
}

struct House {
    lane: FastLane,
    http: http1::Builder,
    closing: watch::Sender<()>,
}

impl House {
    /// Serves one connection in a task of its own.
    fn welcome(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, place: OwnedSemaphorePermit) {
        let connection = self.http.serve_connection(TokioIo::new(stream), self.lane.clone());
        let mut closing = self.closing.subscribe();
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                _ = closing.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
}
