//! One request, one reply, on a connection that is used for nothing else.

use std::{error::Error, pin::pin};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokenkeep_core::ports::{Reply, Request};
use url::{Position, Url};

use super::Stream;

/// What we call ourselves; some providers refuse requests that do not say.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tokenkeep/", env!("CARGO_PKG_VERSION")));

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the request cannot be written as HTTP")]
    Malformed(#[source] http::Error),
    #[error("HTTP")]
    Http(#[source] hyper::Error),
    #[error("the body is too long")]
    TooLong(StatusCode),
}

impl Failure {
    /// The whole chain of causes, for the log.
    pub(super) fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Sends `request` and reads the whole reply, whose body has `max_reply` bytes at most. Nothing runs on its own: dropping the future closes the connection.
pub(super) async fn run(stream: Box<dyn Stream>, request: Request, max_reply: usize) -> Result<Reply, Failure> {
    let request = head_and_body(request).map_err(Failure::Malformed)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    let mut exchange = pin!(async {
        let reply = sender.send_request(request).await.map_err(Failure::Http)?;
        read(reply, max_reply).await
    });
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        reply = &mut exchange => return reply,
        ended = &mut connection => ended,
    };
    // The connection is closed; the reply may still be whole. If it is not, the connection knows why.
    match (exchange.await, ended) {
        (Err(Failure::Http(_)), Err(error)) => Err(Failure::Http(error)),
        (result, _) => result,
    }
}

fn head_and_body(request: Request) -> Result<http::Request<Full<Bytes>>, http::Error> {
    let Request { method, url, mut headers, body } = request;
    headers.insert(header::HOST, host(&url)?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    let target = &url[Position::BeforePath..Position::AfterQuery];
    // `from_owner` keeps the body where it is, so that it is wiped when hyper drops it.
    let mut request = http::Request::builder().method(method).uri(target).body(Full::new(Bytes::from_owner(body)))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Host and port, the latter only where it is not the scheme's own (RFC 9110 7.2).
fn host(url: &Url) -> Result<HeaderValue, http::Error> {
    Ok(HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort])?)
}

async fn read(reply: http::Response<Incoming>, max_reply: usize) -> Result<Reply, Failure> {
    let (head, mut incoming) = reply.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(Failure::Http)?.into_data() else { continue };
        if body.len() + data.len() > max_reply {
            return Err(Failure::TooLong(head.status));
        }
        body.extend_from_slice(&data);
    }
    Ok(Reply { status: head.status, headers: head.headers, body: body.into() })
}
