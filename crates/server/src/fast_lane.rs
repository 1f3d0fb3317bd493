//! The hot path: a token that is cached and fresh, read with a known key, is answered here, before any routing. So is
//! one that is fresh in the shared cache or the store; whoever asks, at `/verify` or `/introspect`, about an access token
//! that was verified a moment ago; and a backend that gets a token for itself at `/token`.
//!
//! The lane takes nothing that it does not fully understand. Whatever is unusual about a request, an unknown key or an
//! outage included, goes to the router unchanged, which then gives the only answer there is: the lane knows no errors. A
//! test holds both to the same answers.
//!
//! Nothing is allocated for a cached token: names are borrowed from the path (or decoded on the stack), the reply's bytes are
//! shared with the cache, and the request's own header map carries the reply's headers, so that hyper has it back for
//! the next request.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokenkeep_core::{Action, ApiKey, Client, ConnectionId};
use tokenkeep_engine::{Caller, Ready};
use tower::Service;

use crate::{
    AppState,
    auth::{self, Door},
    extract::decode_into,
    line::Line,
    oauth::lane::{self, Wanted},
    peer::Peer,
    proxy::{self, ProxiedBody},
    request_id::{self, X_REQUEST_ID},
    token_reply::{self, DEFAULT_MIN_TTL, MAX_MIN_TTL, NOSNIFF},
};

/// As requests for tokens are counted, whichever way they took.
pub(crate) const TOKEN_ROUTE: &str = "/v1/connections/{provider}/{tenant}/{subject}/token";

/// The whole HTTP face: the fast lane, and the router behind it.
#[derive(Clone, Debug)]
pub struct FastLane {
    state: AppState,
    router: Router,
    door: Door,
    peer: Option<Peer>,
    line: Option<Line>,
}

impl FastLane {
    /// The face as it shows at `door`.
    pub fn new(state: AppState, door: Door) -> Self {
        let router = crate::router(state.clone());
        Self { state, router, door, peer: None, line: None }
    }

    /// The same for a connection from `peer`.
    #[must_use]
    pub fn from_peer(self, peer: IpAddr) -> Self {
        Self { peer: Some(Peer(peer.to_canonical())), ..self }
    }

    /// The same for a connection that answers may hold.
    pub(crate) fn on_line(self, line: Line) -> Self {
        Self { line: Some(line), ..self }
    }

    /// The reply, if this is a request that can be answered from what is at hand.
    fn hit<B>(&self, request: &mut Request<B>) -> Option<Response<LaneBody>> {
        if request.method() != Method::GET {
            return None;
        }
        let response = self.token(request).or_else(|| self.state.issuing.as_ref()?.verified(request, self.peer))?;
        self.state.metrics.fast_lane_hits.inc();
        Some(response)
    }

    /// The reply, if this is a request for a token that is cached and fresh.
    fn token<B>(&self, request: &mut Request<B>) -> Option<Response<LaneBody>> {
        let ready = self.asked_for(request, |integration, tenant, subject, min_ttl| {
            self.state.engine.connections().cached(integration, tenant, subject, min_ttl)
        })?;
        Some(reply(std::mem::take(request.headers_mut()), &ready))
    }

    /// Which token is asked for, if the request is plain and its key may read it.
    fn asked_for<B, T>(
        &self,
        request: &Request<B>,
        found: impl FnOnce(&str, &str, &str, Duration) -> Option<T>,
    ) -> Option<T> {
        let [integration, tenant, subject] = names(request.uri().path())?;
        let min_ttl = min_ttl(request.uri().query())?;
        let (mut tenant_buffer, mut subject_buffer) = ([0; 255], [0; 255]);
        let tenant = plain(tenant, &mut tenant_buffer)?;
        let subject = plain(subject, &mut subject_buffer)?;
        let key = self.state.engine.keys().authenticate(presented(request.headers())?)?;
        may_read(&key, integration, tenant).then(|| found(integration, tenant, subject, min_ttl))?
    }

