//! The environment, read once: the only place in the whole program that asks for it. What honours a variable takes an
//! [`Environment`], so that tests can say what is set.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use anyhow::{Result, bail};

/// The variables this process was given.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// This process's.
    pub(crate) fn of_process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let all = std::env::vars_os();
        Self(all.filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    /// The value of `name`, where it is set and not empty: an empty variable is how shells and container files say
    /// "not set".
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.os(name).map(OsStr::to_str) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => bail!("the environment variable {name} is not valid UTF-8"),
        }
    }

    /// The same, for paths.
    pub(crate) fn os(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Every variable whose name starts with `prefix`: the rest of its name, and its value.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_os_str())))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: any value may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
