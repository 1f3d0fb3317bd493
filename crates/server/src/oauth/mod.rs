//! The OAuth endpoints that face browsers, clients and providers: one file per endpoint.
//!
//! | file | RFC |
//! |---|---|
//! | [`token`], [`revoke`], [`introspect`] | 6749 3.2, 7009, 7662 |
//! | [`register`] | 7591, 7592 |
//! | [`metadata`], [`jwks`] | 8414, 9728, 7517 |
//! | [`verify`] | 6750 3, for proxies that ask before they let a request through |
//! | [`authorize`], [`consent`], [`administrator`] | 6749 4.1.1, and the pages that people see |
//! | [`callback`] | 6749 4.1.2: where providers send browsers back to |
//!
//! What they share: [`issuing`] (what is made once), [`form`] and [`client`] (what a request says, and whose it is),
//! [`errors`], [`sorry`] (the same for people), [`cors`], [`ceilings`], and [`lane`], the hot path of three of them.

mod administrator;
mod authorize;
mod bearer;
pub(crate) mod callback;
mod ceilings;
mod client;
mod consent;
pub(crate) mod cors;
pub(crate) mod errors;
mod form;
mod introspect;
pub(crate) mod issuing;
mod jwks;
pub(crate) mod lane;
mod metadata;
mod register;
mod revoke;
mod sorry;
mod token;
pub(crate) mod verify;

use axum::{
    Router,
    response::Response,
    routing::{get, post},
};
use http::{HeaderName, HeaderValue, header};
use tokenkeep_oauth::issuer::metadata::Endpoint;

use self::cors::open;
use crate::AppState;

pub(crate) const NO_REFERRER: (HeaderName, HeaderValue) =
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));

/// The endpoints of the authorization server, where there is one.
pub(crate) fn routes(state: &AppState) -> Router<AppState> {
    // What stands in the configuration is a path, not a pattern.
    let router = Router::new().without_v07_checks();
    let Some(issuing) = &state.issuing else {
        // Whoever is shown a session's token may want to check it.
        let signs = state.engine.granting().is_some();
        return if signs { router.route(Endpoint::Jwks.path(), open(get(jwks::jwks))) } else { router };
    };
    let url = &issuing.issuer.settings().url;
    let below = |path: &str| format!("{}{path}", url.path());
    let mut router = router
        .route(&below(Endpoint::Token.path()), open(post(token::token)))
        .route(&below(Endpoint::Revoke.path()), open(post(revoke::revoke)))
        .route(&below(Endpoint::Jwks.path()), open(get(jwks::jwks)));
    let (all, one) = (below(Endpoint::Register.path()), below(&format!("{}/{{client_id}}", Endpoint::Register.path())));
    router = router
        .route(&all, open(post(register::register)))
        .route(&one, open(get(register::get).put(register::put).delete(register::delete)));
    for path in url.well_known_paths() {
        router = router.route(&path, open(get(metadata::server)));
    }
    for path in issuing.documents.resource_paths() {
        router = router.route(path, open(get(metadata::resource)));
    }
    let page = below(&format!("{}/{{interaction}}", Endpoint::Authorize.path()));
    router
        .route(&below(Endpoint::Authorize.path()), get(authorize::query).post(authorize::form))
        .route(&page, get(consent::show).post(consent::decide))
        .route(&format!("{page}/administrator"), post(administrator::sign_in))
        .route(&below(Endpoint::Introspect.path()), post(introspect::introspect))
        .route(&below(verify::PATH), get(verify::verify).post(verify::verify))
        .layer(axum::middleware::map_response(no_referrer))
}

async fn no_referrer(mut response: Response) -> Response {
    response.headers_mut().insert(NO_REFERRER.0, NO_REFERRER.1);
    response
}
