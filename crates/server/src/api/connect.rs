//! `/v1/connect`: an application sends its user to consent, and says afterwards whose account came of it.

use axum::extract::State;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{ConnectId, ConnectionId, IntegrationId, Subject, Tenant};
use tokenkeep_engine::{ConnectView, StartConnect, Started};
use tokenkeep_oauth::Secret;
use url::Url;
use utoipa::ToSchema;

use super::connections::ConnectionBody;
use crate::{AppState, auth::Auth, body::Json, extract::IdPath, openapi::ProblemBody, problem::Problem};

/// Starts a connect.
///
/// Send the user's browser to `authorize_url`. Where it comes back, at `return_to`, `status` says what came of it; with
/// `confirm` the connection waits until the application confirms it with the `code` from there.
#[utoipa::path(
    post,
    path = "/v1/connect",
    tag = "connect",
    operation_id = "start_connect",
    request_body = StartBody,
    responses(
        (status = 200, description = "started", body = StartedBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 429, response = crate::openapi::TooMany),
        (status = 502, response = crate::openapi::BadGateway),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn start(
    State(state): State<AppState>,
    Auth(caller): Auth,
    Json(body): Json<StartBody>,
) -> Result<axum::Json<StartedBody>, Problem> {
    let return_to = body.return_to.as_deref().map(Url::parse).transpose();
    let connect = StartConnect {
        connection: ConnectionId {
            integration: IntegrationId::new(&body.provider)?,
            tenant: body.tenant.as_deref().map_or_else(|| Ok(Tenant::default_tenant()), Tenant::new)?,
            subject: body.subject.as_deref().map_or_else(|| Ok(Subject::default_subject()), Subject::new)?,
        },
        scope: body.scope,
        return_to: return_to.map_err(|_| Problem::invalid("`return_to` must be an absolute URL"))?,
        confirm: body.confirm,
    };
    let started = state.engine.connect().start(&caller, connect).await?;
    Ok(axum::Json(started.into()))
}

/// How far a connect got.
#[utoipa::path(
    get,
    path = "/v1/connect/{id}",
    tag = "connect",
    operation_id = "get_connect",
    params(("id" = String, Path, description = "`connect_id`", example = "01JD7ZC0000000000000000000")),
    responses(
        (status = 200, description = "how far it got", body = ConnectBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connect_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn view(
    State(state): State<AppState>,
    Auth(caller): Auth,
    IdPath(id): IdPath<ConnectId>,
) -> Result<axum::Json<ConnectBody>, Problem> {
    let view = state.engine.connect().view(&caller, &id).await?;
    Ok(axum::Json(view.into()))
}

/// Confirms, from the application's own session with its user, that the account is that user's.
#[utoipa::path(
    post,
    path = "/v1/connect/{id}/confirm",
    tag = "connect",
    operation_id = "confirm_connect",
    params(("id" = String, Path, description = "`connect_id`", example = "01JD7ZC0000000000000000000")),
    request_body = ConfirmBody,
    responses(
        (status = 200, description = "how it stands", body = ConnectionBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`connect_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`conflict`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn confirm(
    State(state): State<AppState>,
    Auth(caller): Auth,
    IdPath(id): IdPath<ConnectId>,
    Json(body): Json<ConfirmBody>,
) -> Result<axum::Json<ConnectionBody>, Problem> {
    let subject = Subject::new(&body.subject)?;
    let view = state.engine.connect().confirm(&caller, &id, &subject, &body.code).await?;
    Ok(axum::Json(view.into()))
}

/// What to connect.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StartConnect, example = json!({
    "provider": "google", "tenant": "_default", "subject": "alice", "return_to": "https://app.example.com/connected",
}))]
pub(crate) struct StartBody {
    /// The integration's id.
    provider: String,
    /// `_default` by default.
    tenant: Option<String>,
    /// `_default` by default.
    subject: Option<String>,
    /// Separated by spaces; absent = the integration's, or the provider's default.
    scope: Option<String>,
    /// Where the browser goes afterwards; its origin must be one of `[connect] return_to_origins`.
    return_to: Option<String>,
    /// Whether the connection waits for its confirmation; `true` by default for keys of role `application`.
    confirm: Option<bool>,
}

/// A connect that was started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StartedConnect, example = json!({
    "connect_id": "01JD7ZC0000000000000000000",
    "authorize_url": "https://tokens.example.com/connect/01JD7ZC0000000000000000000",
    "expires_in": 600, "status": "pending",
}))]
pub(crate) struct StartedBody {
    connect_id: String,
    /// Where to send the user's browser; absent where no browser is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorize_url: Option<String>,
    /// What to show the user where they consent on another device (RFC 8628).
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceBody>,
    /// Seconds until it is over.
    expires_in: u64,
    #[schema(value_type = ConnectWord)]
    status: &'static str,
}

/// What a user types in, and where.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceConsent)]
struct DeviceBody {
    user_code: String,
    verification_uri: String,
    /// The same with the code in it, for a link or a QR code.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_uri_complete: Option<String>,
}

/// How far a connect got.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connect, example = json!({
    "connect_id": "01JD7ZC0000000000000000000", "provider": "google", "tenant": "_default", "subject": "alice",
    "status": "connected", "error": null,
}))]
pub(crate) struct ConnectBody {
    connect_id: String,
    provider: String,
    tenant: String,
    subject: String,
    #[schema(value_type = ConnectWord)]
    status: &'static str,
    /// A stable word, where it failed.
    error: Option<String>,
}

/// How far a connect got, in a word.
#[derive(ToSchema)]
#[schema(as = ConnectStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum ConnectWord {
    Pending,
    AwaitingConfirmation,
    Connected,
    Denied,
    Failed,
    Expired,
}

/// A confirmation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfirmConnect, example = json!({"subject": "alice", "code": "from-the-return-url"}))]
pub(crate) struct ConfirmBody {
    /// The user of the application's own session.
    subject: String,
    /// The one-time `code` that came to `return_to`.
    #[schema(value_type = String)]
    code: Secret,
}

impl From<Started> for StartedBody {
    fn from(started: Started) -> Self {
        Self {
            connect_id: started.connect_id.to_string(),
            authorize_url: started.authorize_url.map(Into::into),
            device: started.device.map(|device| DeviceBody {
                user_code: device.user_code.expose_secret().to_owned(),
                verification_uri: device.verification_uri,
                verification_uri_complete: device.verification_uri_complete,
            }),
            expires_in: started.expires_in.as_secs(),
            status: started.status.as_str(),
        }
    }
}

impl From<ConnectView> for ConnectBody {
    fn from(view: ConnectView) -> Self {
        Self {
            connect_id: view.connect_id.to_string(),
            provider: view.connection.integration.into(),
            tenant: view.connection.tenant.into(),
            subject: view.connection.subject.into(),
            status: view.status.as_str(),
            error: view.error,
        }
    }
}
