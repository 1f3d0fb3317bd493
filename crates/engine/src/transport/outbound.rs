//! The second way out: calls that go through to somebody's API, on connections that are kept, with bodies that stream.
//!
//! What the first way forbids itself is what this one is for (ADR 17): a connection is used again, a body is passed on
//! as it comes and no faster than it is taken. What both have in common: no redirect is followed, and nothing that may
//! have been acted upon is sent twice. A request that a kept connection never took, because it had died in the
//! meantime, is sent on another.

mod body;
mod pool;

use std::{error::Error as StdError, fmt, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri};
use http_body_util::{BodyExt as _, Empty, combinators::UnsyncBoxBody};
use hyper::{body::Body as _, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokenkeep_core::ports::{Clock, Peers, TransportError};

use self::{
    body::{Returning, Sent, Watched},
    pool::{Origin, Pool},
};
use super::{Dialer, ExtraCaError, TransportOptions};

/// Why a body ends before its end.
pub type BodyError = Box<dyn StdError + Send + Sync>;

/// A body on its way, in either direction.
pub type OutboundBody = UnsyncBoxBody<Bytes, BodyError>;

/// Of a request without a body.
pub fn empty_body() -> OutboundBody {
    UnsyncBoxBody::new(Empty::new().map_err(|never| match never {}))
}

/// One kept connection.
type Line = http1::SendRequest<OutboundBody>;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// No connection came about: nothing was sent.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        host: String,
        /// Why; our own words or the system's.
        reason: String,
    },
    /// This host is not to be spoken to, or not without TLS: nothing was sent.
    #[error("{host} is not to be spoken to, or not without TLS")]
    Forbidden {
        /// Whom.
        host: String,
    },
    /// The exchange ended before the reply's head. The request may have been acted upon.
    #[error("the exchange was cut off: {reason}")]
    Cut {
        /// Why; our own words or the system's.
        reason: String,
        /// Whether the connection had carried another exchange before: its peer may have closed it at the very moment
        /// the request was on its way, as one does that has idled for long.
        reused: bool,
    },
    /// The request's own body ended before its end: nobody's fault there. It may have been acted upon.
    #[error("the request's body broke off")]
    BodyBrokeOff,
    /// The request's own body came no further, and nobody else was waited for. It may have been acted upon.
    #[error("the request's body stood still")]
    BodyStoodStill,
    /// The reply's head did not come in time. The request may have been acted upon.
    #[error("there was no reply in time")]
    TimedOut,
}

/// Sends requests to APIs. Cheap to clone; the clones share their connections.
#[derive(Clone)]
pub struct Outbound {
    house: Arc<House>,
}

struct House {
    clock: Arc<dyn Clock>,
    dialer: Dialer,
    pool: Arc<Pool>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("pool", &self.house.pool).finish()
    }
}

impl Outbound {
    /// Reads the machine's trusted certificates and the extra ones, as [`super::HyperTransport::new`] does.
    pub fn new(clock: Arc<dyn Clock>, options: &TransportOptions) -> Result<Self, ExtraCaError> {
        let dialer = Dialer::new(Arc::clone(&clock), options)?;
        let pool = Arc::new(Pool::new(Arc::clone(&clock)));
        Ok(Self { house: Arc::new(House { clock, dialer, pool }) })
    }

    /// Sends one request, whose URI is absolute, and answers with the reply's head as soon as it is there. `within` is
    /// for connecting, and again for the head once the request's body is through or stands still. Dropping the future,
    /// or the reply's body, ends the exchange.
    ///
    /// `Host` and `Content-Length` are set from the URI and the body; every other header is sent as it is.
    pub async fn call(
        &self,
        request: Request<OutboundBody>,
        peers: Peers,
        within: Duration,
    ) -> Result<Response<OutboundBody>, OutboundError> {
        let (origin, mut request) = addressed(request, peers)?;
        loop {
            let (line, reused) = match self.house.pool.take(&origin) {
                Some(line) => (line, true),
                None => (Box::pin(self.house.open(&origin, within)).await?, false),
            };
            match self.house.exchange(&origin, line, reused, request, within).await? {
                Exchanged::Reply(reply) => return Ok(reply),
                Exchanged::NeverSent(back) => request = *back,
            }
        }
    }
}

impl From<TransportError> for OutboundError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Forbidden { host } => Self::Forbidden { host },
            TransportError::Unreachable { host, reason } => Self::Unreachable { host, reason },
        }
    }
}

enum Exchanged {
    Reply(Response<OutboundBody>),
    /// The connection had died before.
    NeverSent(Box<Request<OutboundBody>>),
}

