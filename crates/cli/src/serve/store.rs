//! Which store, and who chose it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tokenkeep_core::ports::{Filter, Kind, Query, Scope, Store, StoreError};
use tokenkeep_oauth::Secret;
use url::Url;

use super::{data_dir::DataDir, server_url::ServerUrl};
use crate::{
    config::{Config, secret},
    environment::Environment,
};

/// What may stand in `[store] url`.
const FORMS: &str = "`sqlite:PATH`, `postgres://...`, `redis://...`, `redis+sentinel://...`, `redis+cluster://...`, \
                     `vault://HOST/MOUNT/PATH`, `env:FILE` and `memory:`";
/// What may stand in TOKEN_STORE.
const WORDS: &str = "`env`, `redis`, `vault`, `sqlite`, `postgres` and `memory`";

/// A store, and who chose it.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) place: Place,
    /// For people: `the default`, a file, a variable.
    pub(crate) chosen_by: String,
}

/// Where records are kept.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Memory,
    /// In this process, and in the `.env` file if one is named.
    EnvFile(Option<PathBuf>),
    Sqlite(PathBuf),
    Postgres(ServerUrl),
    Redis(ServerUrl),
    Vault(VaultPlace),
}

/// Where in a Vault.
#[derive(Clone, Debug)]
pub(crate) struct VaultPlace {
    pub(crate) address: Url,
    pub(crate) mount: String,
    pub(crate) path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Memory => f.write_str("memory: (gone at exit)"),
            Place::EnvFile(None) => f.write_str("env: (gone at exit)"),
            Place::EnvFile(Some(path)) => write!(f, "env:{}", path.display()),
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::Postgres(url) | Place::Redis(url) => write!(f, "{url}"),
            Place::Vault(VaultPlace { address, mount, path }) => {
                write!(f, "vault {}/{mount}/{path}", address.as_str().trim_end_matches('/'))
            }
        }
    }
}

impl Choice {
    /// `[store] url`, else what the names that users already have select, else SQLite in the data directory.
    pub(crate) fn make(config: &Config, environment: &Environment, dir: &DataDir) -> Result<Self> {
        let url = secret("store.url", config.store.url.as_ref(), config.store.url_file.as_deref())?;
        if let Some(url) = url {
            let chosen_by = config.store_named_by.clone().unwrap_or_else(|| "the configuration".to_owned());
            return Ok(Self { place: parse(&url, &chosen_by, config, environment)?, chosen_by });
        }
        if let Some(word) = environment.text("TOKEN_STORE")? {
            return Ok(Self { place: named(word, config, environment, dir)?, chosen_by: "TOKEN_STORE".to_owned() });
        }
        if let Some(url) = environment.text("DATABASE_URL")? {
            let chosen_by = "DATABASE_URL".to_owned();
            return Ok(Self { place: parse(&Secret::from(url), &chosen_by, config, environment)?, chosen_by });
        }
        Ok(Self { place: Place::Sqlite(dir.database()), chosen_by: "the default".to_owned() })
    }

    /// Whether only this machine's own data directory is concerned, so that a sealing key can be made for it.
    pub(crate) fn is_ours(&self, dir: &DataDir) -> bool {
        match &self.place {
            Place::Memory | Place::EnvFile(_) => true,
            Place::Sqlite(path) => path.starts_with(dir.path()),
            Place::Postgres(_) | Place::Redis(_) | Place::Vault(_) => false,
        }
    }
}

/// What TOKEN_STORE names.
fn named(word: &str, config: &Config, environment: &Environment, dir: &DataDir) -> Result<Place> {
    let needs = |variable: &str| -> Result<Secret> {
        let text = environment.text(variable)?;
        text.map(Secret::from).with_context(|| format!("TOKEN_STORE={word} needs {variable}, which is not set"))
    };
    let wrong = |variable: &str| format!("TOKEN_STORE={word}, but {variable} names another kind of store");
    match word.to_ascii_lowercase().as_str() {
        "memory" => Ok(Place::Memory),
        "env" => Ok(Place::EnvFile(None)),
        "sqlite" => Ok(Place::Sqlite(dir.database())),
        "postgres" => match parse(&needs("DATABASE_URL")?, "DATABASE_URL", config, environment)? {
            place @ Place::Postgres(_) => Ok(place),
            _ => bail!(wrong("DATABASE_URL")),
        },
        "redis" => match parse(&needs("REDIS_URL")?, "REDIS_URL", config, environment)? {
            place @ Place::Redis(_) => Ok(place),
            _ => bail!(wrong("REDIS_URL")),
        },
        "vault" => {
            needs("VAULT_ADDR")?;
            let address = environment.text("VAULT_ADDR")?.unwrap_or_default();
            let Ok(address) = address.parse() else { bail!("VAULT_ADDR is no URL") };
            Ok(Place::Vault(vault_place(address, "", environment)?))
        }
        _ => bail!("TOKEN_STORE names no store; valid are {WORDS}"),
    }
}

