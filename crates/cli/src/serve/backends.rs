//! What an engine stands on, opened: the store, and whatever the instances share beside it.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret as _;
use tokenkeep_core::ports::{Bus, Clock, Counter, SharedCache, Store};
use tokenkeep_oauth::Secret;
use tokenkeep_store::{
    Memory, MemoryCounter, Postgres, PostgresOptions, Redis, RedisBus, RedisCache, RedisCounter, RedisOptions, Sqlite,
};

use super::{
    server_url::ServerUrl,
    store::{Choice, Place},
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
    pub(crate) counter: Arc<dyn Counter>,
}

/// What it takes to open them.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) config: &'a Config,
    pub(crate) environment: &'a Environment,
    pub(crate) clock: &'a Arc<dyn Clock>,
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
            backends.counter = Arc::new(RedisCounter::connect(options).await?);
        }
        Ok(backends)
    }

    async fn open_store(&self, choice: &Choice) -> Result<Backends> {
        let counter = Arc::new(MemoryCounter::new(self.clock.clone()));
        let alone = |store: Arc<dyn Store>| Backends { store, bus: None, shared_cache: None, counter };
        match &choice.place {
            Place::Memory => Ok(alone(Arc::new(Memory::new()))),
            Place::Sqlite(path) => Ok(alone(Arc::new(Sqlite::open(path).await?))),
            Place::Postgres(url) => {
                let postgres = Postgres::connect(self.postgres_options(url)?).await?;
                let bus = Arc::new(postgres.bus());
                let counter = Arc::new(postgres.counter());
                Ok(Backends { store: Arc::new(postgres), bus: Some(bus), shared_cache: None, counter })
            }
            Place::Redis(url) => {
                let options = self.redis_options(url)?;
                Ok(Backends {
                    store: Arc::new(Redis::connect(options.clone()).await?),
                    bus: Some(Arc::new(RedisBus::connect(options.clone()).await?)),
                    shared_cache: None,
                    counter: Arc::new(RedisCounter::connect(options).await?),
                })
            }
            other => bail!("{other} cannot be opened yet"),
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
