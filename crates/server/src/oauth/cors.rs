//! What lets clients in browsers, on any site, speak to us. They bring what they need in the request itself: no cookie
//! of ours counts there, and none is sent.

use std::time::Duration;

use axum::routing::MethodRouter;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

use crate::{AppState, request_id::X_REQUEST_ID};

/// MCP clients send it with every request.
const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// Names a session at an MCP server.
const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// For so long a browser need not ask again: the longest that any of them takes.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Opens a route to every site. The layer answers `OPTIONS` itself, but only where the route takes it.
pub(crate) fn open(route: MethodRouter<AppState>) -> MethodRouter<AppState> {
    let preflight = async || StatusCode::NO_CONTENT;
    let layer = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, MCP_PROTOCOL_VERSION])
        .expose_headers([header::WWW_AUTHENTICATE, header::RETRY_AFTER])
        .max_age(REMEMBERED);
    route.options(preflight).layer(layer)
}

/// What lets clients in browsers speak to a server that we stand in front of, with whatever headers they have. It says
/// nothing of credentials: a browser sends none by itself.
pub(crate) fn of_gates() -> CorsLayer {
    let exposed = [header::WWW_AUTHENTICATE, header::RETRY_AFTER, MCP_SESSION_ID, MCP_PROTOCOL_VERSION, X_REQUEST_ID];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(REMEMBERED)
}

/// What the layer says of an answer, for one that does not pass it.
pub(crate) fn put_headers(headers: &mut HeaderMap) {
    let varies = "origin, access-control-request-method, access-control-request-headers";
    headers.insert(header::VARY, HeaderValue::from_static(varies));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("www-authenticate,retry-after"));
}
