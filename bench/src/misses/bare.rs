//! The plainest read of each driver. A new store is one variant here, and one line in [`store`].

use std::sync::Arc;

use anyhow::{bail, ensure};
use sqlx::{Row as _, postgres::PgPoolOptions};
use tokenkeep_core::ports::Store;
use tokenkeep_engine::system::{SystemClock, SystemEntropy};
use tokenkeep_store::{Postgres, PostgresOptions, Redis, RedisOptions, Vault, VaultAuth, VaultOptions, VaultServer};

use crate::cluster::backend::{Backend, Kind};

/// The store itself, as `tokenkeep serve` opens it.
pub async fn store(kind: Kind, backend: &Backend) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match kind {
        Kind::Postgres => Arc::new(Postgres::connect(PostgresOptions::new(backend.store_url.clone())).await?),
        Kind::Redis => Arc::new(Redis::connect(RedisOptions::new(&backend.store_url)?).await?),
        Kind::Vault => {
            let (address, token) = backend.vault()?;
            let server = VaultServer::new(address, VaultAuth::Token(token.into()), Arc::new(SystemClock));
            Arc::new(Vault::connect(VaultOptions::new(server, Arc::new(SystemEntropy))).await?)
        }
        _ => bail!("{kind:?} is not measured"),
    })
}

/// The driver alone, with as many connections as the store has.
pub enum Bare {
    Postgres(sqlx::PgPool),
    Redis(redis::aio::MultiplexedConnection),
    /// With the address and the token.
    Vault(reqwest::Client, String, String),
}

impl Bare {
    /// `environment`: what a process of its own would find there.
    pub async fn connect(kind: Kind, url: &str, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Postgres => {
                let like = PostgresOptions::new(url);
                Self::Postgres(PgPoolOptions::new().max_connections(like.pool_size).connect(url).await?)
            }
            Kind::Redis => Self::Redis(redis::Client::open(url)?.get_multiplexed_async_connection().await?),
            Kind::Vault => {
                // There is another provider than the one that is asked for only if this was done before.
                let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
                let given = environment.iter().find(|(name, _)| *name == "VAULT_TOKEN").map(|(_, token)| token.clone());
                let token = given.map_or_else(|| std::env::var("VAULT_TOKEN"), Ok)?;
                let address = url.replace("vault+http", "http");
                let address = address.trim_end_matches("/secret/tokenkeep").to_owned();
                Self::Vault(reqwest::Client::new(), address, token)
            }
            _ => bail!("{kind:?} is not measured"),
        })
    }

    /// Stores `count` values of `size` bytes.
    pub async fn fill(&self, count: usize, size: usize) -> anyhow::Result<()> {
        match self {
            Self::Postgres(pool) => {
                sqlx::query("CREATE TABLE bare (id text PRIMARY KEY, value bytea NOT NULL)").execute(pool).await?;
                let ids: Vec<String> = (0..count).map(key).collect();
                sqlx::query("INSERT INTO bare SELECT unnest($1::text[]), $2")
                    .bind(ids)
                    .bind(vec![7_u8; size])
                    .execute(pool)
                    .await?;
                // As a table is that has been there for a while.
                sqlx::query("ANALYZE").execute(pool).await?;
            }
            Self::Redis(connection) => {
                let mut pipeline = redis::pipe();
                (0..count).for_each(|n| {
                    pipeline.set(bare_key(n), vec![7_u8; size]).ignore();
                });
                pipeline.query_async::<()>(&mut connection.clone()).await?;
            }
            Self::Vault(client, address, token) => {
                // The sealed bytes stand in JSON, as base64.
                let body = serde_json::json!({ "value": "x".repeat(size * 4 / 3) }).to_string();
                for n in 0..count {
                    let put = client.put(format!("{address}/v1/secret/bare/{n}")).header("X-Vault-Token", token);
                    put.body(body.clone()).send().await?.error_for_status()?;
                }
            }
        }
        Ok(())
    }

    /// Reads one of them.
    pub async fn read(&self, n: usize) -> anyhow::Result<()> {
        let length = match self {
            Self::Postgres(pool) => {
                let row = sqlx::query("SELECT value FROM bare WHERE id = $1").bind(key(n)).fetch_one(pool).await?;
                row.try_get::<&[u8], _>(0)?.len()
            }
            Self::Redis(connection) => {
                let get = redis::cmd("GET").arg(bare_key(n)).take();
                get.query_async::<Vec<u8>>(&mut connection.clone()).await?.len()
            }
            Self::Vault(client, address, token) => {
                let get = client.get(format!("{address}/v1/secret/bare/{n}")).header("X-Vault-Token", token);
                let reply = get.send().await?.error_for_status()?.bytes().await?;
                let secret: serde_json::Value = serde_json::from_slice(&reply)?;
                secret["data"]["value"].as_str().map_or(0, str::len)
            }
        };
        ensure!(length > 0, "an empty value");
        Ok(())
    }
}

fn key(n: usize) -> String {
    format!("google/_default/s-{n:05}")
}

/// Beside the store's own keys.
fn bare_key(n: usize) -> String {
    format!("bare:{}", key(n))
}
