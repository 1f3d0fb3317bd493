//! `/v1/credentials`: what is logged in with at providers without OAuth, tried without being stored.

use axum::extract::State;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{Credentials, IntegrationId, Tenant};
use tokenkeep_engine::LoggedIn;
use tokenkeep_oauth::Secret;
use utoipa::ToSchema;

use super::time;
use crate::{AppState, auth::Auth, body::Json, openapi::ProblemBody, problem::Problem};

/// Tries credentials at their provider, and stores nothing.
///
/// A provider whose API takes the credentials themselves has no place to ask at: then it is only checked that they fit.
#[utoipa::path(
    post,
    path = "/v1/credentials/test",
    tag = "credentials",
    operation_id = "test_credentials",
    request_body = LoginBody,
    responses(
        (status = 200, description = "the provider takes them", body = ValidBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`provider_not_found`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 422, response = crate::openapi::InvalidCredentials),
        (status = 429, response = crate::openapi::TooMany),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn test(
    State(state): State<AppState>,
    Auth(caller): Auth,
    Json(body): Json<LoginBody>,
) -> Result<axum::Json<ValidBody>, Problem> {
    let LoginBody { provider, tenant, credentials } = body;
    let tenant = tenant.unwrap_or_else(Tenant::default_tenant);
    let credentials = credentials.try_into()?;
    state.engine.connections().test_credentials(&caller, &provider, &tenant, credentials).await?;
    Ok(axum::Json(ValidBody { valid: true }))
}

/// Logs in at a provider without OAuth and answers with the token. Stores nothing.
#[utoipa::path(
    post,
    path = "/v1/credentials/login",
    tag = "credentials",
    operation_id = "login_with_credentials",
    request_body = LoginBody,
    responses(
        (status = 200, description = "the token", body = LoggedInBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`provider_not_found`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 422, response = crate::openapi::InvalidCredentials),
        (status = 429, response = crate::openapi::TooMany),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn login(
    State(state): State<AppState>,
    Auth(caller): Auth,
    Json(body): Json<LoginBody>,
) -> Result<axum::Json<LoggedInBody>, Problem> {
    let LoginBody { provider, tenant, credentials } = body;
    let tenant = tenant.unwrap_or_else(Tenant::default_tenant);
    let credentials = credentials.try_into()?;
    let login = state.engine.connections().login(&caller, &provider, &tenant, credentials).await?;
    Ok(axum::Json(login.into()))
}

/// Credentials to be tried.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login, example = json!({
    "provider": "bluestakes", "tenant": "acme", "credentials": {"username": "acme-api", "password": "..."},
}))]
pub(crate) struct LoginBody {
    /// The provider's id, or the integration's.
    #[schema(value_type = String)]
    provider: IntegrationId,
    /// `_default` by default.
    #[schema(value_type = Option<String>)]
    tenant: Option<Tenant>,
    credentials: CredentialsBody,
}

/// A username and a password, or an API key; which of the two is the provider's choice.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Credentials, example = json!({"username": "acme-api", "password": "..."}))]
pub(crate) struct CredentialsBody {
    username: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
    #[schema(value_type = Option<String>)]
    api_key: Option<Secret>,
}

impl TryFrom<CredentialsBody> for Credentials {
    type Error = Problem;

    fn try_from(body: CredentialsBody) -> Result<Self, Problem> {
        match body {
            CredentialsBody { username: Some(username), password: Some(password), api_key: None } => {
                Ok(Credentials::Password { username, password })
            }
            CredentialsBody { username: None, password: None, api_key: Some(key) } => Ok(Credentials::ApiKey(key)),
            _ => Err(Problem::invalid("`credentials` are `username` and `password`, or `api_key`")),
        }
    }
}

/// The provider takes them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ValidCredentials)]
pub(crate) struct ValidBody {
    /// Always `true`: what the provider does not take is an error.
    valid: bool,
}

/// What a login brought.
#[derive(Serialize, ToSchema)]
#[schema(as = LoggedIn, example = json!({
    "access_token": "eyJhbGciOi", "token_type": "Bearer", "expires_at": "2026-11-20T12:00:00Z",
}))]
pub(crate) struct LoggedInBody {
    access_token: String,
    token_type: String,
    /// When it dies; absent = never, or nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

impl From<LoggedIn> for LoggedInBody {
    fn from(login: LoggedIn) -> Self {
        Self {
            access_token: login.access_token.expose_secret().to_owned(),
            token_type: login.token_type,
            expires_at: login.expires_at.map(time),
        }
    }
}
