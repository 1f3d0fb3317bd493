use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use secrecy::ExposeSecret;
use tokenkeep_core::{Integration, connection::RefreshPolicy, provider::ResolvedProvider};
use tokenkeep_oauth::{
    Client, SigningKey,
    client_assertion::{ServiceAccount, parse_service_account},
};

use crate::{Error, proxy::ApiOf};

/// Both sides of an integration, ready to talk: our client, and the provider with its templates filled in and what
/// discovery found.
#[derive(Clone, Debug)]
pub struct Party {
    /// The integration.
    pub integration: Integration,
    /// Its provider.
    pub provider: ResolvedProvider,
    /// The provider's name, for people.
    pub provider_name: String,
    /// Our client there.
    pub client: Client,
    /// The `iss` of the assertions we sign, where it is not the client id: a service account's address.
    pub assertion_issuer: Option<String>,
    /// Whether the provider says that each of its callbacks carries `iss` (RFC 9207).
    pub sends_iss: bool,
    /// Its API, once somebody calls it.
    pub(super) api: OnceLock<Arc<ApiOf>>,
}

impl Party {
    /// Its API, ready to be called.
    pub(crate) fn api(&self) -> Arc<ApiOf> {
        self.api.get_or_init(|| Arc::new(ApiOf::new(self))).clone()
    }

    /// Whether its issuer's metadata says what the catalogue does not.
    pub(crate) fn is_discovered(&self) -> bool {
        let provider = &self.provider;
        self.integration.issuer.is_some()
            || provider.issuer.is_some() && (provider.authorize_url.is_none() || provider.token_url.is_none())
    }

    /// What the refresh machine must know of it.
    pub(crate) fn policy(&self, default_margin: Duration) -> RefreshPolicy {
        RefreshPolicy::new(self.provider.rotation, self.provider.margin.unwrap_or(default_margin))
    }
}

/// Our client as the integration describes it, and the issuer of what it signs. A signing key is PEM, or a service
/// account's key file, which names its issuer and its key itself.
pub(super) fn client_of(integration: &Integration) -> Result<(Client, Option<String>), Error> {
    let unusable = |error: &dyn std::error::Error| Error::invalid(format!("`signing_key` cannot be used: {error}"));
    let (key, issuer) = match &integration.signing_key {
        None => (None, None),
        Some(signing) if signing.key.expose_secret().trim_start().starts_with('{') => {
            let ServiceAccount { client_email, key, .. } =
                parse_service_account(&signing.key).map_err(|error| unusable(&error))?;
            (Some(key), Some(signing.issuer.clone().unwrap_or(client_email)))
        }
        Some(signing) => {
            let key = SigningKey::from_pem(&signing.key, signing.key_id.clone()).map_err(|error| unusable(&error))?;
            (Some(key), signing.issuer.clone())
        }
    };
    let client = Client { id: integration.client_id.clone(), secret: integration.client_secret.clone(), key };
    Ok((client, issuer))
}