    /// The token that is asked for, if it is to be looked for beyond this process's memory.
    fn missed<B>(&self, request: &Request<B>) -> Option<(ConnectionId, Duration)> {
        if request.method() != Method::GET {
            return None;
        }
        self.asked_for(request, |integration, tenant, subject, min_ttl| {
            let (integration, tenant) = (integration.parse().ok()?, tenant.parse().ok()?);
            Some((ConnectionId { integration, tenant, subject: subject.parse().ok()? }, min_ttl))
        })
    }
}

/// Makes the headers of a reply from those of its request. No log line is written here, so a name for the request that
/// nobody gave would name nothing.
pub(crate) fn turn(mut headers: HeaderMap, put: impl FnOnce(&mut HeaderMap)) -> HeaderMap {
    let id = headers.remove(&X_REQUEST_ID).filter(request_id::is_sane);
    headers.clear();
    put(&mut headers);
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    if let Some(id) = id {
        headers.insert(X_REQUEST_ID, id);
    }
    headers
}

fn reply(headers: HeaderMap, ready: &Arc<Ready>) -> Response<LaneBody> {
    let not_modified = token_reply::is_known(&headers, &ready.etag);
    let headers = turn(headers, |headers| token_reply::put_headers(headers, ready, not_modified));
    let body = if not_modified { Bytes::new() } else { ready.body.clone() };
    let mut response = Response::new(LaneBody::Ready(body));
    if not_modified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    *response.headers_mut() = headers;
    response
}

/// The three names of `/v1/connections/{provider}/{tenant}/{subject}/token`, as they came.
fn names(path: &str) -> Option<[&str; 3]> {
    let mut names = path.strip_prefix("/v1/connections/")?.strip_suffix("/token")?.split('/');
    let found = [names.next()?, names.next()?, names.next()?];
    names.next().is_none().then_some(found)
}

/// The name itself, decoded into `buffer` if need be.
fn plain<'a>(raw: &'a str, buffer: &'a mut [u8]) -> Option<&'a str> {
    if !raw.contains('%') {
        return Some(raw);
    }
    let length = decode_into(raw, buffer)?;
    std::str::from_utf8(&buffer[..length]).ok()
}

/// The `min_ttl` of the plainest queries.
fn min_ttl(query: Option<&str>) -> Option<Duration> {
    let Some(query) = query else { return Some(DEFAULT_MIN_TTL) };
    let digits = query.strip_prefix("min_ttl=")?;
    if !(1..=5).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse().ok().filter(|seconds| *seconds <= MAX_MIN_TTL)?;
    Some(Duration::from_secs(seconds))
}

/// The key, if there is exactly one.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = headers.get_all(&auth::X_API_KEY).iter();
    let key = match (bearers.next(), keys.next()) {
        (Some(value), None) => auth::bearer(value.to_str().ok()?)?,
        (None, Some(value)) => value.to_str().ok()?,
        _ => return None,
    };
    (bearers.next().is_none() && keys.next().is_none()).then(|| key.trim())
}

/// What `Caller::may_at` says of reading a token, of names that nobody has checked yet: an invalid one is bound by no
/// key and cached by nobody.
fn may_read(key: &ApiKey, integration: &str, tenant: &str) -> bool {
    key.allows(Action::ReadToken)
        && key.tenants.as_ref().is_none_or(|bound| bound.contains(tenant))
        && key.providers.as_ref().is_none_or(|bound| bound.contains(integration))
}

impl<B> Service<Request<B>> for FastLane
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<LaneBody>;
    type Error = Infallible;
    type Future = LaneFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> LaneFuture {
        self.answer(request)
    }
}

impl<B> hyper::service::Service<Request<B>> for FastLane
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<LaneBody>;
    type Error = Infallible;
    type Future = LaneFuture;

    fn call(&self, request: Request<B>) -> LaneFuture {
        self.answer(request)
    }
}

