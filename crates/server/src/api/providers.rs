//! `/v1/providers`: the catalogue.

use axum::extract::State;
use serde::Serialize;
use tokenkeep_core::{Action, Provider};
use utoipa::ToSchema;

use crate::{AppState, auth::Auth, problem::Problem};

/// Lists the providers of the catalogue, and which facts about them nobody has verified.
#[utoipa::path(
    get,
    path = "/v1/providers",
    tag = "providers",
    operation_id = "list_providers",
    responses(
        (status = 200, description = "the catalogue", body = ProviderList),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
    ),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Auth(caller): Auth,
) -> Result<axum::Json<ProviderList>, Problem> {
    caller.may(Action::ReadIntegrations)?;
    let items = state.engine.catalogue().iter().map(|provider| (&*provider).into()).collect();
    Ok(axum::Json(ProviderList { items }))
}

/// A provider of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Provider)]
struct ProviderBody {
    #[schema(example = "google")]
    id: String,
    #[schema(example = "Google")]
    display_name: String,
    /// `oauth2`, `login`, `app_installation` or `request_signing`; the last two are listed only.
    #[schema(example = "oauth2")]
    kind: &'static str,
    /// Whether a user can consent in a browser.
    has_code_flow: bool,
    /// Whether a user can consent on another device.
    has_device_flow: bool,
    authorize_url: Option<String>,
    token_url: Option<String>,
    issuer: Option<String>,
    default_scope: Option<String>,
    /// What an integration's `params` must or may hold: name and purpose.
    params: std::collections::BTreeMap<String, String>,
    api_hosts: Vec<String>,
    notes: String,
    /// Which facts nobody has verified, by field name.
    unverified: Vec<String>,
}

impl From<&Provider> for ProviderBody {
    fn from(provider: &Provider) -> Self {
        Self {
            id: provider.id.to_string(),
            display_name: provider.display_name.clone(),
            kind: provider.kind.as_str(),
            has_code_flow: provider.has_code_flow(),
            has_device_flow: provider.device_authorization_url.is_some(),
            authorize_url: provider.authorize_url.clone(),
            token_url: provider.token_url.clone(),
            issuer: provider.issuer.clone(),
            default_scope: provider.default_scope.clone(),
            params: provider.params.iter().map(|(name, param)| (name.clone(), param.description.clone())).collect(),
            api_hosts: provider.api_hosts.clone(),
            notes: provider.notes.clone(),
            unverified: provider.unverified.clone(),
        }
    }
}

/// The catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProviderList {
    items: Vec<ProviderBody>,
}
