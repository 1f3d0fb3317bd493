use std::collections::BTreeMap;

use jiff::Timestamp;
use tokenkeep_core::{ConnectGrant, Integration, IntegrationId, ManagedBy, ProviderId, Rejection, Tenant};
use url::Url;

/// What may be known of an integration: no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrationView {
    /// Stands as `{provider}` in paths.
    pub id: IntegrationId,
    /// At which provider of the catalogue; `oidc` where there is an `issuer` instead.
    pub provider: ProviderId,
    /// The OIDC issuer, where the provider is known by it.
    pub issuer: Option<String>,
    /// The only tenant that may use it; `None` = all.
    pub tenant: Option<Tenant>,
    /// Our `client_id` there.
    pub client_id: String,
    /// Whether it has a client secret.
    pub has_client_secret: bool,
    /// Whether it has a key to sign with.
    pub has_signing_key: bool,
    /// How `connect` obtains tokens.
    pub grant: ConnectGrant,
    /// Scopes asked for, separated by spaces; `None` = the provider's default.
    pub scope: Option<String>,
    /// What fills in the provider's templates.
    pub params: BTreeMap<String, String>,
    /// Hosts its tokens may be sent to; empty = the provider's own list.
    pub api_hosts: Vec<String>,
    /// Where the provider sends the browser back to; `None` = `{public_url}/oauth/callback`.
    pub redirect_uri: Option<Url>,
    /// Who may change it.
    pub managed_by: ManagedBy,
    /// Set while the provider refuses our client.
    pub rejection: Option<Rejection>,
    /// When it was first there.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

impl From<Integration> for IntegrationView {
    fn from(integration: Integration) -> Self {
        Self {
            id: integration.id,
            provider: integration.provider,
            issuer: integration.issuer,
            tenant: integration.tenant,
            client_id: integration.client_id,
            has_client_secret: integration.client_secret.is_some(),
            has_signing_key: integration.signing_key.is_some(),
            grant: integration.grant,
            scope: integration.scope,
            params: integration.params,
            api_hosts: integration.api_hosts,
            redirect_uri: integration.redirect_uri,
            managed_by: integration.managed_by,
            rejection: integration.rejection,
            created_at: integration.created_at,
            updated_at: integration.updated_at,
        }
    }
}
