//! The accept loop: connections in, bounded in number and in patience; on shutdown none is cut in mid-answer.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokenkeep_core::ports::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use crate::{
    AppState,
    auth::Door,
    fast_lane::{FastLane, LaneBody, LaneFuture},
    line::Line,
    local,
    progress::{Moving, Progress},
};

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
    /// How long a connection may go without a new request, whether it idles or sends one too slowly, and without taking
    /// anything of an answer. It is looked at in thirds of this, so it may last a third longer. An answer that has
    /// nothing to say yet does not count as quiet.
    pub quiet: Duration,
    /// How long answers under way may take to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, quiet: Duration::from_secs(75), drain: Duration::from_secs(30) }
    }
}

/// The largest request head, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// The most header fields in one request.
const MAX_HEADERS: usize = 64;

/// After so much silence a client's machine is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_mins(1);

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
    let (lane, closing) = (FastLane::new(state, door), watch::channel(()).0);
    let house = House { lane, http: http(), closing, clock: Arc::clone(&clock), look: limits.quiet / LOOKS };
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
            Ok(Some(Stream::Tcp(stream, peer))) => house.welcome(house.lane.clone().from_peer(peer), stream, place),
            Ok(Some(Stream::Unix(stream))) => house.welcome(house.lane.clone(), stream, place),
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
///
/// Answers are a few hundred bytes: copying the body behind the head is cheaper than a vectored write. hyper's own
/// timer for request heads is armed anew for every request; ours is not (see [`House::welcome`]).
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.writev(false).max_headers(MAX_HEADERS).max_header_size(MAX_HEAD).header_read_timeout(None);
    http
}

enum Stream {
    Tcp(tokio::net::TcpStream, IpAddr),
    Unix(tokio::net::UnixStream),
}

/// The next connection; `None` if it is not let in.
async fn accept(listener: &Listener) -> io::Result<Option<Stream>> {
    match listener {
        Listener::Tcp(tcp) => {
            let (stream, peer) = tcp.accept().await?;
            // Answers are small and complete: waiting for more to send only delays them.
            stream.set_nodelay(true)?;
            // A client that vanished takes an answer that never ends for granted; only asking shows that it is gone.
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
            Ok(Some(Stream::Tcp(stream, peer.ip())))
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
    clock: Arc<dyn Clock>,
    /// How often a connection is looked at.
    look: Duration,
}

/// So many looks without progress end a connection.
const LOOKS: u32 = 3;

/// The lane of one connection, whose requests are progress.
struct Counted {
    lane: FastLane,
    progress: Progress,
}

impl Service<Request<Incoming>> for Counted {
    type Response = Response<LaneBody>;
    type Error = Infallible;
    type Future = LaneFuture;

    fn call(&self, request: Request<Incoming>) -> LaneFuture {
        self.progress.note();
        Service::call(&self.lane, request)
    }
}

impl House {
    /// Serves one connection in a task of its own.
    fn welcome(
        &self,
        lane: FastLane,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        place: OwnedSemaphorePermit,
    ) {
        let progress = Progress::default();
        let line = Line::new(self.closing.subscribe());
        let counted = Counted { lane: lane.on_line(line.clone()), progress: progress.clone() };
        let stream = Moving::new(stream, progress.clone());
        let connection = self.http.serve_connection(TokioIo::new(stream), counted);
        let closing = self.closing.subscribe();
        let (clock, look) = (Arc::clone(&self.clock), self.look);
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let end = until_quiet(clock, look, progress, line, closing);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                end = end => {
                    connection.as_mut().graceful_shutdown();
                    match end {
                        End::Closing => connection.await,
                        // Whoever has not finished a request by now is not going to.
                        End::Quiet => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
}

/// Why a connection is ended from our side.
enum End {
    /// We are going down.
    Closing,
    /// There was no progress for too long.
    Quiet,
}

async fn until_quiet(
    clock: Arc<dyn Clock>,
    look: Duration,
    progress: Progress,
    line: Line,
    mut closing: watch::Receiver<()>,
) -> End {
    let (mut seen, mut unchanged) = (progress.so_far(), 0);
    while unchanged < LOOKS {
        tokio::select! {
            _ = closing.changed() => return End::Closing,
            () = clock.sleep(look) => {}
        }
        let now = progress.so_far();
        unchanged = if now == seen && !line.is_held() { unchanged + 1 } else { 0 };
        seen = now;
    }
    End::Quiet
}
