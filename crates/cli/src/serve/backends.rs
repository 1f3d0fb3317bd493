//! What an engine stands on, opened: the store, and whatever the instances share beside it.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret as _;
use tokenkeep_core::ports::{Bus, Clock, Counter, Entropy, SharedCache, Store};
use tokenkeep_oauth::Secret;
use tokenkeep_store::{
    EnvFile, Memory, MemoryCounter, Postgres, PostgresOptions, Redis, RedisBus, RedisCache, RedisCounter, RedisOptions,
    Sqlite, Transit, TransitOptions, Vault, VaultAuth, VaultOptions, VaultServer, redis::RedisMetrics,
};
use url::Url;

use super::{
    server_url::ServerUrl,
    store::{Choice, Place, VaultPlace},
};
use crate::{
    config::{Config, secret},
    environment::Environment,
};

/// Opened, and made where something was missing.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Option<Arc<dyn Bus>>,
    pub(crate) shared_cache: Option<Arc<dyn SharedCache>>,
    pub(crate) counter: Option<Arc<dyn Counter>>,
    /// What a store that is a Redis counts of itself.
    pub(crate) redis_metrics: Option<RedisMetrics>,
}

/// What it takes to open them.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) config: &'a Config,
    pub(crate) environment: &'a Environment,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) entropy: &'a Arc<dyn Entropy>,
}