impl FastLane {
    fn answer<B>(&self, mut request: Request<B>) -> LaneFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        if let Some(response) = self.hit(&mut request) {
            return LaneFuture::Ready(Some(response));
        }
        if let Some((id, min_ttl)) = self.missed(&request) {
            let this = self.clone();
            return LaneFuture::Routed(Box::pin(async move { this.fetch(&id, min_ttl, request.map(Body::new)).await }));
        }
        let issuing = self.state.issuing.as_ref();
        let proven = issuing.and_then(|issuing| issuing.proven(&request, self.peer, &**self.state.clock()));
        if let Some((wanted, client)) = proven {
            let this = self.clone();
            let request = request.map(Body::new);
            return LaneFuture::Routed(Box::pin(async move { this.tell(wanted, &client, request).await }));
        }
        if let Some((id, caller)) = self.proxied(&request) {
            return LaneFuture::Routed(Box::pin(pass(self.state.clone(), self.line.clone(), caller, id, request)));
        }
        let this = self.clone();
        LaneFuture::Routed(Box::pin(async move { this.route(request.map(Body::new)).await }))
    }

    /// Whose API is to be called, and on whose behalf; whether they may is asked there.
    fn proxied<B>(&self, request: &Request<B>) -> Option<(ConnectionId, Caller)> {
        let [integration, tenant, subject] = proxy::names(request.uri().path())?;
        let (mut tenant_buffer, mut subject_buffer) = ([0; 255], [0; 255]);
        let tenant = plain(tenant, &mut tenant_buffer)?.parse().ok()?;
        let subject = plain(subject, &mut subject_buffer)?.parse().ok()?;
        let id = ConnectionId { integration: integration.parse().ok()?, tenant, subject };
        let key = self.state.engine.keys().authenticate(presented(request.headers())?)?;
        Some((id, Caller::Key(key)))
    }

    /// The token, if it is fresh where others keep it, too; else whatever the router says.
    async fn fetch(self, id: &ConnectionId, min_ttl: Duration, mut request: Request<Body>) -> Response<LaneBody> {
        let began = self.state.clock().now().boot;
        let Some(ready) = self.state.engine.connections().fetched(id, min_ttl).await else {
            return self.route(request).await;
        };
        let response = reply(std::mem::take(request.headers_mut()), &ready);
        self.state.metrics.answered(TOKEN_ROUTE, response.status(), self.state.clock().now().boot.since(began));
        response
    }

    /// The answer to `client`, if it is at hand; else whatever the router says.
    async fn tell(self, wanted: Wanted, client: &Arc<Client>, request: Request<Body>) -> Response<LaneBody> {
        let (mut parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(broken) => {
                let broken = futures_util::stream::once(std::future::ready(Err::<Bytes, _>(broken)));
                return self.route(Request::from_parts(parts, Body::from_stream(broken))).await;
            }
        };
        let told = match (self.state.issuing.as_ref(), wanted) {
            (Some(issuing), Wanted::Description) => issuing.described(client, &body),
            (Some(issuing), Wanted::Token) => issuing.issued(client, &body).await,
            (None, _) => None,
        };
        let Some(told) = told else { return self.route(Request::from_parts(parts, Body::from(body))).await };
        self.state.metrics.fast_lane_hits.inc();
        lane::answered(std::mem::take(&mut parts.headers), wanted, told)
    }

    async fn route(self, mut request: Request<Body>) -> Response<LaneBody> {
        request.extensions_mut().insert(self.door);
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(line) = self.line {
            request.extensions_mut().insert(line);
        }
        let mut router = self.router;
        let Ok(response) = router.call(request).await;
        response.map(LaneBody::Routed)
    }
}

