//! `/v1/sessions`: backend sessions. Issuing and counting take an API key; all else takes what was issued.

mod bodies;

use std::time::Duration;

use axum::{
    Router,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use secrecy::ExposeSecret as _;
use tokenkeep_core::time::between;
use tokenkeep_engine::{
    Error,
    sessions::{IssuedSession, Sessions},
};
use tokenkeep_oauth::Secret;
use tower_http::cors::CorsLayer;

pub(crate) use self::bodies::{
    CleanedBody, CurrentBody, IssueBody, IssuedBody, RefreshSessionBody, ReissueBody, SessionStatsBody,
};
use crate::{
    AppState,
    auth::{self, Auth},
    body::{Json, OptionalJson},
    extract::Params,
    openapi::ProblemBody,
    problem::{INVALID_SESSION, NO_SESSIONS, Problem},
    token_reply,
};

/// Where a refreshed token is told to whoever looks at headers only.
const X_NEW_ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-new-access-token");

/// For so long a browser need not ask again.
const REMEMBERED: Duration = Duration::from_mins(10);

/// The routes, whether there are sessions or not.
pub(crate) fn routes(state: &AppState) -> Router<AppState> {
    let origins = state.engine.sessions().map(|sessions| sessions.settings().allowed_origins.as_slice());
    let origins: Vec<HeaderValue> =
        origins.unwrap_or_default().iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    // What gives out the provider's token is for backends: no page of any site reads it.
    Router::new()
        .route("/v1/sessions", post(issue))
        .route("/v1/sessions/stats", get(stats))
        .route("/v1/sessions/cleanup", post(cleanup))
        .route("/v1/sessions/upstream-token", post(upstream_token))
        .route("/v1/sessions/current", open(get(current).merge(delete(logout)), &origins))
        .route("/v1/sessions/refresh", open(post(refresh), &origins))
        .route("/v1/sessions/reissue", open(post(reissue), &origins))
        .route("/v1/sessions/websocket", open(post(websocket), &origins))
}

/// Opens a route to the pages of these origins. No cookie counts there, and none is sent.
fn open(route: MethodRouter<AppState>, origins: &[HeaderValue]) -> MethodRouter<AppState> {
    if origins.is_empty() {
        return route;
    }
    let preflight = async || StatusCode::NO_CONTENT;
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([X_NEW_ACCESS_TOKEN, header::WWW_AUTHENTICATE, header::RETRY_AFTER])
        .max_age(REMEMBERED);
    route.options(preflight).layer(layer)
}

/// The use cases; where there are none, a 404.
#[derive(Debug)]
pub(crate) struct OurSessions(Sessions);

impl FromRequestParts<AppState> for OurSessions {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let none = "there is no `[sessions]` in the configuration of this server";
        state.engine.sessions().cloned().map(Self).ok_or_else(|| Problem::new(NO_SESSIONS, none))
    }
}

/// The access token of a session, as its caller shows it (RFC 6750 2.1).
#[derive(Debug)]
pub(crate) struct Bearer(Secret);

impl FromRequestParts<AppState> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
        let (first, second) = (values.next(), values.next());
        if second.is_some() {
            return Err(Problem::invalid("there are two `Authorization` headers"));
        }
        let token = first.and_then(|value| value.to_str().ok()).and_then(auth::bearer).map(str::trim);
        let missing = || Problem::new(INVALID_SESSION, "send the session's access token as `Authorization: Bearer`");
        token.filter(|token| !token.is_empty()).map(|token| Self(token.into())).ok_or_else(missing)
    }
}

/// An error as a session's caller sees it: what needs the user is a 401 there, for it is they who ask.
fn told(error: Error) -> Problem {
    let needs_user = matches!(error, Error::ReauthRequired { .. });
    let problem = Problem::from(error);
    if needs_user { problem.with_status(StatusCode::UNAUTHORIZED) } else { problem }
}

