//! `/v1/clients`: who may ask our authorization server for tokens.

use std::collections::BTreeSet;

use axum::response::IntoResponse;
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenkeep_core::ClientId;
use tokenkeep_engine::issuer::{ChangeClient, ClientFilter, ClientView, NewClient};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::{ClientMetadata, parse_client_metadata},
        resource::Resource,
    },
};
use utoipa::ToSchema;

use super::{issuer::OurIssuer, page_limit, time};
use crate::{
    auth::Auth,
    body::Json,
    extract::{IdPath, Params},
    openapi::ProblemBody,
    problem::Problem,
};

/// Lists clients, page by page; those of the configuration file stand on the first. No secrets.
#[utoipa::path(
    get,
    path = "/v1/clients",
    tag = "clients",
    operation_id = "list_clients",
    params(
        ("origin" = Option<ClientOriginWord>, Query, description = "only those that came to be known in this way"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "a page; it may hold fewer than `limit` and still have a `next`", body = ClientList),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn list(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    params: Params,
) -> Result<axum::Json<ClientList>, Problem> {
    let params = params.only(&["origin", "limit", "cursor"])?;
    let filter = ClientFilter {
        limit: page_limit(&params)?,
        cursor: params.get("cursor")?.map(str::to_owned),
        origin: params.get("origin")?.map(str::to_owned),
    };
    let listing = issuer.list_clients(&caller, filter).await?;
    Ok(axum::Json(ClientList {
        items: listing.items.into_iter().map(Into::into).collect(),
        unreadable: listing.unreadable,
        next: listing.next,
    }))
}

/// One client, without its secret.
#[utoipa::path(
    get,
    path = "/v1/clients/{id}",
    tag = "clients",
    operation_id = "get_client",
    params(("id" = String, Path, description = "percent-encoded", example = "backend")),
    responses(
        (status = 200, description = "the client", body = ClientBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`client_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn get(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    IdPath(id): IdPath<ClientId>,
) -> Result<axum::Json<ClientBody>, Problem> {
    Ok(axum::Json(issuer.client_view(&caller, &id).await?.into()))
}

/// Makes a client. Its secret is shown this once.
#[utoipa::path(
    post,
    path = "/v1/clients",
    tag = "clients",
    operation_id = "create_client",
    request_body = PutBody,
    responses(
        (status = 201, description = "made; a secret that was drawn here is shown this once", body = CreatedClient),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`managed_by_config`"),
        (status = 412, body = ProblemBody, content_type = "application/problem+json", description = "`already_there`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn create(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    Json(body): Json<PutBody>,
) -> Result<impl IntoResponse, Problem> {
    let new = NewClient {
        metadata: body.metadata()?,
        id: body.client_id.as_deref().map(ClientId::new).transpose()?,
        resources: body.resources()?,
        secret: body.client_secret,
    };
    let (client, secret) = issuer.create_client(&caller, new).await?;
    Ok((StatusCode::CREATED, axum::Json(CreatedClient::new(ClientView::from(&client), secret.as_ref()))))
}

/// Changes what a client is. Whatever is left out goes back to its default; the secret stays, unless it needs none any
/// more.
#[utoipa::path(
    put,
    path = "/v1/clients/{id}",
    tag = "clients",
    operation_id = "put_client",
    params(("id" = String, Path, description = "percent-encoded", example = "backend")),
    request_body = PutBody,
    responses(
        (status = 200, description = "changed; a secret that it got with this is shown this once", body = CreatedClient),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`client_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`managed_by_config`, `conflict`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn put(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    IdPath(id): IdPath<ClientId>,
    Json(body): Json<PutBody>,
) -> Result<axum::Json<CreatedClient>, Problem> {
    if body.client_id.is_some() || body.client_secret.is_some() {
        let text =
            "`client_id` and `client_secret` stay as they are; POST to `/v1/clients/{id}/secret` draws a new secret";
        return Err(Problem::invalid(text));
    }
    let change = ChangeClient { metadata: body.metadata()?, resources: body.resources()? };
    let (view, secret) = issuer.update_client(&caller, &id, change).await?;
    Ok(axum::Json(CreatedClient::new(view, secret.as_ref())))
}

/// Gives a client a new secret, which is shown this once. The old one counts no more.
#[utoipa::path(
    post,
    path = "/v1/clients/{id}/secret",
    tag = "clients",
    operation_id = "rotate_client_secret",
    params(("id" = String, Path, description = "percent-encoded", example = "backend")),
    responses(
        (status = 200, description = "the new secret", body = SecretBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`client_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`managed_by_config`, `conflict`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn rotate_secret(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    IdPath(id): IdPath<ClientId>,
) -> Result<axum::Json<SecretBody>, Problem> {
    let secret = issuer.rotate_client_secret(&caller, &id).await?;
    Ok(axum::Json(SecretBody { client_id: id.into(), client_secret: secret.expose_secret().to_owned() }))
}

/// Removes a client, and ends whatever was granted to it: its tokens count nowhere any more.
#[utoipa::path(
    delete,
    path = "/v1/clients/{id}",
    tag = "clients",
    operation_id = "delete_client",
    params(("id" = String, Path, description = "percent-encoded", example = "backend")),
    responses(
        (status = 200, description = "removed", body = DeletedBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`client_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`managed_by_config`, `conflict`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn delete(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    IdPath(id): IdPath<ClientId>,
) -> Result<axum::Json<DeletedBody>, Problem> {
    let deleted = issuer.delete_client(&caller, &id).await?;
    Ok(axum::Json(DeletedBody { grants_revoked: deleted.grants_revoked }))
}

/// What a client is, in the words of RFC 7591.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutClient, example = json!({
    "client_id": "backend", "client_name": "Backend", "grant_types": ["client_credentials"],
    "token_endpoint_auth_method": "client_secret_basic", "scope": "mcp", "resources": ["https://mcp.example.com/mcp"],
}))]
pub(crate) struct PutBody {
    /// With POST only. Absent = one is drawn.
    #[serde(skip_serializing)]
    client_id: Option<String>,
    /// With POST only. Absent = one is drawn, if the client proves itself with one.
    #[serde(skip_serializing)]
    #[schema(value_type = Option<String>)]
    client_secret: Option<Secret>,
    /// The resources it may ask for; absent = all.
    #[serde(skip_serializing)]
    resources: Option<Vec<String>>,
    /// Where answers may be sent.
    redirect_uris: Option<Vec<String>>,
    /// `none`, `client_secret_basic` (the default), `client_secret_post` or `private_key_jwt`.
    token_endpoint_auth_method: Option<String>,
    /// `authorization_code` (the default), `refresh_token`, `client_credentials`,
    /// `urn:ietf:params:oauth:grant-type:token-exchange`.
    grant_types: Option<Vec<String>>,
    /// `code` is the only one there is.
    response_types: Option<Vec<String>>,
    /// For people.
    client_name: Option<String>,
    client_uri: Option<String>,
    logo_uri: Option<String>,
    tos_uri: Option<String>,
    policy_uri: Option<String>,
    contacts: Option<Vec<String>>,
    /// The most it may ask for, separated by spaces; absent = whatever the resource knows.
    scope: Option<String>,
    /// The public keys it signs assertions with (RFC 7517).
    #[schema(value_type = Option<Object>)]
    jwks: Option<Value>,
    /// Where those keys are, instead.
    jwks_uri: Option<String>,
    software_id: Option<String>,
    software_version: Option<String>,
    application_type: Option<String>,
}

impl PutBody {
    /// Read as a registration is, so that both know the same rules.
    fn metadata(&self) -> Result<ClientMetadata, Problem> {
        let body = serde_json::to_vec(self).map_err(|_| Problem::invalid("the body is no client"))?;
        parse_client_metadata(&body).map_err(|error| Problem::invalid(error.description))
    }

    fn resources(&self) -> Result<Option<BTreeSet<Resource>>, Problem> {
        let all = self.resources.as_ref().map(|all| all.iter().map(|url| Resource::parse(url)).collect());
        all.transpose().map_err(|error| Problem::invalid(format!("`resources`: {error}")))
    }
}

/// A client, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Client, example = json!({
    "client_id": "client_8s2Kd0fLq1mZ3xWv7YtBnA", "origin": "registered", "has_secret": false, "resources": null,
    "created_at": "2026-11-01T08:00:00Z", "used_at": "2026-11-20T00:00:00Z", "expires_at": "2027-02-18T00:00:00Z",
    "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"], "client_name": "An MCP client",
}))]
pub(crate) struct ClientBody {
    client_id: String,
    #[schema(value_type = ClientOriginWord)]
    origin: &'static str,
    has_secret: bool,
    /// The resources it may ask for; `null` = all.
    resources: Option<Vec<String>>,
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last seen to be used, to the day.
    #[schema(format = DateTime)]
    used_at: Option<String>,
    /// When it is forgotten, if nobody uses it before; `null` = never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// What it said of itself, in the words of RFC 7591.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    metadata: ClientMetadata,
}

