//! The files that are compiled in, read on demand.

use std::sync::{Arc, OnceLock};

use tokenkeep_core::Provider;

use super::parse_provider_toml;

/// Name and text of every file, sorted by name; `build.rs` makes the list.
static FILES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/providers.rs"));

/// What has been read of them, in the same order.
static READ: [OnceLock<Arc<Provider>>; FILES.len()] = [const { OnceLock::new() }; FILES.len()];

/// Every name, sorted.
pub(super) fn names<'a>() -> impl Iterator<Item = &'a str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The provider of this name.
pub(super) fn get(name: &str) -> Option<Arc<Provider>> {
    let at = FILES.binary_search_by_key(&name, |(name, _)| name).ok()?;
    let read = || {
        let (name, text) = FILES[at];
        Arc::new(parse_provider_toml(name, text).expect("a test reads every file that is compiled in"))
    };
    Some(Arc::clone(READ[at].get_or_init(read)))
}
