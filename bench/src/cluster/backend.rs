//! The stores under test, each with servers of its own that may be killed.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tokenkeep_services::{Cluster, Postgres, REDIS_PASSWORD, Redis, Sentinel, Vault};

use super::{
    fleet::{Plan, SEALING_KEY},
    upstream::Upstream,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One file, several processes.
    Sqlite,
    /// PostgreSQL, with a Redis in front as cache and bus.
    Postgres,
    /// One Redis and nothing else.
    Redis,
    /// A Redis primary, its replica and three Sentinels.
    RedisSentinel,
    /// A Redis Cluster of three primaries with a replica each.
    RedisCluster,
    /// A Vault with KV version 1, which only one instance may write to.
    Vault,
}

impl Kind {
    /// As the command line has it.
    pub fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A store that runs.
#[derive(Clone)]
pub struct Backend {
    pub kind: Kind,
    pub store_url: String,
    /// A Redis in front of it, as cache and bus.
    pub cache_url: Option<String>,
    pub servers: Arc<Servers>,
}

/// What runs for it.
pub enum Servers {
    None,
    Postgres { postgres: Postgres, redis: Redis },
    Redis(Redis),
    Sentinel(Sentinel),
    Cluster(Cluster),
    Vault(Vault),
}

const DATABASE: &str = "tokenkeep";

impl Backend {
    pub async fn start(kind: Kind, ground: &Path) -> anyhow::Result<Self> {
        let file = ground.join("shared.db");
        blocking(move || Self::start_now(kind, &file)).await
    }

    fn start_now(kind: Kind, file: &Path) -> anyhow::Result<Self> {
        let (store_url, cache_url, servers) = match kind {
            Kind::Sqlite => (format!("sqlite:{}", file.display()), None, Servers::None),
            Kind::Postgres => {
                let (postgres, redis) = (Postgres::start()?, Redis::start()?);
                postgres.sql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
                (postgres.url(DATABASE), Some(redis.url()), Servers::Postgres { postgres, redis })
            }
            Kind::Redis => {
                let redis = Redis::start()?;
                (redis.url(), None, Servers::Redis(redis))
            }
            Kind::RedisSentinel => {
                let sentinel = Sentinel::start()?;
                // The servers want a password, the Sentinels none.
                let hosts = joined(&sentinel.urls())?.replace("redis://", "");
                let url = format!("redis+sentinel://:{REDIS_PASSWORD}@{hosts}/{}", Sentinel::PRIMARY_NAME);
                (url, None, Servers::Sentinel(sentinel))
            }
            Kind::RedisCluster => {
                let cluster = Cluster::start()?;
                (joined(&cluster.urls())?, None, Servers::Cluster(cluster))
            }
            Kind::Vault => {
                let vault = Vault::start()?;
                (format!("vault+http://127.0.0.1:{}/secret/tokenkeep", vault.port()), None, Servers::Vault(vault))
            }
        };
        Ok(Self { kind, store_url, cache_url, servers: Arc::new(servers) })
    }

    /// How many connections a storm has where nobody says.
    pub fn usual_connections(&self) -> usize {
        match self.kind {
            Kind::Sqlite | Kind::Vault => 1_000,
            _ => 10_000,
        }
    }

    /// An instance on this store, with its cache in front.
    pub fn plan(&self, binary: &Path, upstream: &Upstream, preload_seconds: u64) -> Plan {
        let cache =
            self.cache_url.as_ref().map(|url| format!("[cache]\nredis_url = \"{url}\"\n\n")).unwrap_or_default();
        self.plan_with(binary, upstream, preload_seconds, &cache)
    }

    /// An instance that sees nothing but the store.
    pub fn bare_plan(&self, binary: &Path, upstream: &Upstream) -> Plan {
        self.plan_with(binary, upstream, NEVER, "")
    }

    fn plan_with(&self, binary: &Path, upstream: &Upstream, preload_seconds: u64, more: &str) -> Plan {
        let config = format!(
            "[store]\nurl = \"{}\"\n\n[sealing]\nkey = \"{SEALING_KEY}\"\n\n[refresh]\ninterval = {preload_seconds}\n\n\
             {more}{}",
            self.store_url,
            upstream.config()
        );
        let environment = self.environment();
        Plan { binary: binary.to_owned(), config, environment }
    }

    /// Variables that a process needs to use it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match &*self.servers {
            Servers::Vault(vault) => vec![("VAULT_TOKEN", vault.root_token().to_owned())],
            _ => Vec::new(),
        }
    }

    /// Where its Vault is, and the token for it.
    pub fn vault(&self) -> anyhow::Result<(String, String)> {
        match &*self.servers {
            Servers::Vault(vault) => Ok((vault.address(), vault.root_token().to_owned())),
            _ => bail!("no Vault"),
        }
    }

    /// Does something to the servers, away from the runtime: it waits.
    pub async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Servers) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let servers = self.servers.clone();
        blocking(move || act(&servers)).await
    }
}

/// Servers are started and ended by functions that wait.
pub async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(act).await.context("it broke")?
}

/// `redis://:password@a:1` and `redis://:password@b:2` as one URL.
fn joined(urls: &[String]) -> anyhow::Result<String> {
    let Some((first, others)) = urls.split_first() else { bail!("a cluster has nodes") };
    let host = |url: &String| url.rsplit(['@', '/']).find(|part| !part.is_empty()).map(str::to_owned);
    let others = others.iter().map(|url| host(url).context("a URL has a host")).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(std::iter::once(first.trim_end_matches('/').to_owned()).chain(others).collect::<Vec<_>>().join(","))
}

/// A preloader that looks once at start and never again.
pub const NEVER: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn the_nodes_of_a_cluster_are_one_url() {
        let urls = ["redis://:pw@127.0.0.1:1".to_owned(), "redis://:pw@127.0.0.1:2/".to_owned()];
        assert_eq!(joined(&urls).unwrap(), "redis://:pw@127.0.0.1:1,127.0.0.1:2");
    }
}
