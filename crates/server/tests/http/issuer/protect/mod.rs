//! Servers with us in front of them: a real one each, on a socket of this machine.

mod gate;
mod headers;
mod provider_tokens;
mod streams;

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, response::IntoResponse as _, response::Response};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokenkeep_engine::issuer::IssuerSettings;
use tokenkeep_server::{Forward, Protected};
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;

use super::{IssuerApp, SECRET, resource};
use crate::app::Answered;

/// As clients name it.
pub(super) const TOOLS: &str = "https://tools.example/mcp";

/// A server behind, which knows nothing of users.
pub(super) struct Behind {
    pub(super) url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// A request, as the server behind saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().unwrap();
        assert!(values.next().is_none(), "{name} is there twice");
        Some(value)
    }
}

impl Behind {
    /// It says to everything that it is fine.
    pub(super) async fn start() -> Self {
        Self::saying(|_| axum::Json(json!({"from": "behind"})).into_response()).await
    }

    /// It says what `answer` makes of a request that it has read.
    pub(super) async fn saying(answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let noted = seen.clone();
        let handler = move |request: axum::extract::Request| async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let seen = Seen { method: head.method, uri: head.uri, headers: head.headers, body };
            let answer = answer(&seen);
            noted.lock().unwrap().push(seen);
            answer
        };
        Self::running(Router::new().fallback(handler), seen).await
    }

    pub(super) async fn running(router: Router, seen: Arc<Mutex<Vec<Seen>>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/inner", listener.local_addr().unwrap()).parse().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }

    /// What it saw, and nothing else.
    pub(super) fn only(&self) -> Seen {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    pub(super) fn saw_nothing(&self) -> bool {
        self.seen.lock().unwrap().is_empty()
    }

    pub(super) fn protected(&self, forward: Forward) -> Protected {
        Protected { resource: TOOLS.parse().unwrap(), upstream: self.url.clone(), forward }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The server behind needs this of every token.
fn tools(scopes: &str) -> impl FnOnce(&mut IssuerSettings) {
    let tools = resource(TOOLS, scopes);
    move |told| told.resources = vec![tools, resource(super::FILES, "read write")]
}

impl IssuerApp {
    /// In front of `behind`, whose tokens must have `scopes`.
    pub(super) async fn before(behind: &Behind, scopes: &str) -> Self {
        Self::protecting(tools(scopes), vec![behind.protected(Forward::Nothing)]).await
    }

    /// An access token of a user's, for [`TOOLS`].
    pub(super) async fn tools_token(&self, scope: &str) -> String {
        let reply = self.redeem(&self.allow_for("native", scope, TOOLS).await).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// An access token for [`TOOLS`] that a backend got for itself.
    pub(super) async fn tools_token_of_backend(&self) -> String {
        let form = [("grant_type", "client_credentials"), ("resource", TOOLS)];
        let reply = self.post("/token", Some(("backend", SECRET)), &form).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["access_token"].as_str().unwrap().to_owned()
    }

    pub(super) async fn call(&self, method: &str, path: &str, token: &str, headers: &[(&str, &str)]) -> Answered {
        self.app.send(calling(method, path, token, headers)).await
    }
}

pub(super) fn calling(method: &str, path: &str, token: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header(header::AUTHORIZATION, format!("Bearer {token}")).header(header::HOST, "tools.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}
