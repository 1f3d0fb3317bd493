//! The description of the API (`OpenAPI` 3.1), made from the handlers themselves.

use utoipa::{
    Modify, OpenApi, ToResponse, ToSchema,
    openapi::{
        OpenApi as Document,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::proxy;
use crate::{
    api::{
        clients, connect, connections, credentials, grants, health, instances, integrations, interactions, issuer,
        keys, providers, sessions, signing_keys, stats, subjects,
    },
    compat,
};

/// The document, pretty-printed. The same in every run: it is checked in as `docs/openapi.json`.
pub fn openapi_json() -> String {
    let mut document = Api::openapi();
    // Whoever runs an installation is its contact; we do not know them.
    document.info.contact = None;
    let mut json = document.to_pretty_json().expect("the document holds nothing but strings, numbers and maps");
    json.push('\n');
    json
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tokenkeep",
        description = "Holds, refreshes and serves OAuth tokens.\n\nTenants and subjects in paths are 1-255 printable \
            ASCII characters, percent-encoded, never `.` or `..`. Errors are RFC 9457 problem details with a stable \
            `code`. Answers carry the `X-Request-Id` they were \
            asked with, or one of ours; a cached token carries none of ours.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        connections::list,
        credentials::test,
        credentials::login,
        connections::status,
        connections::put,
        connections::delete,
        connections::token,
        connections::refresh,
        subjects::forget,
        connect::start,
        connect::view,
        connect::confirm,
        integrations::list,
        integrations::get,
        integrations::put,
        integrations::delete,
        keys::list,
        keys::create,
        keys::delete,
        clients::list,
        clients::get,
        clients::create,
        clients::put,
        clients::rotate_secret,
        clients::delete,
        grants::list,
        grants::get,
        grants::revoke,
        grants::revoke_all,
        grants::get_by_token,
        grants::revoke_token,
        interactions::get,
        interactions::accept,
        interactions::reject,
        sessions::issue,
        sessions::current,
        sessions::upstream_token,
        sessions::refresh,
        sessions::reissue,
        sessions::websocket,
        sessions::logout,
        sessions::stats,
        sessions::cleanup,
        signing_keys::list,
        signing_keys::rotate,
        issuer::stats,
        issuer::purge,
        proxy::call,
        providers::list,
        stats::stats,
        stats::cleanup,
        instances::list,
        instances::forget,
        compat::tokens::stats,
        compat::tokens::cleanup,
        compat::tokens::clear,
        compat::tokens::status,
        compat::credentials::test,
        compat::credentials::store,
        compat::credentials::store_for_tickets,
        health::live,
        health::ready,
        health::metrics,
        health::openapi,
    ),
    components(
        schemas(ProblemBody, ConnectOffer),
        responses(
            BadRequest, Unauthorized, Forbidden, TooLarge, NotJson, InvalidCredentials, ReauthRequired, TooMany, BadGateway, Unavailable,
            NoIssuer, NoSessions, SessionOver,
        ),
    ),
    tags(
        (name = "connections", description = "Tokens in, tokens out"),
        (name = "credentials", description = "What is logged in with where there is no OAuth"),
        (name = "subjects", description = "Everything of one person"),
        (name = "connect", description = "A user consents"),
        (name = "integrations", description = "Our client at a provider"),
        (name = "keys", description = "Keys to this API"),
        (name = "clients", description = "Who may ask our authorization server for tokens"),
        (name = "grants", description = "What subjects allowed clients"),
        (name = "sessions", description = "Our token to the browser, the provider's behind it"),
        (name = "interactions", description = "An application's own pages for signing in and consenting"),
        (name = "signing keys", description = "What signs access tokens"),
        (name = "proxy", description = "Calls to providers' APIs"),
        (name = "providers", description = "The catalogue"),
        (name = "compatibility", description = "The routes of a token service for BlueStakes tickets, as its callers know them"),
        (name = "operations", description = "Health, metrics, statistics, instances"),
    ),
    security(("bearer" = []), ("api_key" = [])),
    modifiers(&Schemes),
)]
struct Api;

/// How a key is shown.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
        let session = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        components.add_security_scheme("session", SecurityScheme::Http(session.build()));
    }
}

/// An error (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "only describes what `Problem` writes")]
pub(crate) struct ProblemBody {
    /// `urn:tokenkeep:problem:` and the code.
    r#type: String,
    /// The kind of problem, for people.
    title: String,
    /// The HTTP status again.
    status: u16,
    /// This very problem, for people.
    detail: String,
    /// The stable word for it.
    code: String,
    /// With `reauth_required`: why.
    reason: Option<String>,
    /// With `reauth_required`: the body to post to `/v1/connect`.
    connect: Option<ConnectOffer>,
}

