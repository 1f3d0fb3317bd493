//! What happens around every request on the slow path: a name, a span, one log line, a count, the safety headers.
//!
//! Routes are logged as templates: a path names a person, and a person's name is not for the log.

use std::panic::AssertUnwindSafe;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderValue, Method, header};
use tracing::Instrument;

use crate::{
    AppState,
    problem::{INTERNAL_ERROR, Problem},
    proxy::Passed,
    request_id::{self, X_REQUEST_ID},
    token_reply::NOSNIFF,
};

/// The template of what no route matches.
const UNMATCHED: &str = "unmatched";

pub(crate) async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = request_id::of(request.headers(), &**state.clock(), state.entropy());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let method = method(request.method());
    let started = state.clock().now().boot;
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), method, route);

    let mut response = answer(request, next).instrument(span.clone()).await;

    let took = state.clock().now().boot.since(started);
    state.metrics.answered(route, response.status(), took);
    span.in_scope(|| {
        let status = response.status().as_u16();
        // A probe every few seconds says nothing by being answered.
        if matches!(route, "/healthz" | "/readyz" | "/metrics") && status < 400 {
            tracing::debug!(status, millis = took.as_secs_f64() * 1e3, "answered");
        } else {
            tracing::info!(status, millis = took.as_secs_f64() * 1e3, "answered");
        }
    });

    if response.extensions().get::<Passed>().is_some() {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id);
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A defect costs the one request it is in.
async fn answer(request: Request, next: Next) -> Response {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        tracing::error!("a handler panicked");
        Problem::new(INTERNAL_ERROR, "this request hit a defect; the log says more").into_response()
    })
}

/// A method's name: anybody can make one up, so only the known ones reach log and metrics.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
