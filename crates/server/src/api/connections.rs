//! `/v1/connections`: tokens in, tokens out, and how each connection stands.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{Action, Generation, Status, time::after};
use tokenkeep_engine::{ConnectionFilter, ConnectionView, Given, GivenCredentials, PutMode, PutTokens, Ready};
use tokenkeep_oauth::Secret;
use utoipa::ToSchema;

use super::{Created, credentials::CredentialsBody, page_limit, time};
use crate::{
    AppState,
    auth::Auth,
    body::{Json, OptionalJson},
    extract::{ConnectionPath, Params},
    openapi::ProblemBody,
    problem::Problem,
    token_reply,
};

/// An access token that is fresh for at least `min_ttl`.
#[utoipa::path(
    get,
    path = "/v1/connections/{provider}/{tenant}/{subject}/token",
    tag = "connections",
    operation_id = "get_token",
    params(
        ("provider" = String, Path, description = "the integration's id", example = "google"),
        ("tenant" = String, Path, description = "percent-encoded", example = "_default"),
        ("subject" = String, Path, description = "percent-encoded", example = "alice"),
        ("min_ttl" = Option<u32>, Query, minimum = 0, maximum = 86400,
            description = "seconds the token must still live, capped at half its life; 60 by default"),
        ("If-None-Match" = Option<String>, Header, description = "the `ETag` of the token you have", example = "\"7\""),
    ),
    responses(
        (status = 200, description = "the token", body = TokenBody, headers(("ETag" = String, description = "the generation, in quotes"))),
        (status = 304, description = "you have this generation already"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connection_not_found`"),
        (status = 424, response = crate::openapi::ReauthRequired),
        (status = 429, response = crate::openapi::TooMany),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn token(
    State(state): State<AppState>,
    Auth(caller): Auth,
    ConnectionPath(id): ConnectionPath,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let min_ttl = token_reply::min_ttl(&params)?;
    let ready = state.engine.connections().token(&caller, &id, min_ttl).await?;
    Ok(reply(&ready, token_reply::is_known(&headers, &ready.etag)))
}

fn reply(ready: &Ready, not_modified: bool) -> Response {
    let mut response = if not_modified {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(ready.body.clone()))
    };
    token_reply::put_headers(response.headers_mut(), ready, not_modified);
    response
}

/// Reports that a token no longer works, or asks for a new one.
///
/// With `if_generation`: lower than ours brings the current token without any call to the provider, equal brings one
/// refresh for all who ask, higher 503: then we are behind. A key that may not read tokens gets the reply without
/// `access_token`.
#[utoipa::path(
    post,
    path = "/v1/connections/{provider}/{tenant}/{subject}/token/refresh",
    tag = "connections",
    operation_id = "refresh_token",
    params(
        ("provider" = String, Path, example = "google"),
        ("tenant" = String, Path, example = "_default"),
        ("subject" = String, Path, example = "alice"),
    ),
    request_body = Option<RefreshBody>,
    responses(
        (status = 200, description = "the token", body = TokenBody, headers(("ETag" = String, description = "the generation, in quotes"))),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connection_not_found`"),
        (status = 424, response = crate::openapi::ReauthRequired),
        (status = 429, response = crate::openapi::TooMany),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn refresh(
    State(state): State<AppState>,
    Auth(caller): Auth,
    ConnectionPath(id): ConnectionPath,
    OptionalJson(body): OptionalJson<RefreshBody>,
) -> Result<Response, Problem> {
    let ready = state.engine.connections().refresh(&caller, &id, body.if_generation.map(Generation)).await?;
    if caller.may_at(Action::ReadToken, &id.integration, &id.tenant).is_ok() {
        return Ok(reply(&ready, false));
    }
    let mut response = axum::Json(RefreshedBody::from(&*ready)).into_response();
    token_reply::put_headers(response.headers_mut(), &ready, false);
    Ok(response)
}

/// How a connection stands. No secrets.
#[utoipa::path(
    get,
    path = "/v1/connections/{provider}/{tenant}/{subject}",
    tag = "connections",
    operation_id = "get_connection",
    params(
        ("provider" = String, Path, example = "google"),
        ("tenant" = String, Path, example = "_default"),
        ("subject" = String, Path, example = "alice"),
    ),
    responses(
        (status = 200, description = "how it stands", body = ConnectionBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connection_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn status(
    State(state): State<AppState>,
    Auth(caller): Auth,
    ConnectionPath(id): ConnectionPath,
) -> Result<axum::Json<ConnectionBody>, Problem> {
    let view = state.engine.connections().status(&caller, &id).await?;
    Ok(axum::Json(view.into()))
}

/// Stores tokens obtained elsewhere, or what is logged in with.
///
/// No `refresh_token` keeps the stored one, and stored credentials; `null` removes either. One that is known to be spent is
/// refused unless `force`. `credentials` take the place of everything that brought tokens before; the first reader logs
/// in, or this request does, with `login`, and then stores nothing unless that succeeds.
#[utoipa::path(
    put,
    path = "/v1/connections/{provider}/{tenant}/{subject}",
    tag = "connections",
    operation_id = "put_connection",
    params(
        ("provider" = String, Path, example = "google"),
        ("tenant" = String, Path, example = "_default"),
        ("subject" = String, Path, example = "alice"),
        ("force" = Option<bool>, Query, description = "store even a refresh token that is known to be spent"),
        ("login" = Option<bool>, Query, description = "with `credentials`: store them only if a login succeeds"),
        ("If-None-Match" = Option<String>, Header, description = "`*` stores only where nothing is", example = "*"),
    ),
    request_body = PutBody,
    responses(
        (status = 200, body = ConnectionBody, description = "replaced"),
        (status = 201, body = ConnectionBody, description = "new"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`provider_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`stale_refresh_token`, `conflict`"),
        (status = 412, body = ProblemBody, content_type = "application/problem+json", description = "`already_there`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 422, response = crate::openapi::InvalidCredentials),
        (status = 429, response = crate::openapi::TooMany),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn put(
    State(state): State<AppState>,
    Auth(caller): Auth,
    ConnectionPath(id): ConnectionPath,
    params: Params,
    headers: HeaderMap,
    Json(body): Json<PutBody>,
) -> Result<Response, Problem> {
    let params = params.only(&["force", "login"])?;
    let only_if_absent = match headers.get(header::IF_NONE_MATCH) {
        None => false,
        Some(value) if value == "*" => true,
        Some(_) => return Err(Problem::invalid("of `If-None-Match` only `*` is understood here")),
    };
    let mode = PutMode { force: params.flag("force")?, only_if_absent };
    let login_first = params.flag("login")?;
    let connections = state.engine.connections();
    if body.credentials.is_some() {
        let given = body.into_credentials()?;
        let (created, view) = connections.put_credentials(&caller, &id, given, mode, login_first).await?;
        return Ok(Created(created, ConnectionBody::from(view)).into_response());
    }
    if login_first || body.ttl.is_some() {
        return Err(Problem::invalid("`login` and `ttl` mean nothing without `credentials`"));
    }
    let expires_at = body.expires_at(state.clock().now().wall)?;
    let tokens = PutTokens {
        access_token: body.access_token,
        refresh_token: body.refresh_token.0,
        expires_at,
        scope: body.scope,
        token_type: body.token_type,
        display_name: body.display_name,
    };
    let (created, view) = connections.put(&caller, &id, tokens, mode).await?;
    Ok(Created(created, ConnectionBody::from(view)).into_response())
}

/// Forgets a connection.
#[utoipa::path(
    delete,
    path = "/v1/connections/{provider}/{tenant}/{subject}",
    tag = "connections",
    operation_id = "delete_connection",
    params(
        ("provider" = String, Path, example = "google"),
        ("tenant" = String, Path, example = "_default"),
        ("subject" = String, Path, example = "alice"),
        ("revoke" = Option<bool>, Query, description = "tell the provider as well"),
    ),
    responses(
        (status = 204, description = "forgotten"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connection_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`conflict`"),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Auth(caller): Auth,
    ConnectionPath(id): ConnectionPath,
    params: Params,
) -> Result<StatusCode, Problem> {
    let revoke = params.only(&["revoke"])?.flag("revoke")?;
    state.engine.connections().delete(&caller, &id, revoke).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the connections the key may see, page by page. No secrets.
#[utoipa::path(
    get,
    path = "/v1/connections",
    tag = "connections",
    operation_id = "list_connections",
    params(
        ("provider" = Option<String>, Query),
        ("tenant" = Option<String>, Query),
        ("subject" = Option<String>, Query),
        ("status" = Option<StatusWord>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "a page", body = ConnectionList),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Auth(caller): Auth,
    params: Params,
) -> Result<axum::Json<ConnectionList>, Problem> {
    let params = params.only(&["provider", "tenant", "subject", "status", "limit", "cursor"])?;
    let filter = ConnectionFilter {
        provider: params.identifier("provider")?,
        tenant: params.identifier("tenant")?,
        subject: params.identifier("subject")?,
        status: params.get("status")?.map(status_of).transpose()?,
        limit: page_limit(&params)?,
        cursor: params.get("cursor")?.map(str::to_owned),
    };
    let listing = state.engine.connections().list(&caller, filter).await?;
    Ok(axum::Json(ConnectionList {
        items: listing.items.into_iter().map(Into::into).collect(),
        unreadable: listing.unreadable,
        next: listing.next,
    }))
}

fn status_of(word: &str) -> Result<Status, Problem> {
    let found = Status::ALL.into_iter().find(|status| status.as_str() == word);
    found.ok_or_else(|| {
        let words = Status::ALL.map(|status| format!("`{}`", status.as_str())).join(", ");
        crate::extract::not("status", &format!("one of {words}"))
    })
}

/// A token.
#[derive(ToSchema)]
#[schema(as = Token, example = json!({
    "access_token": "ya29.a0Ae4lvC0", "token_type": "Bearer", "expires_at": "2026-11-20T12:00:00Z",
    "scope": "https://www.googleapis.com/auth/gmail.send", "generation": 7,
}))]
#[expect(dead_code, reason = "the reply is ready in the cache; this only describes it")]
pub(crate) struct TokenBody {
    /// The access token itself; absent in the reply to a refresh by a key that may not read it.
    access_token: Option<String>,
    /// `Bearer`, mostly.
    token_type: String,
    /// When it dies; absent = never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// What the provider granted, separated by spaces.
    scope: Option<String>,
    /// The number of this token; every refresh adds one.
    generation: u64,
}

/// What a key that may not read tokens is told of a refresh.
#[derive(Debug, Serialize)]
struct RefreshedBody {
    token_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    generation: u64,
}

impl From<&Ready> for RefreshedBody {
    fn from(ready: &Ready) -> Self {
        Self {
            token_type: ready.token_type.clone(),
            expires_at: ready.expires_at.map(time),
            scope: ready.scope.clone(),
            generation: ready.generation.0,
        }
    }
}

/// A report.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Refresh, example = json!({"if_generation": 7}))]
pub(crate) struct RefreshBody {
    /// The generation that no longer works; absent = refresh in any case.
    if_generation: Option<u64>,
}

/// Tokens obtained elsewhere, or credentials; not both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutConnection, example = json!({
    "access_token": "ya29.a0Ae4lvC0", "refresh_token": "1//0gdEXAMPLE", "expires_in": 3599,
}))]
pub(crate) struct PutBody {
    /// May be left out where a `refresh_token` is given: then it is fetched when first asked for.
    #[schema(value_type = Option<String>)]
    access_token: Option<Secret>,
    /// Absent keeps the stored one, `null` removes it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    refresh_token: GivenSecret,
    /// Seconds the access token lives from now on.
    expires_in: Option<u64>,
    /// When the access token dies, where `expires_in` does not say.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Separated by spaces.
    scope: Option<String>,
    /// `Bearer` by default.
    token_type: Option<String>,
    /// For people.
    display_name: Option<String>,
    /// What is logged in with, in place of all the above.
    credentials: Option<CredentialsBody>,
    /// With `credentials`: seconds a token lives, where the reply to a login does not say less. Left out, it stays.
    ttl: Option<u64>,
}

impl PutBody {
    fn into_credentials(self) -> Result<GivenCredentials, Problem> {
        let Self { access_token, refresh_token, expires_in, expires_at, scope, token_type, display_name, .. } = self;
        let tokens = access_token.is_some()
            || !matches!(refresh_token.0, Given::Absent)
            || expires_in.is_some()
            || expires_at.is_some()
            || scope.is_some()
            || token_type.is_some();
        let Some(credentials) = self.credentials.filter(|_| !tokens) else {
            return Err(Problem::invalid("give tokens or `credentials`, not both"));
        };
        let ttl = self.ttl.map(std::time::Duration::from_secs);
        Ok(GivenCredentials { credentials: credentials.try_into()?, ttl, display_name })
    }

    fn expires_at(&self, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        match (self.expires_in, &self.expires_at) {
            (Some(_), Some(_)) => Err(Problem::invalid("give `expires_in` or `expires_at`, not both")),
            (Some(seconds), None) => Ok(Some(after(now, std::time::Duration::from_secs(seconds)))),
            (None, Some(text)) => {
                let at = text.parse().map_err(|_| Problem::invalid("`expires_at` must be an RFC 3339 time"))?;
                Ok(Some(at))
            }
            (None, None) => Ok(None),
        }
    }
}

/// A secret that may be left out, or taken away with `null`.
#[derive(Debug)]
struct GivenSecret(Given<Secret>);

impl Default for GivenSecret {
    fn default() -> Self {
        Self(Given::Absent)
    }
}

impl<'de> Deserialize<'de> for GivenSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Option::<Secret>::deserialize(deserializer)?;
        Ok(Self(given.map_or(Given::Null, Given::Value)))
    }
}

/// How a connection stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connection, example = json!({
    "provider": "google", "tenant": "_default", "subject": "alice", "status": "active", "reason": null,
    "scope": "https://www.googleapis.com/auth/gmail.send", "expires_at": "2026-11-20T12:00:00Z",
    "has_refresh_token": true, "has_credentials": false, "generation": 7, "display_name": null, "created_at": "2026-11-01T08:00:00Z",
    "updated_at": "2026-11-20T11:00:00Z", "last_refreshed_at": "2026-11-20T11:00:00Z",
    "next_refresh_at": "2026-11-20T11:45:00Z", "last_error": null,
}))]
pub(crate) struct ConnectionBody {
    provider: String,
    tenant: String,
    subject: String,
    #[schema(value_type = StatusWord)]
    status: &'static str,
    /// Why the user must consent again, where that is so.
    reason: Option<String>,
    /// What the provider granted, separated by spaces.
    scope: Option<String>,
    /// When the access token dies; `null` = never, or there is none.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Whether anything can bring a new access token.
    has_refresh_token: bool,
    /// Whether that is stored credentials.
    has_credentials: bool,
    /// The number of its tokens; every refresh adds one.
    generation: u64,
    display_name: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    last_refreshed_at: Option<String>,
    /// When it is refreshed without anyone asking.
    #[schema(format = DateTime)]
    next_refresh_at: Option<String>,
    /// What went wrong last, until a refresh succeeds.
    last_error: Option<LastErrorBody>,
}

/// Something that went wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LastError)]
struct LastErrorBody {
    code: String,
    detail: String,
    #[schema(format = DateTime)]
    at: String,
}

/// How a connection stands, in a word.
#[derive(ToSchema)]
#[schema(as = Status, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum StatusWord {
    Pending,
    Active,
    Expiring,
    Expired,
    Unresolved,
    ReauthRequired,
}

impl From<ConnectionView> for ConnectionBody {
    fn from(view: ConnectionView) -> Self {
        Self {
            provider: view.id.integration.into(),
            tenant: view.id.tenant.into(),
            subject: view.id.subject.into(),
            status: view.status.as_str(),
            reason: view.reason,
            scope: view.scope,
            expires_at: view.expires_at.map(time),
            has_refresh_token: view.has_refresh_token,
            has_credentials: view.has_credentials,
            generation: view.generation.0,
            display_name: view.display_name,
            created_at: time(view.created_at),
            updated_at: time(view.updated_at),
            last_refreshed_at: view.last_refreshed_at.map(time),
            next_refresh_at: view.next_refresh_at.map(time),
            last_error: view.last_error.map(|e| LastErrorBody { code: e.code, detail: e.detail, at: time(e.at) }),
        }
    }
}

/// A page of connections.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectionList {
    items: Vec<ConnectionBody>,
    /// How many records of this page could not be read: the log names them.
    unreadable: u64,
    /// The next page's `cursor`; `null` on the last.
    next: Option<String>,
}