/// What to post to `/v1/connect` so that the user can consent again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only describes what `Problem` writes")]
struct ConnectOffer {
    provider: String,
    tenant: String,
    subject: String,
}

macro_rules! problem_response {
    ($(#[doc = $doc:literal])* $name:ident, $description:literal, $example:tt) => {
        $(#[doc = $doc])*
        #[derive(ToResponse)]
        #[response(description = $description, content_type = "application/problem+json", example = json!($example))]
        #[expect(dead_code, reason = "only describes what `Problem` writes")]
        pub(crate) struct $name(ProblemBody);
    };
}

problem_response! {
    /// 400
    BadRequest, "`invalid_request`, `invalid_identifier`", {
        "type": "urn:tokenkeep:problem:invalid_identifier", "title": "An identifier breaks the rules", "status": 400,
        "detail": "tenant is empty", "code": "invalid_identifier"
    }
}
problem_response! {
    /// 401
    Unauthorized, "`invalid_api_key`", {
        "type": "urn:tokenkeep:problem:invalid_api_key", "title": "The API key is missing or unknown", "status": 401,
        "detail": "this API key is not known here", "code": "invalid_api_key"
    }
}
problem_response! {
    /// 403
    Forbidden, "`forbidden`", {
        "type": "urn:tokenkeep:problem:forbidden", "title": "This key does not allow that", "status": 403,
        "detail": "this key is not bound to that tenant", "code": "forbidden"
    }
}
problem_response! {
    /// 404
    NoIssuer, "`no_issuer`: this server issues no tokens", {
        "type": "urn:tokenkeep:problem:no_issuer", "title": "This server issues no tokens", "status": 404,
        "detail": "there is no `[issuer]` in the configuration of this server", "code": "no_issuer"
    }
}
problem_response! {
    /// 404
    NoSessions, "`no_sessions`: this server has no backend sessions", {
        "type": "urn:tokenkeep:problem:no_sessions", "title": "This server has no backend sessions", "status": 404,
        "detail": "there is no `[sessions]` in the configuration of this server", "code": "no_sessions"
    }
}
problem_response! {
    /// 401
    SessionOver, "`invalid_session`: the token does not count, or what it led to is gone; `reauth_required`: the user must sign in again", {
        "type": "urn:tokenkeep:problem:invalid_session", "title": "The session is over", "status": 401,
        "detail": "the session is over, or the token is not one of a session", "code": "invalid_session"
    }
}
problem_response! {
    /// 413
    TooLarge, "`payload_too_large`: more than 64 KiB", {
        "type": "urn:tokenkeep:problem:payload_too_large", "title": "The body is too large", "status": 413,
        "detail": "a body may be at most 64 KiB", "code": "payload_too_large"
    }
}
problem_response! {
    /// 415
    NotJson, "`unsupported_media_type`", {
        "type": "urn:tokenkeep:problem:unsupported_media_type", "title": "The body must be JSON", "status": 415,
        "detail": "send the body as `Content-Type: application/json`", "code": "unsupported_media_type"
    }
}
problem_response! {
    /// 422
    InvalidCredentials, "`invalid_credentials`: the provider does not take them", {
        "type": "urn:tokenkeep:problem:invalid_credentials", "title": "The provider does not take these credentials",
        "status": 422, "detail": "the provider of `bluestakes` does not take these credentials",
        "code": "invalid_credentials"
    }
}
problem_response! {
    /// 424
    ReauthRequired, "`reauth_required`: only the user can help, by consenting again or, with the reason `invalid_credentials`, with other credentials", {
        "type": "urn:tokenkeep:problem:reauth_required", "title": "The user must consent again", "status": 424,
        "detail": "google/_default/alice needs its user's consent again (invalid_grant)", "code": "reauth_required",
        "reason": "invalid_grant", "connect": {"provider": "google", "tenant": "_default", "subject": "alice"}
    }
}
problem_response! {
    /// 429
    TooMany, "`too_many_requests`: see `Retry-After`", {
        "type": "urn:tokenkeep:problem:too_many_requests", "title": "Too much was asked", "status": 429,
        "detail": "every new token of this connection is reported; wait 60 s", "code": "too_many_requests"
    }
}
problem_response! {
    /// 502
    BadGateway, "`integration_missing`, `integration_rejected`, `provider_rejected`", {
        "type": "urn:tokenkeep:problem:integration_missing", "title": "The integration is missing", "status": 502,
        "detail": "there is no integration `google`; its client id and secret are needed to refresh",
        "code": "integration_missing"
    }
}
problem_response! {
    /// 503
    Unavailable, "`store_unavailable`, `provider_unavailable`, `unresolved`: see `Retry-After`", {
        "type": "urn:tokenkeep:problem:store_unavailable", "title": "The store does not answer", "status": 503,
        "detail": "the store does not answer at present", "code": "store_unavailable"
    }
}
