//! How HTTP reaches a provider: the one implementation of the [`Transport`] port, and the only place that opens
//! sockets towards providers.
//!
//! There are two ways out. [`HyperTransport`] is for what is tokenkeep's own: a token endpoint, an issuer's metadata.
//! [`Outbound`] is for what is somebody else's: calls that go through to a provider's API, on connections that are
//! kept, with bodies that stream. They share the dialling, the trust and the rules of who may be spoken to.
//!
//! The first is built on hyper's connection API instead of a pooling client, because a refresh token must be spent at most
//! once: every request has a connection of its own, no redirect is followed, nothing is retried, and the moment of
//! the first byte is guarded (`first_byte`). Everything slow comes before that moment: the pacing permit
//! ([`Pacer`]), the name lookup and TCP (`dial`), TLS (`tls`). What follows is one `exchange`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//! use tokenkeep_core::ports::{Endpoint, Peers, Request, Transport};
//! use tokenkeep_engine::{
//!     system::SystemClock,
//!     transport::{HyperTransport, Pacer, TransportOptions},
//! };
//!
//! let clock = Arc::new(SystemClock);
//! let pacer = Arc::new(Pacer::new(clock.clone(), Default::default()));
//! let transport = HyperTransport::new(clock, pacer, &TransportOptions::default())?;
//!
//! let url: url::Url = "https://accounts.example/.well-known/openid-configuration".parse()?;
//! let endpoint = Endpoint { url: url.clone(), timeout: Duration::from_secs(5), peers: Peers::Any };
//! let connected = transport.connect(&endpoint).await?;
//! let request = Request { method: http::Method::GET, url, headers: Default::default(), body: Default::default() };
//! let reply = connected.send(request, None).await?;
//! println!("{}", reply.status);
//! # Ok(())
//! # }
//! ```

mod dial;
mod exchange;
mod first_byte;
mod outbound;
mod pace;
mod public;
mod tls;

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use tokenkeep_core::{
    Boot,
    ports::{BoxFuture, Clock, Connected, Endpoint, Peers, Reply, Request, SendError, Transport, TransportError},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::{Host, Origin, Url};

use self::{
    exchange::Failure,
    first_byte::{FirstByte, Wire},
    tls::Tls,
};
pub use self::{
    outbound::{BodyError, Outbound, OutboundBody, OutboundError, empty_body},
    pace::{Pace, Pacer, Pacing, Permit, Quiet},
    tls::ExtraCaError,
};

/// What an installation may choose about its connections to providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// Certificates (PEM) to trust beside those of the machine: a private authority's.
    pub extra_ca_file: Option<PathBuf>,
    /// Allows `http` to hosts other than this machine, in the clear.
    pub allow_plain_http: bool,
    /// When an exchange without a complete reply is given up. Callers wait for less; this only ends an exchange with
    /// a provider that never answers.
    pub reply_within: Duration,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self { extra_ca_file: None, allow_plain_http: false, reply_within: Duration::from_mins(2) }
    }
}

/// The [`Transport`] over hyper and rustls.
pub struct HyperTransport {
    clock: Arc<dyn Clock>,
    pacer: Arc<Pacer>,
    dialer: Dialer,
    reply_within: Duration,
}

impl fmt::Debug for HyperTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperTransport").field("pacer", &self.pacer).finish_non_exhaustive()
    }
}

