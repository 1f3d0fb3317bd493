//! One kept HTTP connection to an instance.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{http::Answer, service::ADMIN_KEY};

/// Longer than any answer may take: a reader waits 10 s for a provider at most.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Client {
    addr: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, sender: None }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// One call with the harness's key. A failed one is not repeated: whoever counts failures must see it.
    pub async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let answered = tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await;
        let answered = answered.context("no answer in time").flatten();
        if answered.is_err() {
            self.sender = None;
        }
        answered
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let sender = match &mut self.sender {
            // The server closes connections that were quiet for long.
            Some(sender) if !sender.is_closed() => sender,
            kept => kept.insert(connect(self.addr).await?),
        };
        sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {ADMIN_KEY}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }
}

async fn connect(addr: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(addr).await.with_context(|| format!("cannot reach {addr}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
