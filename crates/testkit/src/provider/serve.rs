//! The listener: plain hyper, so that a connection can be cut where a fault says so.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use hyper::body::Frame;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Shared, control, gotrue, pages, token};

/// In a response's extensions: close the connection instead of answering.
#[derive(Clone, Copy, Debug)]
struct CutMark;

/// The connection was closed on purpose.
#[derive(Debug)]
struct CutOff;

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut off on purpose")
    }
}

impl std::error::Error for CutOff {}

/// A response that is never sent.
pub(crate) fn cut() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(CutMark);
    response
}

/// The head and half of the body of `response`, which is then cut.
pub(super) fn truncated(response: Response, body: &Bytes) -> Response {
    let (mut head, _) = response.into_parts();
    head.headers.insert(http::header::CONTENT_LENGTH, body.len().into());
    Response::from_parts(head, Body::new(Half(Some(body.slice(..body.len() / 2)))))
}

/// A body that breaks off.
struct Half(Option<Bytes>);

impl HttpBody for Half {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        Poll::Ready(Some(self.0.take().map(Frame::data).ok_or(CutOff)))
    }
}

/// Serves until dropped; the connections end with it.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let router =
        token::router().merge(gotrue::router()).merge(pages::router()).merge(control::router()).with_state(shared);
    listen(listener, router).await;
}

/// Serves `router` until dropped, and honours [`cut`].
pub(crate) async fn listen(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => { connections.spawn(connection(stream, router.clone())); }
            Some(_) = connections.join_next() => {}
            // Nothing could be accepted, and nothing is open that could end.
            else => tokio::task::yield_now().await,
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let reply = router.call(request);
        async move {
            match reply.await {
                Ok(response) if response.extensions().get::<CutMark>().is_some() => Err(CutOff),
                Ok(response) => Ok(response),
                Err(never) => match never {},
            }
        }
    });
    // An error here is a client that went away, or a cut on purpose.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