impl Opening<'_> {
    /// Opens the store, and the Redis between the instances if one is named. A Redis that is only a cache must answer at
    /// the start, so that a typing error is found; later it may come and go.
    pub(crate) async fn open(&self, choice: &Choice) -> Result<Backends> {
        let mut backends = self.open_store(choice).await?;
        if let Some(url) = self.cache_url(choice)? {
            let options = self.redis_options(&url).context("the Redis of `[cache]` cannot be used")?;
            backends.shared_cache = Some(Arc::new(RedisCache::connect(options.clone()).await?));
            backends.bus = Some(Arc::new(RedisBus::connect(options.clone()).await?));
            backends.counter = Some(Arc::new(RedisCounter::connect(options).await?));
        }
        Ok(backends)
    }

    /// Every Redis that is named, and what it is for.
    pub(crate) fn redises(&self, choice: &Choice) -> Result<Vec<(&'static str, ServerUrl)>> {
        let store = match &choice.place {
            Place::Redis(url) => Some(("store", url.clone())),
            _ => None,
        };
        Ok(store.into_iter().chain(self.cache_url(choice)?.map(|url| ("cache", url))).collect())
    }

    async fn open_store(&self, choice: &Choice) -> Result<Backends> {
        // Each counts for itself where nothing is shared; SQLite's processes on one machine do, too.
        let counter: Option<Arc<dyn Counter>> = Some(Arc::new(MemoryCounter::new(self.clock.clone())));
        let alone =
            |store: Arc<dyn Store>| Backends { store, bus: None, shared_cache: None, counter, redis_metrics: None };
        match &choice.place {
            Place::Memory => Ok(alone(Arc::new(Memory::new()))),
            Place::Sqlite(path) => Ok(alone(Arc::new(Sqlite::open(path).await?))),
            Place::Postgres(url) => {
                let postgres = Postgres::connect(self.postgres_options(url)?).await?;
                let bus = Arc::new(postgres.bus());
                let counter: Option<Arc<dyn Counter>> = Some(Arc::new(postgres.counter()));
                Ok(Backends { bus: Some(bus), counter, ..alone(Arc::new(postgres)) })
            }
            Place::Redis(url) => {
                let options = self.redis_options(url)?;
                let redis = Redis::connect(options.clone()).await?;
                Ok(Backends {
                    redis_metrics: Some(redis.metrics()),
                    bus: Some(Arc::new(RedisBus::connect(options.clone()).await?)),
                    counter: Some(Arc::new(RedisCounter::connect(options).await?)),
                    ..alone(Arc::new(redis))
                })
            }
            Place::EnvFile(path) => Ok(alone(Arc::new(EnvFile::open(path.as_deref(), &**self.entropy)?))),
            Place::Vault(VaultPlace { address, mount, path }) => {
                let server = self.vault_server(address)?;
                let options = VaultOptions {
                    mount: mount.clone(),
                    path: path.clone(),
                    ..VaultOptions::new(server, self.entropy.clone())
                };
                Ok(alone(Arc::new(Vault::connect(options).await?)))
            }
        }
    }

    fn postgres_options(&self, url: &ServerUrl) -> Result<PostgresOptions> {
        let store = &self.config.store;
        let mut options = PostgresOptions::new(trusting(url, store.ca_file.as_deref())?.secret().clone());
        if store.connections > 0 {
            options.pool_size = store.connections;
        }
        options.partitions = u16::try_from(store.postgres_partitions)
            .ok()
            .filter(|partitions| *partitions <= 256)
            .context("`store.postgres_partitions` must be 256 at most")?;
        if let Some(url) = &store.postgres_listen_url {
            let password = secret("store.password", store.password.as_ref(), store.password_file.as_deref())?;
            let url = ServerUrl::new(url.clone()).with_password(password.as_ref());
            options.listen_url = Some(trusting(&url, store.ca_file.as_deref())?.secret().clone());
        }
        Ok(options)
    }

    /// The Vault at `address`, and how to be let in: by AppRole where a role is configured, else with VAULT_TOKEN.
    pub(crate) fn vault_server(&self, address: &Url) -> Result<VaultServer> {
        let store = &self.config.store;
        let secret_id =
            secret("store.vault_secret_id", store.vault_secret_id.as_ref(), store.vault_secret_id_file.as_deref())?;
        let auth = match (&store.vault_role_id, secret_id, self.environment.text("VAULT_TOKEN")?) {
            (Some(role), Some(secret), _) => VaultAuth::app_role(role, secret),
            (Some(_), None, _) => bail!("`store.vault_role_id` needs `store.vault_secret_id`"),
            (None, Some(_), _) => bail!("`store.vault_secret_id` needs `store.vault_role_id`"),
            (None, None, Some(token)) => VaultAuth::Token(Secret::from(token)),
            (None, None, None) => {
                bail!(
                    "Vault wants to be logged in to: set VAULT_TOKEN, or `[store] vault_role_id` and `vault_secret_id`"
                )
            }
        };
        Ok(VaultServer {
            namespace: self.environment.text("VAULT_NAMESPACE")?.map(str::to_owned),
            ca_file: store.ca_file.clone(),
            ..VaultServer::new(address.as_str().trim_end_matches('/'), auth, self.clock.clone())
        })
    }

    /// What unwraps the sealing keys, if `[sealing] transit_key` names it.
    pub(crate) async fn transit(&self) -> Result<Option<Transit>> {
        let Some(key) = &self.config.sealing.transit_key else { return Ok(None) };
        let address = self.environment.text("VAULT_ADDR")?.context("`sealing.transit_key` needs VAULT_ADDR")?;
        let address = address.parse().context("VAULT_ADDR is no URL")?;
        let options = TransitOptions::new(self.vault_server(&address)?, key);
        Ok(Some(Transit::connect(options).await?))
    }

    /// How a Redis is spoken to, be it the store or the cache.
    pub(crate) fn redis_options(&self, url: &ServerUrl) -> Result<RedisOptions> {
        let store = &self.config.store;
        let mut options = RedisOptions::new(url.secret().expose_secret())?;
        let prefix = match &store.redis_prefix {
            Some(prefix) => Some(prefix.as_str()),
            None => self.environment.text("REDIS_KEY_PREFIX")?,
        };
        if let Some(prefix) = prefix {
            prefix.clone_into(&mut options.prefix);
        }
        if store.connections > 0 {
            options.connections = store.connections as usize;
        }
        options.allow_eviction = store.redis_allow_eviction;
        options.allow_without_aof = store.redis_allow_volatile;
        if let Some(path) = &store.ca_file {
            let pem =
                std::fs::read(path).with_context(|| format!("`store.ca_file` {} cannot be read", path.display()))?;
            options.ca_certificate = Some(pem);
        }
        Ok(options)
    }

    /// The Redis between the instances: `[cache] redis_url`, else REDIS_URL. A Redis that is the store is the bus as well,
    /// and needs no cache before it.
    pub(crate) fn cache_url(&self, choice: &Choice) -> Result<Option<ServerUrl>> {
        let cache = &self.config.cache;
        let configured = secret("cache.redis_url", cache.redis_url.as_ref(), cache.redis_url_file.as_deref())?;
        let (url, chosen_by) = match configured {
            Some(url) => (url, "`[cache] redis_url`"),
            None => match self.environment.text("REDIS_URL")? {
                Some(_) if matches!(choice.place, Place::Redis(_)) => return Ok(None),
                Some(url) => (Secret::from(url), "REDIS_URL"),
                None => return Ok(None),
            },
        };
        let password = match secret(
            "cache.redis_password",
            cache.redis_password.as_ref(),
            cache.redis_password_file.as_deref(),
        )? {
            None => self.environment.text("REDIS_PASSWORD")?.map(Secret::from),
            configured => configured,
        };
        let url = ServerUrl::new(url).with_password(password.as_ref());
        url.refuse_open_redis(chosen_by, cache.redis_allow_no_password)?;
        Ok(Some(url))
    }
}

/// The URL with the certificates to trust in it, in the words of libpq, unless it names its own.
fn trusting(url: &ServerUrl, ca_file: Option<&Path>) -> Result<ServerUrl> {
    let Some(path) = ca_file else { return Ok(url.clone()) };
    let path = path.to_str().context("`store.ca_file` is not valid UTF-8")?;
    Ok(url.clone().with_parameter("sslrootcert", path))
}
