//! Limits over all instances.

use std::{num::NonZeroU32, time::Duration};

use tokenkeep_core::ports::{Counter, Limit, Taken};
use tokenkeep_store::RedisCounter;

use crate::help::{Servers, User};

const HOUR: Duration = Duration::from_secs(3600);

fn window(count: u32, per: Duration) -> Limit {
    Limit::Window { count: NonZeroU32::new(count).unwrap(), per }
}

fn bucket(burst: u32, every: Duration) -> Limit {
    Limit::Bucket { burst: NonZeroU32::new(burst).unwrap(), every }
}

async fn each(test: impl AsyncFn(RedisCounter, User)) {
    for servers in [Servers::one(), Servers::cluster()] {
        let user = User::new(servers);
        test(RedisCounter::connect(user.options()).await.unwrap(), user).await;
    }
}

/// How many of 64 at once are granted; the others must wait, and no longer than the limit can demand.
async fn granted_of_64(counter: &RedisCounter, name: &'static str, limit: Limit, longest: Duration) -> usize {
    let takes: Vec<_> = (0..64)
        .map(|_| {
            let counter = counter.clone();
            tokio::spawn(async move { counter.take(name, limit).await.unwrap() })
        })
        .collect();
    let mut granted = 0;
    for take in takes {
        match take.await.unwrap() {
            Taken::Granted => granted += 1,
            Taken::Wait(wait) => assert!(!wait.is_zero() && wait <= longest, "{wait:?}"),
        }
    }
    granted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_granted_than_the_limit_allows() {
    each(async |counter, _| {
        assert_eq!(granted_of_64(&counter, "window", window(10, HOUR), HOUR).await, 10);
        assert_eq!(granted_of_64(&counter, "bucket", bucket(5, HOUR), HOUR).await, 5);
        assert_eq!(granted_of_64(&counter, "other", bucket(5, HOUR), HOUR).await, 5);
        // The longest that can be said is not too long.
        assert_eq!(granted_of_64(&counter, "long", window(1, Duration::MAX), Duration::MAX).await, 1);
        assert_eq!(granted_of_64(&counter, "longer", bucket(7, Duration::MAX), Duration::MAX).await, 7);
    })
    .await;
}

#[tokio::test]
async fn another_limit_begins_anew() {
    each(async |counter, _| {
        let limits = [window(1, HOUR), bucket(1, HOUR), window(1, HOUR), window(2, HOUR), bucket(1, HOUR * 2)];
        for limit in limits {
            assert_eq!(counter.take("a", limit).await.unwrap(), Taken::Granted, "{limit:?}");
        }
        assert!(matches!(counter.take("a", limits[4]).await.unwrap(), Taken::Wait(_)));
    })
    .await;
}

#[tokio::test]
async fn what_comes_back_is_granted_again() {
    each(async |counter, _| {
        for limit in [window(1, Duration::from_millis(20)), bucket(1, Duration::from_millis(20))] {
            for _ in 0..3 {
                // Asked until it is so: the time is the server's, and what it says is kept.
                let mut waited = 0;
                while counter.take("a", limit).await.unwrap() != Taken::Granted {
                    waited += 1;
                    assert!(waited < 1_000_000, "{limit:?} never comes back");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_given_back_can_be_taken_again() {
    each(async |counter, _| {
        for (name, limit) in [("w", window(2, HOUR)), ("b", bucket(2, HOUR))] {
            counter.give_back(name, limit).await.unwrap();
            for _ in 0..2 {
                assert_eq!(counter.take(name, limit).await.unwrap(), Taken::Granted);
            }
            counter.give_back(name, limit).await.unwrap();
            assert_eq!(counter.take(name, limit).await.unwrap(), Taken::Granted);
            for _ in 0..3 {
                counter.give_back(name, limit).await.unwrap();
            }
            for _ in 0..2 {
                assert_eq!(counter.take(name, limit).await.unwrap(), Taken::Granted, "{name}: no more than there are");
            }
            counter.give_back(name, window(3, HOUR)).await.unwrap();
            assert!(matches!(counter.take(name, limit).await, Ok(Taken::Wait(_))), "{name}: that was another limit's");
        }
    })
    .await;
}

#[tokio::test]
async fn a_bucket_ends_by_itself() {
    let user = User::new(Servers::one());
    let counter = RedisCounter::connect(user.options()).await.unwrap();
    for (name, limit) in [("w", window(3, HOUR)), ("b", bucket(3, HOUR))] {
        counter.take(name, limit).await.unwrap();
        let ttl = user.servers.0[0].command(&["PTTL", &format!("{}limit:{name}", user.prefix())]).unwrap();
        let digits: String = ttl.chars().filter(char::is_ascii_digit).collect();
        assert!((3_000_000..=3 * 3_600_001).contains(&digits.parse::<u64>().unwrap()), "{name}: {ttl}");
    }
}

#[tokio::test]
async fn an_outage_is_neither_granted_nor_refused() {
    each(async |counter, user| {
        user.lock_out();
        assert!(counter.take("a", window(1, HOUR)).await.is_err());
        user.let_in();
        assert_eq!(counter.take("a", window(1, HOUR)).await.unwrap(), Taken::Granted);
    })
    .await;
}
