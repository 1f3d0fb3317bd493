use std::time::Duration;

use tokenkeep_core::{Integration, connection::RefreshPolicy, provider::ResolvedProvider};
use tokenkeep_oauth::Client;

/// Both sides of an integration, ready to talk: our client, and the provider with its templates filled in and what
/// discovery found.
#[derive(Clone, Debug)]
pub struct Party {
    /// The integration.
    pub integration: Integration,
    /// Its provider.
    pub provider: ResolvedProvider,
    /// Our client there.
    pub client: Client,
}

impl Party {
    /// What the refresh machine must know of it.
    pub(crate) fn policy(&self, default_margin: Duration) -> RefreshPolicy {
        RefreshPolicy::new(self.provider.rotation, self.provider.margin.unwrap_or(default_margin))
    }
}
