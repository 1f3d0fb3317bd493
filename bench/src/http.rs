//! A plain HTTP/1.1 client for the harness: one request, one connection, no redirects.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use url::Url;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("status {} and no JSON", self.status))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub async fn send(method: Method, url: &Url, headers: &[(&str, &str)], body: Vec<u8>) -> anyhow::Result<Answer> {
    let host = url.host_str().context("no host")?;
    let port = url.port_or_known_default().context("no port")?;
    let stream = tokio::net::TcpStream::connect((host, port)).await.with_context(|| format!("cannot reach {url}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::builder().method(method).uri(path).header("host", format!("{host}:{port}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    let (parts, body) = reply.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
}

/// A call of tokenkeep's API with the harness's key.
pub async fn api(method: Method, base: &Url, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
    let key = format!("Bearer {}", crate::service::ADMIN_KEY);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
    send(method, &base.join(path)?, &headers, body).await
}
