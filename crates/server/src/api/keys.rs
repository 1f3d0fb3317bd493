//! `/v1/keys`: keys to this API.

use axum::{extract::State, response::IntoResponse};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{ApiKey, ApiKeyId, IntegrationId, ManagedBy, Role, Tenant};
use tokenkeep_engine::NewKey;
use utoipa::ToSchema;

use super::{integrations::ManagedByWord, time};
use crate::{AppState, auth::Auth, body::Json, extract::IdPath, openapi::ProblemBody, problem::Problem};

/// Lists the keys. What they look like nobody knows.
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "keys",
    operation_id = "list_keys",
    responses(
        (status = 200, description = "all of them", body = KeyList),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn list(State(state): State<AppState>, Auth(caller): Auth) -> Result<axum::Json<KeyList>, Problem> {
    let items = state.engine.keys().list(&caller).await?;
    Ok(axum::Json(KeyList { items: items.iter().map(Into::into).collect() }))
}

/// Makes a key. It is shown this once; it has no more rights than the key that makes it.
#[utoipa::path(
    post,
    path = "/v1/keys",
    tag = "keys",
    operation_id = "create_key",
    request_body = CreateBody,
    responses(
        (status = 201, description = "made; the key is shown this once", body = CreatedKey),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Auth(caller): Auth,
    Json(body): Json<CreateBody>,
) -> Result<impl IntoResponse, Problem> {
    let tenants = body.tenants.map(|all| all.iter().map(|name| Tenant::new(name)).collect()).transpose()?;
    let providers = body.providers.map(|all| all.iter().map(|id| IntegrationId::new(id)).collect()).transpose()?;
    let new = NewKey { name: body.name, role: body.role, tenants, providers };
    let (key, secret) = state.engine.keys().create(&caller, new).await?;
    let body = CreatedKey { key: secret.expose_secret().to_owned(), about: (&key).into() };
    Ok((StatusCode::CREATED, axum::Json(body)))
}

/// Removes a key. It works nowhere any more.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "keys",
    operation_id = "delete_key",
    params(("id" = String, Path, example = "01JD7ZC0000000000000000000")),
    responses(
        (status = 204, description = "removed"),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`key_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`managed_by_config`, `conflict`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Auth(caller): Auth,
    IdPath(id): IdPath<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    state.engine.keys().delete(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateKey, example = json!({
    "name": "mailer", "role": "application", "tenants": ["_default"], "providers": ["google"],
}))]
pub(crate) struct CreateBody {
    /// For people.
    name: String,
    #[schema(value_type = RoleWord)]
    role: Role,
    /// Whose tokens; absent = everybody's.
    tenants: Option<Vec<String>>,
    /// At which integrations; absent = all.
    providers: Option<Vec<String>>,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    /// The key itself. It cannot be shown again.
    #[schema(example = "tk_EXAMPLE")]
    key: String,
    #[serde(flatten)]
    about: KeyBody,
}

/// A key, without what it looks like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key, example = json!({
    "id": "01JD7ZC0000000000000000000", "name": "mailer", "role": "application", "tenants": ["_default"],
    "providers": ["google"], "managed_by": "api", "created_at": "2026-11-01T08:00:00Z",
}))]
struct KeyBody {
    id: String,
    name: String,
    #[schema(value_type = RoleWord)]
    role: Role,
    /// `null` = everybody's.
    tenants: Option<Vec<String>>,
    /// `null` = all.
    providers: Option<Vec<String>>,
    #[schema(value_type = ManagedByWord)]
    managed_by: ManagedBy,
    #[schema(format = DateTime)]
    created_at: String,
}

/// What a key may do.
#[derive(ToSchema)]
#[schema(as = Role, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum RoleWord {
    Admin,
    Operator,
    Application,
    Reader,
}

impl From<&ApiKey> for KeyBody {
    fn from(key: &ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            role: key.role,
            tenants: key.tenants.as_ref().map(|all| all.iter().map(ToString::to_string).collect()),
            providers: key.providers.as_ref().map(|all| all.iter().map(ToString::to_string).collect()),
            managed_by: key.managed_by,
            created_at: time(key.created_at),
        }
    }
}

/// All keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    items: Vec<KeyBody>,
}
