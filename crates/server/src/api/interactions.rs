//! `/v1/interactions`: an application with sign-in and consent pages of its own says what came of them.

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{ClientId, ConnectionId, InteractionId, Subject};
use tokenkeep_engine::issuer::{Accept, InteractionView, Reject};
use tokenkeep_oauth::{Secret, issuer::scope::ScopeSet};
use utoipa::ToSchema;

use super::{issuer::OurIssuer, time};
use crate::{
    auth::Auth,
    body::{Json, OptionalJson},
    extract::IdPath,
    openapi::ProblemBody,
    problem::Problem,
};

/// Who asks for what. Its id came to `[issuer] interaction_url` as `?interaction={id}`.
#[utoipa::path(
    get,
    path = "/v1/interactions/{id}",
    tag = "interactions",
    operation_id = "get_interaction",
    params(("id" = String, Path, example = "01JD7ZC0000000000000000000")),
    responses(
        (status = 200, description = "the interaction", body = InteractionBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`interaction_not_found`"),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn get(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    IdPath(id): IdPath<InteractionId>,
) -> Result<axum::Json<InteractionBody>, Problem> {
    Ok(axum::Json(issuer.interaction(&caller, &id).await?.into()))
}

/// The user signed in and said yes. Send their browser to `redirect_to`: it leads back to the client, with the code.
/// Ask the user before, and let nobody answer for another: whoever calls this says who signed in.
#[utoipa::path(
    post,
    path = "/v1/interactions/{id}/accept",
    tag = "interactions",
    operation_id = "accept_interaction",
    params(("id" = String, Path, example = "01JD7ZC0000000000000000000")),
    request_body = AcceptBody,
    responses(
        (status = 200, description = "where the browser goes", body = AnsweredBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`interaction_not_found`, `connection_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`conflict`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn accept(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    IdPath(id): IdPath<InteractionId>,
    Json(body): Json<AcceptBody>,
) -> Result<axum::Json<AnsweredBody>, Problem> {
    let AcceptBody { subject, name, email, scope, connection, exchangers } = body;
    let scope = scope.as_deref().map(ScopeSet::parse).transpose();
    let accept = Accept {
        subject: Subject::new(&subject)?,
        name,
        email,
        scope: scope.map_err(|error| Problem::invalid(format!("`scope`: {error}")))?,
        connection: connection.as_deref().map(str::parse::<ConnectionId>).transpose()?,
        exchangers: exchangers.iter().flatten().map(|id| ClientId::new(id)).collect::<Result<_, _>>()?,
    };
    Ok(axum::Json(AnsweredBody::new(&issuer.accept(&caller, &id, accept).await?)))
}

/// The user, or the application, said no. Send their browser to `redirect_to`: it tells the client.
#[utoipa::path(
    post,
    path = "/v1/interactions/{id}/reject",
    tag = "interactions",
    operation_id = "reject_interaction",
    params(("id" = String, Path, example = "01JD7ZC0000000000000000000")),
    request_body(content = RejectBody, description = "may be left out"),
    responses(
        (status = 200, description = "where the browser goes", body = AnsweredBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`interaction_not_found`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`conflict`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn reject(
    Auth(caller): Auth,
    OurIssuer(issuer): OurIssuer,
    IdPath(id): IdPath<InteractionId>,
    OptionalJson(body): OptionalJson<RejectBody>,
) -> Result<axum::Json<AnsweredBody>, Problem> {
    let reject = Reject { error: body.error, description: body.error_description };
    Ok(axum::Json(AnsweredBody::new(&issuer.reject(&caller, &id, reject).await?)))
}

/// A pending authorization.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Interaction, example = json!({
    "id": "01JD7ZC0000000000000000000", "client_id": "client_8s2Kd0fLq1mZ3xWv7YtBnA", "client_name": "An MCP client",
    "redirect_host": "127.0.0.1", "scope": "mcp", "resource": "https://mcp.example.com/mcp",
    "resource_name": "Example MCP", "exchangers": ["mcp-server"], "status": "pending", "created_at": "2026-11-01T08:00:00Z",
    "expires_at": "2026-11-01T08:10:00Z",
}))]
pub(crate) struct InteractionBody {
    id: String,
    /// Who asks.
    client_id: String,
    /// What it calls itself. Anybody may claim any name: show `redirect_host` beside it.
    client_name: Option<String>,
    /// Where the answer goes.
    redirect_host: String,
    /// What is asked for, separated by spaces.
    scope: String,
    /// Where that may be used.
    resource: String,
    /// What that is called.
    resource_name: Option<String>,
    /// The clients that ask to use the user's account at the provider, and to have its tokens (RFC 8693).
    exchangers: Vec<String>,
    #[schema(value_type = InteractionStatusWord)]
    status: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    /// When it is too late to answer.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// `pending` = it can be answered.
#[derive(ToSchema)]
#[schema(as = InteractionStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum InteractionStatusWord {
    Pending,
    Granted,
    Denied,
    Expired,
}

impl From<InteractionView> for InteractionBody {
    fn from(view: InteractionView) -> Self {
        Self {
            id: view.id.to_string(),
            client_id: view.client.into(),
            client_name: view.client_name,
            redirect_host: view.redirect_host,
            scope: view.scope.to_string(),
            resource: view.resource.into(),
            resource_name: view.resource_name,
            exchangers: view.exchangers.into_iter().map(Into::into).collect(),
            status: view.status.as_str(),
            created_at: time(view.created_at),
            expires_at: time(view.expires_at),
        }
    }
}

/// Who said yes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AcceptInteraction, example = json!({
    "subject": "acme|42", "name": "Alice", "email": "alice@example.com", "scope": "mcp",
    "connection": "google/_default/alice", "exchangers": ["mcp-server"],
}))]
pub(crate) struct AcceptBody {
    /// What stands in the token's `sub`: an id that never becomes somebody else's.
    subject: String,
    /// What to call them.
    name: Option<String>,
    /// An address that the application vouches for.
    email: Option<String>,
    /// What of the scope they allowed; absent = all of it.
    scope: Option<String>,
    /// The connection whose tokens go with it: `provider/tenant/subject`.
    connection: Option<String>,
    /// Those of the interaction's `exchangers` that they allowed to have these tokens; absent = none.
    exchangers: Option<Vec<String>>,
}

/// Why the answer is no.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RejectInteraction, example = json!({"error": "access_denied", "error_description": "not on Sundays"}))]
pub(crate) struct RejectBody {
    /// A word of the registry's; absent = `access_denied`.
    error: Option<String>,
    /// A sentence for the developer of the client: ASCII, without quotes.
    error_description: Option<String>,
}

/// Where the browser goes.
#[derive(Serialize, ToSchema)]
#[schema(as = AnsweredInteraction)]
pub(crate) struct AnsweredBody {
    /// It holds the code: show it to nobody but this user's browser.
    #[schema(
        example = "http://127.0.0.1:54321/callback?code=01JD7ZC0000000000000000000.0.EXAMPLE&state=x&iss=https%3A%2F%2Fauth.example.com"
    )]
    redirect_to: String,
}

impl AnsweredBody {
    fn new(redirect_to: &Secret) -> Self {
        Self { redirect_to: redirect_to.expose_secret().to_owned() }
    }
}
