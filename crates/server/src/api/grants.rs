//! `/v1/grants`: what subjects allowed clients.

use http::StatusCode;
use serde::Serialize;
use tokenkeep_core::{ClientId, GrantId, Subject};
use tokenkeep_engine::issuer::{GrantFilter, GrantView};
use utoipa::ToSchema;

use super::{issuer::Granting, page_limit, time};
use crate::{
    auth::Auth,
    extract::{IdPath, Params, TokenPath},
    openapi::ProblemBody,
    problem::Problem,
};

/// Lists grants, page by page. No secrets.
#[utoipa::path(
    get,
    path = "/v1/grants",
    tag = "grants",
    operation_id = "list_grants",
    params(
        ("client" = Option<String>, Query, description = "given to this client"),
        ("subject" = Option<String>, Query, description = "given by this subject"),
        ("connection" = Option<String>, Query, description = "that rest on this connection: `provider/tenant/subject`"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "a page; it may hold fewer than `limit` and still have a `next`", body = GrantList),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn list(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    params: Params,
) -> Result<axum::Json<GrantList>, Problem> {
    let params = params.only(&["client", "subject", "connection", "limit", "cursor"])?;
    let filter = GrantFilter {
        client: params.identifier("client")?,
        subject: params.identifier("subject")?,
        connection: params.identifier("connection")?,
        limit: page_limit(&params)?,
        cursor: params.get("cursor")?.map(str::to_owned),
    };
    let listing = issuer.list_grants(&caller, filter).await?;
    Ok(axum::Json(GrantList {
        items: listing.items.into_iter().map(Into::into).collect(),
        unreadable: listing.unreadable,
        next: listing.next,
    }))
}

/// One grant.
#[utoipa::path(
    get,
    path = "/v1/grants/{id}",
    tag = "grants",
    operation_id = "get_grant",
    params(("id" = String, Path, example = "01JD7ZC0000000000000000000")),
    responses(
        (status = 200, description = "the grant", body = GrantBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`grant_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn get(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    IdPath(id): IdPath<GrantId>,
) -> Result<axum::Json<GrantBody>, Problem> {
    Ok(axum::Json(issuer.grant_view(&caller, &id).await?.into()))
}

/// Ends a grant: its refresh token and all its access tokens count no more, anywhere.
#[utoipa::path(
    delete,
    path = "/v1/grants/{id}",
    tag = "grants",
    operation_id = "revoke_grant",
    params(("id" = String, Path, example = "01JD7ZC0000000000000000000")),
    responses(
        (status = 204, description = "ended, now or before"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`grant_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`conflict`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn revoke(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    IdPath(id): IdPath<GrantId>,
) -> Result<StatusCode, Problem> {
    issuer.revoke_grant(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends whatever one subject allowed, or whatever one client was allowed.
#[utoipa::path(
    delete,
    path = "/v1/grants",
    tag = "grants",
    operation_id = "revoke_grants",
    params(
        ("client" = Option<String>, Query, description = "one of the two must be there"),
        ("subject" = Option<String>, Query, description = "one of the two must be there"),
    ),
    responses(
        (status = 200, description = "how many ended", body = RevokedBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn revoke_all(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    params: Params,
) -> Result<axum::Json<RevokedBody>, Problem> {
    let params = params.only(&["client", "subject"])?;
    let revoked = match (params.identifier::<ClientId>("client")?, params.identifier::<Subject>("subject")?) {
        (Some(client), None) => issuer.revoke_client_grants(&caller, &client).await?,
        (None, Some(subject)) => issuer.revoke_subject(&caller, &subject).await?,
        _ => return Err(Problem::invalid("say whose grants end: with one of `client` and `subject`")),
    };
    Ok(axum::Json(RevokedBody { revoked }))
}

/// The grant that an access token belongs to, while the token counts.
#[utoipa::path(
    get,
    path = "/v1/grants/by-token/{jti}",
    tag = "grants",
    operation_id = "get_grant_of_token",
    params(("jti" = String, Path, description = "the token's `jti`")),
    responses(
        (status = 200, description = "the grant", body = GrantBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`access_token_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn get_by_token(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    TokenPath(jti): TokenPath,
) -> Result<axum::Json<GrantBody>, Problem> {
    Ok(axum::Json(issuer.grant_of_token(&caller, &jti).await?.into()))
}

/// Takes back one access token; its grant stays.
#[utoipa::path(
    delete,
    path = "/v1/grants/by-token/{jti}",
    tag = "grants",
    operation_id = "revoke_token",
    params(("jti" = String, Path, description = "the token's `jti`")),
    responses(
        (status = 204, description = "it counts no more"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`access_token_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`conflict`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn revoke_token(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    TokenPath(jti): TokenPath,
) -> Result<StatusCode, Problem> {
    issuer.revoke_token(&caller, &jti).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A page of grants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantList {
    items: Vec<GrantBody>,
    /// Records of this page that are there and cannot be read.
    unreadable: u64,
    /// The cursor of the next page; `null` = this was the last.
    next: Option<String>,
}

/// What a subject allowed a client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Grant, example = json!({
    "id": "01JD7ZC0000000000000000000", "client_id": "client_8s2Kd0fLq1mZ3xWv7YtBnA", "subject": "github|583231",
    "name": "octocat", "email": "octocat@example.com", "scope": "mcp", "resource": "https://mcp.example.com/mcp",
    "connection": "github/_default/github|583231", "exchangers": [], "status": "active", "revoked_reason": null,
    "created_at": "2026-11-01T08:00:00Z", "expires_at": "2026-12-01T08:00:00Z",
    "access_tokens": [{"jti": "01JD7ZC0000000000000000000.aPq3xT6bN8sVw2Lk9RfYzQ", "expires_at": "2026-11-01T09:00:00Z"}],
    "refreshable": true,
}))]
pub(crate) struct GrantBody {
    id: String,
    /// Whom it was given.
    client_id: String,
    /// Who gave it: `{provider}|{their immutable id there}`.
    subject: String,
    /// What the provider called them.
    name: Option<String>,
    /// An address that the provider vouched for.
    email: Option<String>,
    /// Separated by spaces.
    scope: String,
    /// Where it may be used.
    resource: String,
    /// The tokens of the provider that go with it.
    connection: Option<String>,
    /// The clients that the subject allowed to have those (RFC 8693).
    exchangers: Vec<String>,
    #[schema(value_type = GrantStatusWord)]
    status: &'static str,
    /// Why it was ended: `asked`, `code_replayed`, `refresh_token_replayed`, `upstream_ended`,
    /// `not_admitted`.
    revoked_reason: Option<&'static str>,
    #[schema(format = DateTime)]
    created_at: String,
    /// When nothing can come of it any more, or when it was ended.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Those that count.
    access_tokens: Vec<AccessTokenBody>,
    /// Whether its client holds a refresh token that counts.
    refreshable: bool,
}

/// An access token, by its name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccessToken)]
struct AccessTokenBody {
    jti: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// `coded` = its code was not redeemed yet.
#[derive(ToSchema)]
#[schema(as = GrantStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum GrantStatusWord {
    Coded,
    Active,
    Revoked,
    Expired,
}

/// How many grants ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Revoked, example = json!({"revoked": 2}))]
pub(crate) struct RevokedBody {
    revoked: u64,
}

impl From<GrantView> for GrantBody {
    fn from(view: GrantView) -> Self {
        let tokens = view.access_tokens.into_iter();
        Self {
            id: view.id.to_string(),
            client_id: view.client.into(),
            subject: view.subject.into(),
            name: view.name,
            email: view.email,
            scope: view.scope.to_string(),
            resource: view.resource.into(),
            connection: view.connection.map(|connection| connection.to_string()),
            exchangers: view.exchangers.into_iter().map(Into::into).collect(),
            status: view.status.as_str(),
            revoked_reason: view.revoked_reason,
            created_at: time(view.created_at),
            expires_at: time(view.expires_at),
            access_tokens: tokens.map(|t| AccessTokenBody { jti: t.jti, expires_at: time(t.expires_at) }).collect(),
            refreshable: view.refreshable,
        }
    }
}