/// `api` = an operator made it; `config` = it stands in the configuration file; `registered` = it registered itself.
#[derive(ToSchema)]
#[schema(as = ClientOrigin, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
pub(crate) enum ClientOriginWord {
    Api,
    Config,
    Registered,
}

impl From<ClientView> for ClientBody {
    fn from(view: ClientView) -> Self {
        Self {
            client_id: view.id.into(),
            origin: view.origin.as_str(),
            has_secret: view.has_secret,
            resources: view.resources.map(|all| all.into_iter().map(String::from).collect()),
            created_at: time(view.created_at),
            used_at: view.used_at.map(time),
            expires_at: view.expires_at.map(time),
            metadata: view.metadata,
        }
    }
}

/// A client that was made or changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedClient {
    /// A secret that was drawn just now. It cannot be shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    #[serde(flatten)]
    about: ClientBody,
}

impl CreatedClient {
    fn new(view: ClientView, secret: Option<&Secret>) -> Self {
        Self { client_secret: secret.map(|secret| secret.expose_secret().to_owned()), about: view.into() }
    }
}

/// A new secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientSecret)]
pub(crate) struct SecretBody {
    client_id: String,
    /// It cannot be shown again.
    client_secret: String,
}

/// What went with a client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeletedClient, example = json!({"grants_revoked": 2}))]
pub(crate) struct DeletedBody {
    /// How many grants ended.
    grants_revoked: u64,
}

/// A page of clients.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClientList {
    items: Vec<ClientBody>,
    /// Records of this page that are there and cannot be read.
    unreadable: u64,
    /// The cursor of the next page; `null` = this was the last.
    next: Option<String>,
}
