//! What an installation says of these routes.

use std::collections::BTreeMap;

use tokenkeep_core::{IntegrationId, Tenant};

/// What an installation says of the routes of the service for BlueStakes tickets.
#[derive(Clone, Debug)]
pub struct Compat {
    /// Where the companies' accounts are.
    pub provider: IntegrationId,
    /// Whether user name and password may stand in the query. Whatever writes down addresses on the way (proxies,
    /// browsers) writes them down, too; this server never does.
    pub credentials_in_query: bool,
    /// Whose credentials are taken.
    pub companies: Companies,
    /// Names of companies, for people; a company that is named here is known.
    pub company_names: BTreeMap<Tenant, String>,
}

/// Whose credentials are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Companies {
    /// Every company's: the first credentials make it known.
    #[default]
    Open,
    /// Those of companies that have a name or a connection; others are not found.
    Closed,
}

impl Compat {
    /// The provider of the service that these routes come from.
    pub const PROVIDER: &str = "bluestakes";
}

impl Default for Compat {
    fn default() -> Self {
        Self {
            provider: IntegrationId::new(Self::PROVIDER).expect("it is an id of the catalogue"),
            credentials_in_query: false,
            companies: Companies::default(),
            company_names: BTreeMap::new(),
        }
    }
}
