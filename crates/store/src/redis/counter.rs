//! What may happen only so often, over all instances.

use std::{sync::Arc, time::Duration};

use tokenkeep_core::ports::{BoxFuture, Counter, CounterError, Limit, Taken};

use super::{
    error::Failure,
    link::{Call, Link},
    open::{self, OpenError},
    options::RedisOptions,
    scripts::{self, Script},
};

/// A [`Counter`] in Redis, by Redis' clock. What it forgets when the server ends may happen once more.
#[derive(Clone, Debug)]
pub struct RedisCounter {
    link: Arc<Link>,
}

impl RedisCounter {
    /// Connects. What a [`Redis`](super::Redis) demands of a server to keep records is not demanded here.
    pub async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        Ok(Self { link: Arc::new(open::connect(options).await?) })
    }

    /// Runs a script of the bucket, which is told its limit.
    async fn run(&self, script: &Script, bucket: &str, limit: Limit) -> Result<u64, CounterError> {
        let (form, count, time) = match limit {
            Limit::Bucket { burst, every } => ("bucket", u64::from(burst.get()), microseconds(every, burst.get())),
            Limit::Window { count, per } => ("window", u64::from(count.get().min(10_000)), microseconds(per, 1)),
        };
        let shard = self.link.shard_of(bucket);
        let call = Call::default()
            .key(format!("{}limit:{bucket}", self.link.prefix(shard)))
            .arg(format!("{form} {count} {time}"))
            .arg(form)
            .arg(count.to_string())
            .arg(time.to_string());
        let answer = self.link.write(shard, script, &call, false).await.map_err(unavailable)?;
        redis::from_redis_value(answer).map_err(|_| CounterError { reason: "an answer of no known form".into() })
    }
}

impl Counter for RedisCounter {
    fn take<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<Taken, CounterError>> {
        Box::pin(async move {
            match self.run(&scripts::TAKE, bucket, limit).await? {
                0 => Ok(Taken::Granted),
                wait => Ok(Taken::Wait(Duration::from_micros(wait))),
            }
        })
    }

    fn give_back<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<(), CounterError>> {
        Box::pin(async move { self.run(&scripts::GIVE_BACK, bucket, limit).await.map(drop) })
    }
}

/// So many that `times` of them are still counted exactly by a script, which knows floating point only: 30 years.
fn microseconds(time: Duration, times: u32) -> u128 {
    const MOST: u128 = 1_000_000_000_000_000;
    time.as_micros().clamp(1, (MOST / u128::from(times)).max(1))
}

fn unavailable(failure: Failure) -> CounterError {
    CounterError { reason: failure.reason() }
}
