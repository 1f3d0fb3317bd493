//! What several sections of the configuration say in the same way.

use anyhow::{Context as _, Result, anyhow, bail};
use tokenkeep_oauth::issuer::scope::ScopeSet;

/// What a section cannot do without.
pub(super) fn required<'a>(name: &str, value: Option<&'a String>) -> Result<&'a str> {
    value.map(String::as_str).ok_or_else(|| anyhow!("`{name}` is missing"))
}

/// `scopes`.
pub(super) fn scopes(words: &[String]) -> Result<ScopeSet> {
    if words.iter().any(|word| word.is_empty() || word.contains(' ')) {
        bail!("`scopes` is a list with one scope in each entry");
    }
    ScopeSet::parse(&words.join(" ")).context("`scopes`")
}