/// Makes a session: a token of ours, with the provider's tokens behind it.
///
/// Behind it stands a `connection` that is there, or `tokens` that a sign-in brought; they are stored first. Without
/// `ttl`, the access token dies 15 minutes before the provider's (in 5 minutes at least), and never after one that
/// cannot be renewed; where the provider says nothing, after `[sessions] ttl`.
#[utoipa::path(
    post,
    path = "/v1/sessions",
    tag = "sessions",
    operation_id = "issue_session",
    request_body = IssueBody,
    responses(
        (status = 201, description = "the session", body = IssuedBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connection_not_found`, `provider_not_found`, `no_sessions`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`stale_refresh_token`, `conflict`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 424, response = crate::openapi::ReauthRequired),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn issue(
    State(state): State<AppState>,
    Auth(caller): Auth,
    OurSessions(sessions): OurSessions,
    Json(body): Json<IssueBody>,
) -> Result<Response, Problem> {
    let new = body.into_new(state.clock().now().wall)?;
    let issued = sessions.issue(&caller, new).await?;
    Ok((StatusCode::CREATED, axum::Json(IssuedBody::from(issued))).into_response())
}

/// How the session stands that the caller's token belongs to. No secrets.
#[utoipa::path(
    get,
    path = "/v1/sessions/current",
    tag = "sessions",
    operation_id = "get_current_session",
    security(("session" = [])),
    responses(
        (status = 200, description = "whose it is, what stands behind it, and how long", body = CurrentBody),
        (status = 401, response = crate::openapi::SessionOver),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn current(
    State(state): State<AppState>,
    OurSessions(sessions): OurSessions,
    Bearer(token): Bearer,
) -> Result<axum::Json<CurrentBody>, Problem> {
    let view = sessions.current(&token).await.map_err(told)?;
    Ok(axum::Json(CurrentBody::new(view, state.clock().now().wall)))
}

/// The provider's access token behind the session, fresh. One that is dead is never answered.
#[utoipa::path(
    post,
    path = "/v1/sessions/upstream-token",
    tag = "sessions",
    operation_id = "get_upstream_token",
    security(("session" = [])),
    params(("min_ttl" = Option<u64>, Query, minimum = 0, maximum = 86_400, description = "seconds it must live; 60 by default")),
    responses(
        (status = 200, description = "the token", body = super::connections::TokenBody, headers(("ETag" = String, description = "the generation, in quotes"))),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::SessionOver),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn upstream_token(
    OurSessions(sessions): OurSessions,
    Bearer(token): Bearer,
    params: Params,
) -> Result<Response, Problem> {
    let min_ttl = token_reply::min_ttl(&params)?;
    let ready = match sessions.ensured(token.expose_secret(), min_ttl) {
        Some(ready) => ready,
        None => sessions.ensure(&token, min_ttl).await.map_err(told)?,
    };
    let mut response = ready.body.clone().into_response();
    token_reply::put_headers(response.headers_mut(), &ready, false);
    Ok(response)
}

/// Renews both: the provider's tokens and ours. The old token lives on for `[sessions] grace`, and whoever sends it
/// meanwhile gets the same new one. With a `refresh_token` in the body no access token is needed.
#[utoipa::path(
    post,
    path = "/v1/sessions/refresh",
    tag = "sessions",
    operation_id = "refresh_session",
    security(("session" = []), ()),
    request_body = Option<RefreshSessionBody>,
    responses(
        (status = 200, description = "the new token, in the body and in the header", body = IssuedBody, headers(("X-New-Access-Token" = String, description = "the new access token"))),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::SessionOver),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn refresh(
    OurSessions(sessions): OurSessions,
    bearer: Result<Bearer, Problem>,
    OptionalJson(body): OptionalJson<RefreshSessionBody>,
) -> Result<Response, Problem> {
    let issued = match body.refresh_token {
        Some(refresh_token) => sessions.refresh_with(&refresh_token).await,
        None => sessions.refresh(&bearer?.0).await,
    };
    let issued = issued.map_err(told)?;
    let mut told = HeaderValue::from_str(issued.access_token.expose_secret()).expect("a JWT is printable ASCII");
    told.set_sensitive(true);
    Ok(([(X_NEW_ACCESS_TOKEN, told)], axum::Json(IssuedBody::from(issued))).into_response())
}

/// One more access token on the same session; the one that is sent stays.
#[utoipa::path(
    post,
    path = "/v1/sessions/reissue",
    tag = "sessions",
    operation_id = "reissue_session",
    security(("session" = [])),
    request_body = Option<ReissueBody>,
    responses(
        (status = 200, description = "the token", body = IssuedBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::SessionOver),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn reissue(
    OurSessions(sessions): OurSessions,
    Bearer(token): Bearer,
    OptionalJson(body): OptionalJson<ReissueBody>,
) -> Result<axum::Json<IssuedBody>, Problem> {
    let issued = sessions.reissue(&token, body.ttl.map(Duration::from_secs)).await;
    issued.map(|issued| axum::Json(issued.into())).map_err(told)
}

/// A token for opening a WebSocket, which lives for `[sessions] websocket_ttl`. It can be neither refreshed nor reissued.
/// Whoever keeps the socket closes it with code 4001 once the session is over.
#[utoipa::path(
    post,
    path = "/v1/sessions/websocket",
    tag = "sessions",
    operation_id = "reissue_session_for_websocket",
    security(("session" = [])),
    responses(
        (status = 200, description = "the token", body = IssuedBody),
        (status = 401, response = crate::openapi::SessionOver),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn websocket(
    OurSessions(sessions): OurSessions,
    Bearer(token): Bearer,
) -> Result<axum::Json<IssuedBody>, Problem> {
    let issued = sessions.for_websocket(&token).await;
    issued.map(|issued| axum::Json(issued.into())).map_err(told)
}

/// Ends the session: all its tokens, on every instance. The connection stays.
#[utoipa::path(
    delete,
    path = "/v1/sessions/current",
    tag = "sessions",
    operation_id = "end_session",
    security(("session" = [])),
    responses(
        (status = 204, description = "it is over"),
        (status = 401, response = crate::openapi::SessionOver),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn logout(OurSessions(sessions): OurSessions, Bearer(token): Bearer) -> Result<StatusCode, Problem> {
    sessions.logout(&token).await.map_err(told)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Counts the access tokens of sessions. Reads every record: not for every second.
#[utoipa::path(
    get,
    path = "/v1/sessions/stats",
    tag = "sessions",
    operation_id = "get_session_stats",
    responses(
        (status = 200, description = "the counts", body = SessionStatsBody),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn stats(
    Auth(caller): Auth,
    OurSessions(sessions): OurSessions,
) -> Result<axum::Json<SessionStatsBody>, Problem> {
    Ok(axum::Json(sessions.stats(&caller).await?.into()))
}

/// Forgets access tokens of sessions that died more than five minutes ago.
#[utoipa::path(
    post,
    path = "/v1/sessions/cleanup",
    tag = "sessions",
    operation_id = "clean_up_sessions",
    responses(
        (status = 200, description = "how many", body = CleanedBody),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoSessions),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn cleanup(
    Auth(caller): Auth,
    OurSessions(sessions): OurSessions,
) -> Result<axum::Json<CleanedBody>, Problem> {
    Ok(axum::Json(CleanedBody { removed: sessions.cleanup(&caller).await? }))
}

impl From<IssuedSession> for IssuedBody {
    fn from(issued: IssuedSession) -> Self {
        Self {
            access_token: issued.access_token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: between(issued.issued_at, issued.expires_at).as_secs(),
            expires_at: super::time(issued.expires_at),
            session_id: issued.id.to_string(),
            upstream_expires_at: issued.upstream_expires_at.map(super::time),
            refresh_token: issued.refresh_token.map(|token| token.expose_secret().to_owned()),
        }
    }
}
