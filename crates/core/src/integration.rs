//! The integration: our client at a provider.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_oauth::Secret;
use url::Url;

use crate::{IntegrationId, ProviderId, Tenant};

/// Our client at a provider: what we are registered as, and how connections are made with it.
#[derive(Clone, Debug)]
pub struct Integration {
    /// Stands as `{provider}` in paths; by default the provider's id.
    pub id: IntegrationId,
    /// At which provider of the catalogue; `oidc` where the provider is known by its `issuer` only.
    pub provider: ProviderId,
    /// The OIDC issuer whose metadata says the rest, where the catalogue does not.
    pub issuer: Option<String>,
    /// The only tenant that may use it; `None` = all.
    pub tenant: Option<Tenant>,
    /// Our `client_id` there.
    pub client_id: String,
    /// Our `client_secret` there; `None` for public clients and those that sign.
    pub client_secret: Option<Secret>,
    /// How `connect` obtains tokens.
    pub grant: ConnectGrant,
    /// What we sign with, where the provider wants a signature.
    pub signing_key: Option<ClientSigningKey>,
    /// Scopes to ask for, separated by spaces; `None` = the provider's default.
    pub scope: Option<String>,
    /// Fills in the provider's URL and parameter templates (Microsoft's `tenant`).
    pub params: BTreeMap<String, String>,
    /// Hosts its tokens may be sent to; empty = the provider's own list.
    pub api_hosts: Vec<String>,
    /// Where the provider sends the browser back to; `None` = `{public_url}/oauth/callback`.
    pub redirect_uri: Option<Url>,
    /// Who may change it.
    pub managed_by: ManagedBy,
    /// Set while the provider refuses *us* (`invalid_client`, `unauthorized_client`), which says nothing about any
    /// connection.
    pub rejection: Option<Rejection>,
    /// When it was first there.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// How `connect` obtains tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectGrant {
    /// The user consents in a browser (RFC 6749 4.1, with PKCE).
    #[default]
    AuthorizationCode,
    /// Nobody consents: the client's own credentials are enough (RFC 6749 4.4).
    ClientCredentials,
    /// A signed assertion names the subject (RFC 7523 2.1): service accounts.
    JwtBearer,
    /// The user consents on another device (RFC 8628).
    DeviceCode,
}

/// A private key that the provider knows us by (`private_key_jwt`, Apple, service accounts).
#[derive(Clone, Debug)]
pub struct ClientSigningKey {
    /// PEM, or the JSON file as the provider's console gives it.
    pub key: Secret,
    /// The `kid` under which the provider knows the key; `None` = none, or in the JSON.
    pub key_id: Option<String>,
    /// The `iss` of what we sign where it is not the client id: Apple's team, a service account's address; `None` =
    /// the client id, or in the JSON.
    pub issuer: Option<String>,
}

/// Who may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManagedBy {
    /// The configuration file: the API refuses to change it.
    Config,
    /// The API.
    Api,
}

/// That a provider refuses our client itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The provider's error code: one of the error registry's.
    pub code: String,
    /// Since when.
    pub since: Timestamp,
}

impl Integration {
    /// Whether connections of `tenant` may use it.
    pub fn serves(&self, tenant: &Tenant) -> bool {
        self.tenant.as_ref().is_none_or(|only| only == tenant)
    }

    /// Notes at `now` that the provider refuses our client; an earlier refusal keeps its `since`.
    pub fn reject(&mut self, code: &str, now: Timestamp) {
        let since = self.rejection.as_ref().map_or(now, |r| r.since);
        self.rejection = Some(Rejection { code: code.to_owned(), since });
    }
}
