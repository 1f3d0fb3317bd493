//! Every URL and who answers it.

use axum::{
    Router, middleware,
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use http::Uri;

use crate::{
    AppState,
    api::{
        clients, connect, connections, credentials, grants, health, instances, integrations, interactions, issuer,
        keys, providers, sessions, signing_keys, stats, subjects,
    },
    compat, connect_page,
    fast_lane::TOKEN_ROUTE,
    oauth::{self, callback},
    observe::observe,
    problem::{INVALID_IDENTIFIER, METHOD_NOT_ALLOWED, Problem, ROUTE_NOT_FOUND},
    protect,
    proxy::{self, PROXY_ROUTE},
};

/// What our own paths begin with, in this version and in those to come. `/mcp` is left to whoever says what is there.
const OWN: [&str; 24] = [
    ".well-known",
    "assets",
    "authorize",
    "callback",
    "connect",
    "console",
    "healthz",
    "introspect",
    "jwks",
    "metrics",
    "oauth",
    "openapi.json",
    "proxy",
    "readyz",
    "register",
    "revoke",
    "sessions",
    "static",
    "tickets",
    "token",
    "tokens",
    "userinfo",
    "v1",
    "verify",
];

/// Whether `path` is one of our own, or below one: then nothing else can be there.
pub fn is_own_path(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    first.is_empty() || OWN.contains(&first)
}

/// The routes, without the fast lane.
pub fn router(state: AppState) -> Router {
    let routes = Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(health::openapi))
        .route("/v1/connections", get(connections::list))
        .route(
            "/v1/connections/{provider}/{tenant}/{subject}",
            get(connections::status).put(connections::put).delete(connections::delete),
        )
        .route(TOKEN_ROUTE, get(connections::token))
        .route("/v1/connections/{provider}/{tenant}/{subject}/token/refresh", post(connections::refresh))
        .route("/v1/credentials/test", post(credentials::test))
        .route("/v1/credentials/login", post(credentials::login))
        .route("/v1/subjects/{tenant}/{subject}", delete(subjects::forget))
        .route("/v1/connect", post(connect::start))
        .route("/v1/connect/{id}", get(connect::view))
        .route("/v1/connect/{id}/confirm", post(connect::confirm))
        .route("/v1/integrations", get(integrations::list))
        .route("/v1/integrations/{id}", get(integrations::get).put(integrations::put).delete(integrations::delete))
        .route("/v1/instances", get(instances::list))
        .route("/v1/instances/{id}", delete(instances::forget))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{id}", delete(keys::delete))
        .route("/v1/clients", get(clients::list).post(clients::create))
        .route("/v1/clients/{id}", get(clients::get).put(clients::put).delete(clients::delete))
        .route("/v1/clients/{id}/secret", post(clients::rotate_secret))
        .route("/v1/grants", get(grants::list).delete(grants::revoke_all))
        .route("/v1/grants/{id}", get(grants::get).delete(grants::revoke))
        .route("/v1/grants/by-token/{jti}", get(grants::get_by_token).delete(grants::revoke_token))
        .route("/v1/interactions/{id}", get(interactions::get))
        .route("/v1/interactions/{id}/accept", post(interactions::accept))
        .route("/v1/interactions/{id}/reject", post(interactions::reject))
        .route("/v1/issuer/stats", get(issuer::stats))
        .route("/v1/issuer/purge", post(issuer::purge))
        .route("/v1/signing-keys", get(signing_keys::list))
        .route("/v1/signing-keys/rotate", post(signing_keys::rotate))
        .route("/v1/providers", get(providers::list))
        .route("/v1/stats", get(stats::stats))
        .route("/v1/cleanup", post(stats::cleanup))
        .route("/proxy/{provider}/{tenant}/{subject}", any(proxy::call))
        .route("/proxy/{provider}/{tenant}/{subject}/", any(proxy::call))
        .route(PROXY_ROUTE, any(proxy::call))
        .route("/tokens/stats", get(compat::tokens::stats))
        .route("/tokens/cleanup", post(compat::tokens::cleanup))
        .route("/tokens/{company_id}", delete(compat::tokens::clear))
        .route("/tokens/{company_id}/status", get(compat::tokens::status))
        .route("/tokens/credentials/test", post(compat::credentials::test))
        .route("/tokens/credentials/{company_id}", post(compat::credentials::store))
        .route("/tickets/store-credentials/{company_id}", post(compat::credentials::store_for_tickets))
        .route("/connect/{ticket}", get(connect_page::show).post(connect_page::leave))
        .route("/oauth/callback", get(callback::query).post(callback::form))
        .route("/oauth/{provider}/callback", get(callback::query).post(callback::form))
        .route("/callback", get(callback::query).post(callback::form))
        .route("/oauth/return", get(callback::returned));
    routes
        .merge(sessions::routes(&state))
        .merge(oauth::routes(&state))
        .merge(protect::routes(&state))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(state.clone(), observe))
        .with_state(state)
}

async fn no_route(uri: Uri) -> Response {
    // A route with an empty name in it is meant for a connection that cannot exist.
    if uri.path().starts_with("/v1/") && uri.path().split('/').skip(1).any(str::is_empty) {
        return Problem::new(INVALID_IDENTIFIER, "a name in the path is empty").into_response();
    }
    Problem::new(ROUTE_NOT_FOUND, "there is no such route; /openapi.json lists them").into_response()
}

async fn no_method() -> Response {
    Problem::new(METHOD_NOT_ALLOWED, "the `Allow` header lists this route's methods").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds a route elsewhere than below these must say so.
    #[test]
    fn every_route_of_ours_is_known_as_one() {
        let mut routes = 0;
        for source in [include_str!("router.rs"), include_str!("compat/mod.rs")] {
            let source = source.split("#[cfg(test)]").next().unwrap_or_default();
            for path in source.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/')) {
                assert!(is_own_path(path), "{path}");
                routes += 1;
            }
        }
        assert!(routes > 30, "{routes}");
        for ours in ["/", "/v1", "/v1/x", "/authorize", "/.well-known/x", "//v1"] {
            assert!(is_own_path(ours), "{ours}");
        }
        for free in ["/mcp", "/tools/github", "/v2", "/authorizes"] {
            assert!(!is_own_path(free), "{free}");
        }
    }
}
