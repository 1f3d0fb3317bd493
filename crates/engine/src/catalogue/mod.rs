//! The catalogue: what is known of each provider.
//!
//! One TOML file per provider stands in `providers/` (its README explains the keys, `schema.json` the shape) and is
//! compiled in as text. A file is read when its provider is first asked for: start-up reads none, and a process that
//! serves three providers holds three. The same shape serves `[[provider]]` in the configuration and custom files.
//!
//! ```
//! use tokenkeep_core::ProviderId;
//! use tokenkeep_engine::catalogue::Catalogue;
//!
//! let catalogue = Catalogue::builtin();
//! let microsoft = catalogue.get(&ProviderId::new("microsoft")?).expect("in the catalogue");
//! let params = [("tenant".to_owned(), "contoso.onmicrosoft.com".to_owned())].into();
//! let token_url = microsoft.resolve(&params)?.token_url.expect("it has one");
//! assert_eq!(token_url.as_str(), "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builtin;
mod check;
mod file;

use std::{collections::BTreeMap, sync::Arc};

use tokenkeep_core::{Provider, ProviderId};

pub use self::{
    check::{CatalogueError, Problem},
    file::{ProviderFile, parse_provider_toml},
};

/// Every provider there is: the built-in ones, and the installation's own.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    custom: BTreeMap<ProviderId, Arc<Provider>>,
}

impl Catalogue {
    /// The providers that are compiled in.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// These, beside the built-in ones. One that has a built-in one's id takes its place: an installation can correct
    /// what the catalogue has wrong. Two with the same id are an error.
    pub fn with(custom: Vec<Provider>) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::builtin();
        for provider in custom {
            let id = provider.id.clone();
            if catalogue.custom.insert(id.clone(), Arc::new(provider)).is_some() {
                return Err(CatalogueError::new(id.as_str(), Some("id"), Problem::Duplicate));
            }
        }
        Ok(catalogue)
    }

    /// The provider of this id; `None` if there is none.
    pub fn get(&self, id: &ProviderId) -> Option<Arc<Provider>> {
        self.custom.get(id).cloned().or_else(|| builtin::get(id.as_str()))
    }

    /// Every id, sorted. Reads no file.
    pub fn ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = builtin::names().chain(self.custom.keys().map(ProviderId::as_str)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Every provider, sorted by id. Reads every file that has not been read yet.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Provider>> + '_ {
        self.ids().into_iter().filter_map(|id| self.get(&ProviderId::new(id).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(id: &str) -> Provider {
        parse_provider_toml("custom", &format!("id = \"{id}\"\ntoken_url = \"http://127.0.0.1:9/token\""))
            .expect("valid")
    }

    fn id(id: &str) -> ProviderId {
        ProviderId::new(id).expect("a slug")
    }

    #[test]
    fn custom_providers_are_added_and_take_the_place_of_built_in_ones() {
        let catalogue = Catalogue::with(vec![custom("acme"), custom("google")]).expect("no id twice");
        let count = Catalogue::builtin().ids().len();
        assert_eq!(catalogue.iter().count(), count + 1);
        assert!(catalogue.ids().is_sorted());
        assert_eq!(catalogue.get(&id("google")).expect("there").token_url.as_deref(), Some("http://127.0.0.1:9/token"));
        assert_eq!(catalogue.get(&id("github")).expect("there").display_name, "GitHub");
        assert_eq!(catalogue.get(&id("nobody")), None);
    }

    #[test]
    fn no_id_twice() {
        let error = Catalogue::with(vec![custom("acme"), custom("acme")]).expect_err("twice");
        assert_eq!(error.to_string(), "acme: `id` is used by two providers");
    }
}
