//! `[compat]`

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokenkeep_core::{IntegrationId, Tenant};

use super::section::section;

section! {
    /// The routes of the service for BlueStakes tickets (`/tokens/...`, `/tickets/store-credentials/...`). They are
    /// always there; docs/compat.md goes through them.
    ONE "compat" Compat {
        /// Whether user name and password may stand in the query. What writes down addresses on the way writes them
        /// down, too.
        credentials_in_query: bool = false, Flag "false";
        /// Whose credentials are taken: `open` (every company's) or `closed` (those of companies that have a name here,
        /// or a connection; others are 404 `COMPANY_NOT_FOUND`).
        companies: Companies = Companies::Open, Text "\"open\"";
        /// Names of companies by their ids, for people.
        company_names: BTreeMap<String, String> = BTreeMap::new(), Table "{ 123 = \"Rocky Mountain Excavating\" }";
        /// The integration where the companies' accounts are.
        provider: String = tokenkeep_server::Compat::PROVIDER.to_owned(), Text "\"bluestakes\"";
    }
}

/// Whose credentials are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Companies {
    Open,
    Closed,
}

impl Compat {
    /// As the server takes it.
    pub(crate) fn settings(&self) -> Result<tokenkeep_server::Compat> {
        let name = |(id, name): (&String, &String)| {
            Ok((Tenant::new(id).context("a company in `compat.company_names` cannot be used")?, name.clone()))
        };
        Ok(tokenkeep_server::Compat {
            provider: IntegrationId::new(&self.provider).context("`compat.provider` cannot be used")?,
            credentials_in_query: self.credentials_in_query,
            companies: match self.companies {
                Companies::Open => tokenkeep_server::Companies::Open,
                Companies::Closed => tokenkeep_server::Companies::Closed,
            },
            company_names: self.company_names.iter().map(name).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_named_is_said() {
        let named = |provider: &str, company: &str| {
            let names = BTreeMap::from([(company.to_owned(), "Acme".to_owned())]);
            Compat { provider: provider.to_owned(), company_names: names, ..Compat::default() }.settings()
        };
        assert_eq!(named("bluestakes", "7").unwrap().company_names.len(), 1);
        assert!(named("Blue Stakes", "7").unwrap_err().to_string().contains("compat.provider"));
        assert!(named("bluestakes", "..").unwrap_err().to_string().contains("compat.company_names"));
    }
}
