use std::{fmt, time::Duration};

use bytes::Bytes;
use url::Url;
use zeroize::Zeroizing;

use super::BoxFuture;
use crate::Boot;

/// How HTTP reaches a provider: a connection first, one request on it, no redirects, no retry.
///
/// Two steps, because the moment of the first byte matters: everything slow (pacing, name lookup, TCP, TLS) happens
/// in [`Transport::connect`], before an intent to spend a refresh token is written down.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Waits for the pacing permit and opens a fresh connection. No byte of any request is sent.
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Connected>, TransportError>>;
}

/// The longest body of a reply that is read, in bytes, where nobody says less.
pub const MAX_REPLY: usize = 1 << 20;

/// An open connection, good for one request.
pub trait Connected: fmt::Debug + Send {
    /// Sends the request and reads the whole reply (up to [`MAX_REPLY`]). If the boot clock shows `not_after` or later
    /// just before the first byte would be written, nothing is sent and [`SendError::NotSent`] is answered. The future
    /// must be driven to its end: dropping it cuts the exchange.
    fn send(
        self: Box<Self>,
        request: Request,
        not_after: Option<Boot>,
    ) -> BoxFuture<'static, Result<Reply, SendError>> {
        self.send_for(request, not_after, MAX_REPLY)
    }

    /// The same, for a reply with a body of `max_reply` bytes at most: no more than that is kept of it.
    fn send_for(
        self: Box<Self>,
        request: Request,
        not_after: Option<Boot>,
        max_reply: usize,
    ) -> BoxFuture<'static, Result<Reply, SendError>>;
}

/// Where to connect to: the origin of a URL, and how long that may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http` or `https`; path and query play no part.
    pub url: Url,
    /// For name lookup, TCP and TLS together.
    pub timeout: Duration,
    /// Where it may lead.
    pub peers: Peers,
}

/// Where a connection may lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Peers {
    /// To whatever its name resolves to: somebody said it who may say so.
    #[default]
    Any,
    /// The same, and in the clear to this machine and to private networks: the operator has a server there.
    Near,
    /// To the public internet only, and by `https`: a stranger said it. What its name resolves to is looked at, and
    /// then connected to, and is not looked up again in between.
    Public,
}

/// A request. Its headers and body may hold secrets, so it cannot be printed.
pub struct Request {
    /// `POST`, mostly.
    pub method: http::Method,
    /// The full URL.
    pub url: Url,
    /// Headers beside `Host` and `Content-Length`. Secret values are marked sensitive.
    pub headers: http::HeaderMap,
    /// The body, wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.url.origin().ascii_serialization(), self.url.path())
    }
}

/// A reply. Its body may hold secrets, so it cannot be printed.
pub struct Reply {
    /// The status.
    pub status: http::StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes", self.status, self.body.len())
    }
}

/// Why no connection could be made. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// Name lookup, TCP or TLS failed or took too long.
    #[error("cannot connect to {host}: {reason}")]
    Unreachable {
        /// The host asked for.
        host: String,
        /// For the log.
        reason: String,
    },
    /// The address may not be connected to (a private network, where only public ones are allowed).
    #[error("connections to {host} are not allowed")]
    Forbidden {
        /// The host asked for.
        host: String,
    },
}

/// Why a request has no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// Not one byte was written: the provider knows nothing of it.
    #[error("not sent: {reason}")]
    NotSent {
        /// For the log.
        reason: String,
    },
    /// There is a reply, with a body longer than may be read. What there is of it was thrown away.
    #[error("the reply, of status {status}, is too long")]
    TooLong {
        /// Its status.
        status: http::StatusCode,
    },
    /// At least one byte may have been written; whether it was acted upon is unknown.
    #[error("cut off: {reason}")]
    Cut {
        /// For the log.
        reason: String,
    },
}