/// Reads a store URL. It is not repeated in errors: it may hold a password.
fn parse(url: &Secret, chosen_by: &str, config: &Config, environment: &Environment) -> Result<Place> {
    let url = ServerUrl::new(url.clone());
    let rest = url.after_scheme().to_owned();
    match url.scheme() {
        "memory" => Ok(Place::Memory),
        "env" => Ok(Place::EnvFile(match rest.as_str() {
            "" => None,
            path => Some(std::path::absolute(Path::new(path))?),
        })),
        "sqlite" => match rest.as_str() {
            "" => bail!("{chosen_by} names SQLite without a path: `sqlite:/path/to/tokenkeep.db`"),
            path => Ok(Place::Sqlite(std::path::absolute(Path::new(path))?)),
        },
        "postgres" | "postgresql" => Ok(Place::Postgres(url.with_password(store_password(config)?.as_ref()))),
        "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster" | "valkey"
        | "valkeys" => {
            let password = match store_password(config)? {
                None => environment.text("REDIS_PASSWORD")?.map(Secret::from),
                configured => configured,
            };
            let url = url.with_password(password.as_ref());
            url.refuse_open_redis(chosen_by, config.cache.redis_allow_no_password)?;
            Ok(Place::Redis(url))
        }
        "vault" | "vault+http" => {
            let scheme = if url.scheme() == "vault" { "https" } else { "http" };
            let (host, path) = rest.split_once('/').unwrap_or((&rest, ""));
            let Ok(address) = format!("{scheme}://{host}").parse() else {
                bail!("{chosen_by} names a Vault without an address: `vault://HOST:PORT/MOUNT/PATH`")
            };
            Ok(Place::Vault(vault_place(address, path, environment)?))
        }
        _ => bail!("{chosen_by} names no store; valid are {FORMS}"),
    }
}

fn store_password(config: &Config) -> Result<Option<Secret>> {
    secret("store.password", config.store.password.as_ref(), config.store.password_file.as_deref())
}

/// `MOUNT/PATH` of the URL, else what Vault's own variables say, else `secret/tokenkeep`.
fn vault_place(address: Url, mount_and_path: &str, environment: &Environment) -> Result<VaultPlace> {
    let (mount, path) = mount_and_path.split_once('/').unwrap_or((mount_and_path, ""));
    let or = |given: &str, variable: &str, default: &str| -> Result<String> {
        let trimmed = given.trim_matches('/');
        if !trimmed.is_empty() {
            return Ok(trimmed.to_owned());
        }
        Ok(environment.text(variable)?.unwrap_or(default).trim_matches('/').to_owned())
    };
    Ok(VaultPlace {
        address,
        mount: or(mount, "VAULT_MOUNT_PATH", "secret")?,
        path: or(path, "VAULT_SECRET_PATH", "tokenkeep")?,
    })
}

/// What the environment names and this choice does not use: said, so that nobody believes otherwise.
pub(crate) fn unused(choice: &Choice, environment: &Environment) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |variable: &str| {
        notes.push(format!(
            "{variable} is set, but the store is {} ({}); it is not used",
            choice.place, choice.chosen_by
        ));
    };
    if environment.os("VAULT_ADDR").is_some() && !matches!(choice.place, Place::Vault(_)) {
        note("VAULT_ADDR");
    }
    if environment.os("DATABASE_URL").is_some()
        && choice.chosen_by != "DATABASE_URL"
        && !(choice.chosen_by == "TOKEN_STORE" && matches!(choice.place, Place::Postgres(_)))
    {
        note("DATABASE_URL");
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
    fn each_kind_is_named_without_its_password() {
        let url = |url: &str| choose("", [("TOKENKEEP__STORE__URL", url)]).unwrap().0;
        assert_eq!(url("postgres://me:SECRET@db:5432/app?sslmode=require"), "postgres://db:5432/app");
        assert_eq!(url("redis://:SECRET@10.0.0.1:6379/2"), "redis://10.0.0.1:6379/2");
        assert_eq!(url("redis+sentinel://:SECRET@a:1,b:2/main"), "redis+sentinel://a:1,b:2/main");
        assert_eq!(url("vault://v:8200/kv/apps/tk"), "vault https://v:8200/kv/apps/tk");
        assert_eq!(url("vault+http://127.0.0.1:8200"), "vault http://127.0.0.1:8200/secret/tokenkeep");
        assert_eq!(url("env:/x/.env"), "env:/x/.env");
    }

    #[test]
    fn the_words_users_have_select_a_store() {
        let word = |word: &str, more: (&str, &str)| {
            let (place, by) = choose("", [("TOKEN_STORE", word), more]).unwrap();
            assert_eq!(by, "TOKEN_STORE");
            place
        };
        assert_eq!(word("ENV", ("X", "x")), "env: (gone at exit)");
        assert_eq!(word("redis", ("REDIS_URL", "redis://localhost")), "redis://localhost");
        assert_eq!(word("postgres", ("DATABASE_URL", "postgresql://db/x")), "postgresql://db/x");
        assert_eq!(
            word("vault", ("VAULT_ADDR", "http://127.0.0.1:8200")),
            "vault http://127.0.0.1:8200/secret/tokenkeep"
        );
    }

    #[test]
    fn what_names_no_store_is_refused_in_a_sentence() {
        for (variable, value, says) in [
            ("TOKEN_STORE", "redis", "needs REDIS_URL"),
            ("TOKEN_STORE", "SECRETVALUE", "`vault`, `sqlite`, `postgres`"),
            ("DATABASE_URL", "SECRETVALUE", "`sqlite:PATH`"),
            ("DATABASE_URL", "sqlite:", "without a path"),
            ("TOKENKEEP__STORE__URL", "mysql://user:SECRETVALUE@h/d", "`postgres://...`"),
            ("TOKENKEEP__STORE__URL", "redis://10.0.0.1:6379", "no password"),
        ] {
            let said = format!("{:#}", choose("", [(variable, value)]).unwrap_err());
            assert!(said.contains(variable) && said.contains(says) && !said.contains("SECRETVALUE"), "{said}");
        }
    }
}
