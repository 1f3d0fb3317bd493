//! `/v1/integrations`: our client at each provider.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{ClientSigningKey, ConnectGrant, IntegrationId, ManagedBy, ProviderId, Tenant};
use tokenkeep_engine::{IntegrationView, PutIntegration};
use tokenkeep_oauth::Secret;
use url::Url;
use utoipa::ToSchema;

use super::{Created, time};
use crate::{AppState, auth::Auth, body::Json, extract::IdPath, openapi::ProblemBody, problem::Problem};

/// Lists the integrations the key may see.
#[utoipa::path(
    get,
    path = "/v1/integrations",
    tag = "integrations",
    operation_id = "list_integrations",
    responses(
        (status = 200, description = "all of them", body = IntegrationList),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Auth(caller): Auth,
) -> Result<axum::Json<IntegrationList>, Problem> {
    let items = state.engine.integrations().list(&caller).await?;
    Ok(axum::Json(IntegrationList { items: items.into_iter().map(Into::into).collect() }))
}

/// One integration, without its secrets.
#[utoipa::path(
    get,
    path = "/v1/integrations/{id}",
    tag = "integrations",
    operation_id = "get_integration",
    params(("id" = String, Path, example = "google")),
    responses(
        (status = 200, description = "the integration", body = IntegrationBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`integration_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Auth(caller): Auth,
    IdPath(id): IdPath<IntegrationId>,
) -> Result<axum::Json<IntegrationBody>, Problem> {
    let view = state.engine.integrations().get(&caller, &id).await?;
    Ok(axum::Json(view.into()))
}

/// Names or changes our client at a provider. Secrets go in and never come out.
#[utoipa::path(
    put,
    path = "/v1/integrations/{id}",
    tag = "integrations",
    operation_id = "put_integration",
    params(("id" = String, Path, example = "google")),
    request_body = PutBody,
    responses(
        (status = 200, body = IntegrationBody, description = "replaced"),
        (status = 201, body = IntegrationBody, description = "new"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`provider_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`managed_by_config`, `conflict`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn put(
    State(state): State<AppState>,
    Auth(caller): Auth,
    IdPath(id): IdPath<IntegrationId>,
    Json(body): Json<PutBody>,
) -> Result<Response, Problem> {
    let (created, view) = state.engine.integrations().put(&caller, &id, body.try_into()?).await?;
    Ok(Created(created, IntegrationBody::from(view)).into_response())
}

/// Removes an integration. Its connections stay, and are served until their tokens expire.
#[utoipa::path(
    delete,
    path = "/v1/integrations/{id}",
    tag = "integrations",
    operation_id = "delete_integration",
    params(("id" = String, Path, example = "google")),
    responses(
        (status = 204, description = "removed"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`integration_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`managed_by_config`, `conflict`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Auth(caller): Auth,
    IdPath(id): IdPath<IntegrationId>,
) -> Result<StatusCode, Problem> {
    state.engine.integrations().delete(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Our client at a provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutIntegration, example = json!({
    "provider": "google", "client_id": "1234.apps.googleusercontent.com", "client_secret": "GOCSPX-EXAMPLE",
    "scope": "https://www.googleapis.com/auth/gmail.send",
}))]
pub(crate) struct PutBody {
    /// A provider of the catalogue; by default the one named like the integration.
    provider: Option<String>,
    /// An OIDC issuer to discover, instead of a provider of the catalogue.
    issuer: Option<String>,
    client_id: String,
    /// Write-only; absent keeps the stored one.
    #[schema(value_type = Option<String>)]
    client_secret: Option<Secret>,
    /// How `connect` obtains tokens; `authorization_code` by default.
    #[schema(value_type = Option<GrantWord>)]
    grant: Option<ConnectGrant>,
    /// Write-only: what we sign with, where the provider wants a signature.
    signing_key: Option<SigningKeyBody>,
    /// Separated by spaces; absent = the provider's default.
    scope: Option<String>,
    /// Fills in the provider's templates (Microsoft's `tenant`).
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Hosts its tokens may be sent to; empty = the provider's own list.
    #[serde(default)]
    api_hosts: Vec<String>,
    /// Where the provider sends the browser back to; absent = `{public_url}/oauth/callback`.
    redirect_uri: Option<String>,
    /// The only tenant that may use it; absent = all.
    tenant: Option<String>,
}

/// A private key that the provider knows us by.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SigningKey)]
struct SigningKeyBody {
    /// PEM, or the JSON file as the provider's console gives it.
    #[schema(value_type = String)]
    key: Secret,
    /// The `kid` under which the provider knows the key.
    key_id: Option<String>,
    /// The `iss` of what we sign where it is not the client id: Apple's team, a service account's address.
    issuer: Option<String>,
}

impl TryFrom<PutBody> for PutIntegration {
    type Error = Problem;

    fn try_from(body: PutBody) -> Result<Self, Problem> {
        let redirect_uri = body.redirect_uri.as_deref().map(Url::parse).transpose();
        Ok(Self {
            provider: body.provider.as_deref().map(ProviderId::new).transpose()?,
            issuer: body.issuer,
            tenant: body.tenant.as_deref().map(Tenant::new).transpose()?,
            client_id: body.client_id,
            client_secret: body.client_secret,
            grant: body.grant.unwrap_or_default(),
            signing_key: body.signing_key.map(|SigningKeyBody { key, key_id, issuer }| ClientSigningKey {
                key,
                key_id,
                issuer,
            }),
            scope: body.scope,
            params: body.params,
            api_hosts: body.api_hosts,
            redirect_uri: redirect_uri.map_err(|_| Problem::invalid("`redirect_uri` must be an absolute URL"))?,
        })
    }
}

/// Our client at a provider, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Integration, example = json!({
    "id": "google", "provider": "google", "issuer": null, "tenant": null, "client_id": "1234.apps.googleusercontent.com",
    "has_client_secret": true, "has_signing_key": false, "grant": "authorization_code",
    "scope": "https://www.googleapis.com/auth/gmail.send", "params": {}, "api_hosts": [], "redirect_uri": null,
    "managed_by": "api", "rejection": null, "created_at": "2026-11-01T08:00:00Z", "updated_at": "2026-11-01T08:00:00Z",
}))]
pub(crate) struct IntegrationBody {
    id: String,
    /// `oidc` where there is an `issuer` instead.
    provider: String,
    issuer: Option<String>,
    tenant: Option<String>,
    client_id: String,
    has_client_secret: bool,
    has_signing_key: bool,
    #[schema(value_type = GrantWord)]
    grant: ConnectGrant,
    scope: Option<String>,
    params: BTreeMap<String, String>,
    api_hosts: Vec<String>,
    redirect_uri: Option<String>,
    /// `config`: only the configuration file changes it.
    #[schema(value_type = ManagedByWord)]
    managed_by: ManagedBy,
    /// Set while the provider refuses our client.
    rejection: Option<RejectionBody>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// That the provider refuses our client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rejection)]
struct RejectionBody {
    /// The OAuth error code.
    code: String,
    #[schema(format = DateTime)]
    since: String,
}

/// How `connect` obtains tokens.
#[derive(ToSchema)]
#[schema(as = Grant, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum GrantWord {
    AuthorizationCode,
    ClientCredentials,
    JwtBearer,
    DeviceCode,
}

/// Who may change it.
#[derive(ToSchema)]
#[schema(as = ManagedBy, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
pub(super) enum ManagedByWord {
    Config,
    Api,
}

impl From<IntegrationView> for IntegrationBody {
    fn from(view: IntegrationView) -> Self {
        Self {
            id: view.id.into(),
            provider: view.provider.into(),
            issuer: view.issuer,
            tenant: view.tenant.map(Into::into),
            client_id: view.client_id,
            has_client_secret: view.has_client_secret,
            has_signing_key: view.has_signing_key,
            grant: view.grant,
            scope: view.scope,
            params: view.params,
            api_hosts: view.api_hosts,
            redirect_uri: view.redirect_uri.map(Into::into),
            managed_by: view.managed_by,
            rejection: view.rejection.map(|r| RejectionBody { code: r.code, since: time(r.since) }),
            created_at: time(view.created_at),
            updated_at: time(view.updated_at),
        }
    }
}

/// All integrations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IntegrationList {
    items: Vec<IntegrationBody>,
}
