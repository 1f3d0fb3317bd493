//! An integration's API, ready to be called.

use std::sync::OnceLock;

use http::{HeaderName, HeaderValue};

use super::{counted::CountedHere, target::ApiHost};
use crate::integrations::Party;

/// What every call to one integration's API needs, worked out once.
#[derive(Debug)]
pub(crate) struct ApiOf {
    pub(super) hosts: Vec<ApiHost>,
    pub(super) token_header: HeaderName,
    pub(super) token_prefix: Option<String>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) unauthorized: Vec<u16>,
    /// Once somebody calls it.
    pub(super) counted: OnceLock<CountedHere>,
}

impl ApiOf {
    /// What the catalogue has checked is good; what is not cannot be called.
    pub(crate) fn new(party: &Party) -> Self {
        let (integration, provider) = (&party.integration, &party.provider);
        let hosts = if integration.api_hosts.is_empty() { &provider.api_hosts } else { &integration.api_hosts };
        let header = |name: &str, value: &str| {
            let value = value.replace("{client_id}", &integration.client_id);
            Some((name.parse().ok()?, HeaderValue::from_str(&value).ok()?))
        };
        Self {
            hosts: hosts.iter().filter_map(|host| ApiHost::parse(host)).collect(),
            token_header: provider.api.token_header.parse().unwrap_or(http::header::AUTHORIZATION),
            token_prefix: provider.api.token_prefix.clone(),
            headers: provider.api.headers.iter().filter_map(|(name, value)| header(name, value)).collect(),
            unauthorized: provider.api.unauthorized.clone(),
            counted: OnceLock::new(),
        }
    }
}
