//! Which store, and who chose it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, bail};
use tokenkeep_core::ports::{Filter, Kind, Query, Scope, Store, StoreError};
use tokenkeep_store::{Memory, Sqlite};

use super::data_dir::DataDir;
use crate::{config::Config, environment::Environment};

/// A store, and who chose it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) place: Place,
    /// For people: `the default`, a file, a variable.
    pub(crate) chosen_by: String,
}

/// Where records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    Sqlite(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Memory => f.write_str("memory: (gone at exit)"),
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl Choice {
    /// `[store] url`, else what the names that users already have select, else SQLite in the data directory. What this
    /// version cannot do is refused: silently keeping tokens elsewhere would be worse.
    pub(crate) fn make(config: &Config, environment: &Environment, dir: &DataDir) -> Result<Self> {
        if let Some(url) = &config.store.url {
            let chosen_by = config.store_named_by.clone().unwrap_or_else(|| "the configuration".to_owned());
            return Ok(Self { place: parse(url, &chosen_by)?, chosen_by });
        }
        if let Some(word) = environment.text("TOKEN_STORE")? {
            let place = match word.to_ascii_lowercase().as_str() {
                "memory" => Place::Memory,
                "sqlite" => Place::Sqlite(dir.database()),
                later @ ("redis" | "vault" | "env" | "postgres") => bail!(
                    "TOKEN_STORE={later} is not in this version of tokenkeep, which keeps tokens in `sqlite` or `memory`; \
                     unset it or choose one of these"
                ),
                _ => bail!("TOKEN_STORE names no store; valid are `sqlite` and `memory`"),
            };
            return Ok(Self { place, chosen_by: "TOKEN_STORE".to_owned() });
        }
        if let Some(url) = environment.text("DATABASE_URL")? {
            return Ok(Self { place: parse(url, "DATABASE_URL")?, chosen_by: "DATABASE_URL".to_owned() });
        }
        Ok(Self { place: Place::Sqlite(dir.database()), chosen_by: "the default".to_owned() })
    }

    /// Whether only this machine's own data directory is concerned, so that a sealing key can be made for it.
    pub(crate) fn is_ours(&self, dir: &DataDir) -> bool {
        match &self.place {
            Place::Memory => true,
            Place::Sqlite(path) => path.starts_with(dir.path()),
        }
    }

    /// Opens it, and makes it where it is missing.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>> {
        match &self.place {
            Place::Memory => Ok(Arc::new(Memory::new())),
            Place::Sqlite(path) => Ok(Arc::new(Sqlite::open(path).await?)),
        }
    }
}

/// Reads a store URL. It is not repeated in errors: it may hold a password.
fn parse(url: &str, chosen_by: &str) -> Result<Place> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "memory" => Ok(Place::Memory),
        "sqlite" => match rest.strip_prefix("//").unwrap_or(rest) {
            "" => bail!("{chosen_by} names SQLite without a path: `sqlite:/path/to/tokenkeep.db`"),
            path => Ok(Place::Sqlite(std::path::absolute(Path::new(path))?)),
        },
        "postgres" | "postgresql" | "redis" | "rediss" | "vault" => bail!(
            "{chosen_by} names a {scheme} store, which is not in this version of tokenkeep. Valid are `sqlite:PATH` and \
             `memory:`; `[store] url` goes over the environment"
        ),
        _ => bail!("{chosen_by} names no store; valid are `sqlite:PATH` and `memory:`"),
    }
}

/// What the environment names and this version does not use: said, so that nobody believes otherwise.
pub(crate) fn unused(environment: &Environment) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if environment.os("REDIS_URL").is_some() {
        notes.push("REDIS_URL is set, but this version has no Redis cache; it is not used");
    }
    if environment.os("VAULT_ADDR").is_some() {
        notes.push("VAULT_ADDR is set, but this version has no Vault store; it is not used");
    }
    notes
}

/// Whether there is nothing in it, deleted records included.
pub(crate) async fn is_empty(store: &dyn Store) -> Result<bool, StoreError> {
    for kind in Kind::ALL {
        let query = Query { scope: Scope::Every, kind, filter: Filter::All, limit: 1, cursor: None };
        if !store.list(&query).await?.records.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose<const N: usize>(file: &str, pairs: [(&str, &str); N]) -> Result<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, file).unwrap();
        let environment = Environment::from(pairs);
        let config = Config::load(Some(&path), &environment)?;
        let choice = Choice::make(&config, &environment, &DataDir::at("/data".into()))?;
        Ok((choice.place.to_string(), choice.chosen_by))
    }

    #[test]
    fn the_store_says_who_chose_it() {
        let of = |file: &str, chosen_by: &str, pairs: [(&str, &str); 2]| {
            let (place, by) = choose(file, pairs).unwrap();
            assert!(by.ends_with(chosen_by), "{by}");
            place
        };
        let none = ("X", "x");
        assert_eq!(of("", "the default", [none, none]), "sqlite:/data/tokenkeep.db");
        assert_eq!(
            of("", "TOKEN_STORE", [("TOKEN_STORE", "Memory"), ("DATABASE_URL", "postgres://x")]),
            "memory: (gone at exit)"
        );
        assert_eq!(of("", "DATABASE_URL", [none, ("DATABASE_URL", "sqlite:///x/y.db")]), "sqlite:/x/y.db");
        let file = "[store]\nurl = \"sqlite:/f.db\"";
        assert_eq!(of(file, "t.toml", [("DATABASE_URL", "postgres://x"), ("TOKEN_STORE", "redis")]), "sqlite:/f.db");
        assert_eq!(
            of(file, "TOKENKEEP__STORE__URL", [("TOKENKEEP__STORE__URL", "memory:"), none]),
            "memory: (gone at exit)"
        );
    }

    #[test]
    fn what_this_version_cannot_do_is_refused() {
        for (variable, value, says) in [
            ("TOKEN_STORE", "redis", "not in this version"),
            ("TOKEN_STORE", "SECRETVALUE", "`sqlite` and `memory`"),
            ("DATABASE_URL", "postgres://user:SECRETVALUE@host/db", "not in this version"),
            ("DATABASE_URL", "SECRETVALUE", "`sqlite:PATH`"),
            ("TOKENKEEP__STORE__URL", "vault://SECRETVALUE", "not in this version"),
            ("DATABASE_URL", "sqlite:", "without a path"),
        ] {
            let said = choose("", [(variable, value)]).unwrap_err().to_string();
            assert!(said.contains(variable) && said.contains(says) && !said.contains("SECRETVALUE"), "{said}");
        }
    }
}
