//! How the request gets there.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokenkeep_core::ports::{Endpoint, Peers, Request, Transport as _};
use tokenkeep_engine::{
    system::SystemClock,
    transport::{HyperTransport, Pacer, Pacing, TransportOptions},
};
use tokio::net::UnixStream;
use url::Url;
use zeroize::Zeroizing;

use super::Answer;
use crate::environment::Environment;

/// The largest answer that is read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// The way to a server.
#[derive(Debug)]
pub(super) enum Wire {
    /// The socket in the data directory.
    Socket(PathBuf),
    /// The network.
    Http { base: Url, transport: HyperTransport },
}

impl Wire {
    pub(super) fn http(base: Url, environment: &Environment) -> Result<Self> {
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            bail!("the server's URL must begin with https://, or http:// on this machine");
        }
        let allow_plain_http = environment.os("TOKENKEEP_ALLOW_PLAIN_HTTP").is_some_and(|value| value == "1");
        let is_local = match base.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if base.scheme() == "http" && !is_local && !allow_plain_http {
            bail!(
                "over plain http, whoever is on the way to {} can read the key and the tokens. Use https, or, where the \
                 network is yours alone, set TOKENKEEP_ALLOW_PLAIN_HTTP=1",
                base.host_str().unwrap_or_default()
            );
        }
        let clock = Arc::new(SystemClock);
        let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
        let options = TransportOptions { allow_plain_http, ..TransportOptions::default() };
        let transport = HyperTransport::new(clock, pacer, &options).context("TLS cannot be used")?;
        Ok(Self::Http { base, transport })
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Answer> {
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        match self {
            Wire::Socket(socket) => over_socket(socket, method, path, headers, body).await,
            Wire::Http { base, transport } => {
                // A server behind a path of its proxy keeps that path.
                let url = Url::parse(&format!("{}{path}", base.as_str().trim_end_matches('/')))?;
                let connected =
                    transport.connect(&Endpoint { url: url.clone(), timeout: CONNECT, peers: Peers::Any }).await;
                let connected = connected.map_err(|error| anyhow!("{self} cannot be reached: {error}"))?;
                let request = Request { method, url, headers, body };
                let reply =
                    connected.send(request, None).await.map_err(|error| anyhow!("{self} broke off: {error}"))?;
                Ok(Answer { status: reply.status, body: reply.body.to_vec().into() })
            }
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wire::Socket(path) => write!(f, "the server behind {}", path.display()),
            Wire::Http { base, .. } => f.write_str(&base.origin().ascii_serialization()),
        }
    }
}

async fn over_socket(
    socket: &PathBuf,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
) -> Result<Answer> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "only the user who runs the server may use it",
            _ => "is `tokenkeep serve` still running?",
        };
        anyhow!("nobody answers at {} ({error}); {hint}", socket.display())
    })?;
    let broke = || format!("the server behind {} broke off", socket.display());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.with_context(broke)?;
    let driven = tokio::spawn(connection);
    let mut request = http::Request::new(Full::new(Bytes::from(body.to_vec())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().context("the path is not one")?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    let response = sender.send_request(request).await.with_context(broke)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow!("{}: {error}", broke()))?;
    driven.abort();
    Ok(Answer { status, body: body.to_bytes().to_vec().into() })
}