impl HyperTransport {
    /// Reads the machine's trusted certificates and the extra ones. A machine without any is no error here: plain
    /// connections to itself still work, and every other one says why it does not.
    pub fn new(clock: Arc<dyn Clock>, pacer: Arc<Pacer>, options: &TransportOptions) -> Result<Self, ExtraCaError> {
        let dialer = Dialer::new(Arc::clone(&clock), options)?;
        Ok(Self { clock, pacer, dialer, reply_within: options.reply_within })
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Box<dyn Connected>, TransportError> {
        let target = self.dialer.target(&endpoint.url, endpoint.peers)?;
        let unreachable = |reason: String| target.unreachable(reason);
        let permit = match endpoint.peers {
            Peers::Any | Peers::Near => self.pacer.enter(&endpoint.url, endpoint.timeout).await,
            // The pacer remembers every origin: strangers know more of them than there is memory.
            Peers::Public => Ok(Permit::unpaced()),
        };
        let permit = permit.map_err(|quiet| unreachable(quiet.to_string()))?;
        let guard = Arc::new(FirstByte::new(Arc::clone(&self.clock)));
        let stream = tokio::select! {
            biased;
            stream = self.dialer.reach(&target, |tcp| Wire::new(tcp, Arc::clone(&guard))) => stream?,
            () = self.clock.sleep(endpoint.timeout) => {
                return Err(unreachable(format!("no connection within {} s", endpoint.timeout.as_secs_f64())));
            }
        };
        Ok(Box::new(OpenConnection {
            stream,
            guard,
            origin: endpoint.url.origin(),
            clock: Arc::clone(&self.clock),
            reply_within: self.reply_within,
            permit,
        }))
    }
}

impl Transport for HyperTransport {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Connected>, TransportError>> {
        Box::pin(self.open(endpoint))
    }
}

/// Opens connections, to whom that is allowed.
struct Dialer {
    clock: Arc<dyn Clock>,
    tls: Tls,
    allow_plain_http: bool,
}

impl Dialer {
    fn new(clock: Arc<dyn Clock>, options: &TransportOptions) -> Result<Self, ExtraCaError> {
        let tls = Tls::new(Arc::clone(&clock), options.extra_ca_file.as_deref())?;
        Ok(Self { clock, tls, allow_plain_http: options.allow_plain_http })
    }

    fn target(&self, url: &Url, peers: Peers) -> Result<Target, TransportError> {
        Target::of(url, peers, self.allow_plain_http)
    }

    /// Name lookup, TCP, TLS; `wire` is put around the TCP connection, below TLS.
    async fn reach<S: Stream + 'static>(
        &self,
        target: &Target,
        wire: impl FnOnce(TcpStream) -> S,
    ) -> Result<Box<dyn Stream>, TransportError> {
        let unreachable = |reason: String| target.unreachable(reason);
        let mut addresses = dial::resolve(&target.host, target.port).await.map_err(unreachable)?;
        let has_any = !addresses.is_empty();
        addresses.retain(|address| target.allows(address.ip()));
        if has_any && addresses.is_empty() {
            return Err(target.forbidden());
        }
        let tcp = dial::connect(addresses, self.clock.as_ref()).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let wire = wire(tcp);
        if !target.tls {
            return Ok(Box::new(wire));
        }
        let connector = TlsConnector::from(self.tls.config().map_err(unreachable)?);
        let name = tls::server_name(&target.host).map_err(unreachable)?;
        let stream = connector.connect(name, wire).await.map_err(|error| unreachable(format!("TLS: {error}")))?;
        Ok(Box::new(stream))
    }
}

/// Where a URL leads.
struct Target {
    host: Host,
    port: u16,
    tls: bool,
    /// What its name may resolve to.
    allowed: Allowed,
}

/// Which addresses may be spoken to.
#[derive(Clone, Copy)]
enum Allowed {
    All,
    /// This machine's.
    Loopback,
    /// This machine's, and those of private networks.
    Near,
    /// Those of the internet.
    Public,
}