/// The provider's answer. What went wrong before there was one is said here: the request is gone by then.
async fn pass<B>(
    state: AppState,
    line: Option<Line>,
    caller: Caller,
    id: ConnectionId,
    request: Request<B>,
) -> Response<LaneBody>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let name = request.headers().get(&X_REQUEST_ID).filter(|id| request_id::is_sane(id)).cloned();
    let began = state.clock().now().boot;
    match proxy::pass(&state, &caller, &id, request, line).await {
        Ok(answer) => {
            state.metrics.fast_lane_hits.inc();
            answer.map(LaneBody::Proxied)
        }
        Err(error) => {
            let mut answer = proxy::refused(error.into());
            let headers = answer.headers_mut();
            headers.insert(NOSNIFF.0, NOSNIFF.1);
            let name = name.unwrap_or_else(|| request_id::fresh(&**state.clock(), state.entropy()));
            headers.insert(X_REQUEST_ID, name);
            let took = state.clock().now().boot.since(began);
            state.metrics.answered(proxy::PROXY_ROUTE, answer.status(), took);
            answer.map(LaneBody::Routed)
        }
    }
}

/// An answer on its way.
pub enum LaneFuture {
    /// It is there. `None` once taken.
    Ready(Option<Response<LaneBody>>),
    /// The router works on it.
    Routed(Pin<Box<dyn Future<Output = Response<LaneBody>> + Send>>),
}

impl std::fmt::Debug for LaneFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneFuture")
    }
}

impl Future for LaneFuture {
    type Output = Result<Response<LaneBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            LaneFuture::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("a future is polled to its end once")))
            }
            LaneFuture::Routed(routed) => routed.as_mut().poll(cx).map(Ok),
        }
    }
}

/// The body of either lane's answer.
#[derive(Debug)]
pub enum LaneBody {
    /// The bytes the cache holds.
    Ready(Bytes),
    /// Whatever a handler made.
    Routed(Body),
    /// A provider's answer.
    Proxied(ProxiedBody),
}

impl HttpBody for LaneBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            LaneBody::Ready(bytes) if bytes.is_empty() => Poll::Ready(None),
            LaneBody::Ready(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            LaneBody::Routed(body) => Pin::new(body).poll_frame(cx),
            LaneBody::Proxied(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            LaneBody::Ready(bytes) => bytes.is_empty(),
            LaneBody::Routed(body) => body.is_end_stream(),
            LaneBody::Proxied(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            LaneBody::Ready(bytes) => SizeHint::with_exact(bytes.len() as u64),
            LaneBody::Routed(body) => body.size_hint(),
            LaneBody::Proxied(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_route_is_recognised() {
        assert_eq!(names("/v1/connections/google/_default/alice/token"), Some(["google", "_default", "alice"]));
        assert_eq!(names("/v1/connections/g/a%2Fb/c/token"), Some(["g", "a%2Fb", "c"]));
        for other in ["/v1/connections/g/t/token", "/v1/connections/g/t/s", "/v1/connections/g/t/s/x/token", "/", ""] {
            assert_eq!(names(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_plainest_queries_are_read() {
        assert_eq!(min_ttl(None), Some(Duration::from_mins(1)));
        assert_eq!(min_ttl(Some("min_ttl=0")), Some(Duration::ZERO));
        assert_eq!(min_ttl(Some("min_ttl=86400")), Some(Duration::from_hours(24)));
        for other in ["", "min_ttl=", "min_ttl=86401", "min_ttl=+5", "min_ttl=5&x=1", "x=1", "min_ttl=%35"] {
            assert_eq!(min_ttl(Some(other)), None, "{other}");
        }
    }

    #[test]
    fn names_too_long_or_broken_are_left_to_the_router() {
        let mut buffer = [0; 255];
        assert_eq!(plain("a%2Fb", &mut buffer), Some("a/b"));
        assert_eq!(plain("%zz", &mut buffer), None);
        assert_eq!(plain("%ff", &mut buffer), None);
        assert_eq!(plain(&format!("%2F{}", "x".repeat(255)), &mut buffer), None);
    }
}
