//! Copies that instances leave for each other.

use std::{sync::Arc, time::Duration};

use redis::Value;
use tokenkeep_core::ports::{BoxFuture, SharedCache, SharedCacheDescription, SharedCacheError};

use super::{
    error::Failure,
    link::{Call, Link},
    open::{self, OpenError},
    options::RedisOptions,
    scripts,
};

/// A [`SharedCache`] in Redis. It may be a server that throws keys away: no copy is the only one.
#[derive(Clone, Debug)]
pub struct RedisCache {
    link: Arc<Link>,
}

/// How many digits a rank has before its copy.
const RANK: usize = 20;

/// How many floors are raised at once.
const BITE: usize = 200;

impl RedisCache {
    /// Connects. What a [`Redis`](super::Redis) demands of a server to keep records is not demanded here.
    pub async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        Ok(Self { link: Arc::new(open::connect(options).await?) })
    }

    fn keys(&self, key: &str) -> (usize, String, String) {
        let shard = self.link.shard_of(key);
        let prefix = self.link.prefix(shard);
        (shard, format!("{prefix}l2:{key}"), format!("{prefix}floor:{key}"))
    }
}

impl SharedCache for RedisCache {
    fn describe(&self) -> SharedCacheDescription {
        SharedCacheDescription { name: "redis", location: self.link.options.location() }
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, SharedCacheError>> {
        Box::pin(async move {
            let (shard, copy, _) = self.keys(key);
            let mut command = redis::cmd("GET");
            command.arg(copy);
            match self.link.read(shard, &command).await.map_err(unavailable)? {
                Value::Nil => Ok(None),
                Value::BulkString(mut copy) if copy.len() >= RANK => Ok(Some(copy.split_off(RANK))),
                _ => Err(SharedCacheError { reason: "a value of no known form".into() }),
            }
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        rank: u64,
        sealed: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, SharedCacheError>> {
        Box::pin(async move {
            let (shard, copy, floor) = self.keys(key);
            let rank = digits(rank);
            let value = [rank.as_bytes(), sealed].concat();
            let call = Call::default().key(copy).key(floor).arg(rank).arg(value).arg(milliseconds(life));
            let put = self.link.write(shard, &scripts::CACHE_PUT, &call, false).await.map_err(unavailable)?;
            Ok(put == Value::Int(1))
        })
    }

    fn raise<'a>(&'a self, floors: &'a [(String, u64)], life: Duration) -> BoxFuture<'a, Result<(), SharedCacheError>> {
        Box::pin(async move {
            let mut shards: Vec<Vec<(String, String, String)>> = vec![Vec::new(); self.link.shards()];
            for (key, rank) in floors {
                let (shard, copy, floor) = self.keys(key);
                shards[shard].push((copy, floor, digits(*rank)));
            }
            for (shard, floors) in shards.into_iter().enumerate() {
                for bite in floors.chunks(BITE) {
                    let mut call = Call::default().arg(milliseconds(life));
                    for (copy, floor, rank) in bite {
                        call = call.key(copy.as_str()).key(floor.as_str()).arg(rank.as_str());
                    }
                    self.link.write(shard, &scripts::CACHE_RAISE, &call, false).await.map_err(unavailable)?;
                }
            }
            Ok(())
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SharedCacheError>> {
        Box::pin(async move { self.link.read(0, &redis::cmd("PING")).await.map(drop).map_err(unavailable) })
    }
}

fn digits(rank: u64) -> String {
    format!("{rank:0RANK$}")
}

/// At least one, and no more than ten years: Redis knows neither none nor for ever here.
fn milliseconds(life: Duration) -> String {
    life.as_millis().clamp(1, 10 * 366 * 86_400_000).to_string()
}

fn unavailable(failure: Failure) -> SharedCacheError {
    SharedCacheError { reason: failure.reason() }
}