impl Target {
    /// Secrets travel in requests, so they travel encrypted: `http` is for this machine only, unless allowed.
    fn of(url: &Url, peers: Peers, allow_plain_http: bool) -> Result<Self, TransportError> {
        let forbidden = || TransportError::Forbidden { host: url.host_str().unwrap_or_default().to_owned() };
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return Err(forbidden()) };
        let tls = match url.scheme() {
            "https" => true,
            "http" if peers == Peers::Any && (allow_plain_http || is_loopback(&host)) => false,
            "http" if peers == Peers::Near => false,
            _ => return Err(forbidden()),
        };
        let allowed = match peers {
            Peers::Public => Allowed::Public,
            Peers::Any if !tls && !allow_plain_http => Allowed::Loopback,
            Peers::Near if !tls && !allow_plain_http => Allowed::Near,
            Peers::Any | Peers::Near => Allowed::All,
        };
        Ok(Self { host: host.to_owned(), port, tls, allowed })
    }

    fn unreachable(&self, reason: String) -> TransportError {
        TransportError::Unreachable { host: self.host.to_string(), reason }
    }

    fn forbidden(&self) -> TransportError {
        TransportError::Forbidden { host: self.host.to_string() }
    }

    fn allows(&self, address: IpAddr) -> bool {
        match self.allowed {
            Allowed::All => true,
            Allowed::Loopback => address.is_loopback(),
            Allowed::Near => is_near(address),
            Allowed::Public => public::is_public(address),
        }
    }
}

/// Whether an address is this machine's, or one of a private network (RFC 1918, RFC 4193, RFC 6598).
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// RFC 6761 6.3: `localhost` and the names under it are this machine.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

/// What HTTP is spoken over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct OpenConnection {
    stream: Box<dyn Stream>,
    guard: Arc<FirstByte>,
    origin: Origin,
    clock: Arc<dyn Clock>,
    reply_within: Duration,
    /// Given back when the exchange is over.
    permit: Permit,
}

impl fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenConnection({})", self.origin.ascii_serialization())
    }
}

impl OpenConnection {
    async fn exchange(self, request: Request, not_after: Option<Boot>, max_reply: usize) -> Result<Reply, SendError> {
        let Self { stream, guard, origin, clock, reply_within, permit } = self;
        if request.url.origin() != origin {
            return Err(SendError::NotSent { reason: "the request is for another origin".to_owned() });
        }
        guard.arm(not_after);
        let result = tokio::select! {
            biased;
            result = exchange::run(stream, request, max_reply) => match result {
                Err(Failure::TooLong(status)) => return Err(SendError::TooLong { status }),
                result => result.map_err(|failure| failure.describe()),
            },
            () = clock.sleep(reply_within) => Err(format!("no complete reply within {} s", reply_within.as_secs_f64())),
        };
        drop(permit);
        result.map_err(|reason| match guard.outcome() {
            first_byte::Outcome::TooLate => SendError::NotSent { reason: "it was too late to send it".to_owned() },
            first_byte::Outcome::NothingWritten => SendError::NotSent { reason },
            first_byte::Outcome::Written => SendError::Cut { reason },
        })
    }
}

impl Connected for OpenConnection {
    fn send_for(
        self: Box<Self>,
        request: Request,
        not_after: Option<Boot>,
        max_reply: usize,
    ) -> BoxFuture<'static, Result<Reply, SendError>> {
        Box::pin(self.exchange(request, not_after, max_reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_network_is_near_and_the_rest_is_not() {
        for near in
            ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.0.9", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in [
            "8.8.8.8",
            "172.32.0.1",
            "169.254.169.254",
            "100.128.0.1",
            "0.0.0.0",
            "2606::1",
            "fe80::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
        let url: Url = "http://server.internal:3000/mcp".parse().unwrap();
        assert!(Target::of(&url, Peers::Any, false).is_err());
        let near = Target::of(&url, Peers::Near, false).unwrap();
        assert!(near.allows("10.0.0.7".parse().unwrap()) && !near.allows("8.8.8.8".parse().unwrap()));
        assert!(Target::of(&url, Peers::Near, true).unwrap().allows("8.8.8.8".parse().unwrap()));
        let tls: Url = "https://server.example/mcp".parse().unwrap();
        assert!(Target::of(&tls, Peers::Near, false).unwrap().allows("8.8.8.8".parse().unwrap()));
    }
}