impl House {
    async fn open(&self, origin: &Origin, within: Duration) -> Result<Line, OutboundError> {
        let unreachable = |reason| OutboundError::Unreachable { host: origin.host().to_owned(), reason };
        let target = self.dialer.target(&origin.url()?, origin.peers())?;
        let opening = async {
            let stream = self.dialer.reach(&target, |tcp| tcp).await?;
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(describe(&error)))
        };
        let (line, connection) = tokio::select! {
            biased;
            opened = opening => opened?,
            () = self.clock.sleep(within) => {
                return Err(unreachable(format!("no connection within {} s", within.as_secs_f64())));
            }
        };
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = describe(&error), "a connection to an API ended");
            }
        });
        Ok(line)
    }

    async fn exchange(
        &self,
        origin: &Origin,
        mut line: Line,
        reused: bool,
        request: Request<OutboundBody>,
        within: Duration,
    ) -> Result<Exchanged, OutboundError> {
        let mut sent = Sent::default();
        let request = if request.body().is_end_stream() {
            request
        } else {
            request.map(|body| UnsyncBoxBody::new(Watched::new(body, &mut sent)))
        };
        let replied = {
            let mut exchange = pin!(line.try_send_request(request));
            loop {
                let before = sent.so_far();
                tokio::select! {
                    biased;
                    replied = &mut exchange => break replied,
                    () = self.clock.sleep(within) => {}
                }
                if sent.so_far() == before {
                    let late =
                        if sent.stands_still() { OutboundError::BodyStoodStill } else { OutboundError::TimedOut };
                    return Err(late);
                }
            }
        };
        match replied {
            // Nobody asked to switch protocols, so nobody here could follow.
            Ok(reply) if reply.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(OutboundError::Cut { reason: "it switched protocols".to_owned(), reused: false })
            }
            Ok(mut reply) => {
                // RFC 9110 2.5: who passes it on says which version it speaks itself.
                *reply.version_mut() = http::Version::HTTP_11;
                let (pool, origin) = (Arc::clone(&self.pool), origin.clone());
                Ok(Exchanged::Reply(reply.map(|body| Returning::boxed(body, line, pool, origin))))
            }
            Err(mut error) => match error.take_message() {
                Some(back) if reused => Ok(Exchanged::NeverSent(Box::new(back))),
                _ if sent.broke_off() => Err(OutboundError::BodyBrokeOff),
                _ => Err(OutboundError::Cut { reason: describe(&error.into_error()), reused }),
            },
        }
    }
}

/// Splits a request into where it goes and what is sent there.
fn addressed(request: Request<OutboundBody>, peers: Peers) -> Result<(Origin, Request<OutboundBody>), OutboundError> {
    let (mut head, body) = request.into_parts();
    let uri::Parts { scheme, authority, path_and_query, .. } = std::mem::take(&mut head.uri).into_parts();
    let origin = Origin::of(scheme, authority, peers)?;
    head.uri = path_and_query.map_or_else(Uri::default, Uri::from);
    head.version = http::Version::HTTP_11;
    head.headers.insert(header::HOST, origin.host_header()?);
    // hyper reckons the length from the body; what somebody says about it could only be wrong.
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::TRANSFER_ENCODING);
    if body.is_end_stream() {
        if expects_content(&head.method) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if body.size_hint().exact().is_none() {
        // Unless it is said, hyper takes a GET's or a HEAD's body for none.
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok((origin, Request::from_parts(head, body)))
}

/// RFC 9110 8.6: without content these say so.
fn expects_content(method: &http::Method) -> bool {
    matches!(*method, http::Method::POST | http::Method::PUT | http::Method::PATCH)
}

/// The whole chain of causes.
fn describe(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokenkeep_testkit::ManualClock;
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn a_server_nearby_is_spoken_to_in_the_clear() {
        let outbound = Outbound::new(Arc::new(ManualClock::default()), &TransportOptions::default()).unwrap();
        // Nobody listens there, and nobody else can.
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = taken.local_addr().unwrap().port();
        // This machine, which takes the call at once, by an address that is not taken for this machine's own.
        let call = async |peers| {
            let request = Request::get(format!("http://[::ffff:7f00:1]:{port}/mcp")).body(empty_body()).unwrap();
            outbound.call(request, peers, Duration::from_secs(5)).await.unwrap_err()
        };
        let refused = call(Peers::Near).await;
        assert!(matches!(refused, OutboundError::Unreachable { .. }), "{refused}");
        for peers in [Peers::Any, Peers::Public] {
            assert!(matches!(call(peers).await, OutboundError::Forbidden { .. }));
        }
    }
}
