//! Copies, ranks and floors.

use std::{sync::Arc, time::Duration};

use tokenkeep_core::ports::SharedCache;
use tokenkeep_store::RedisCache;
use tokio::sync::Barrier;

use crate::help::{Servers, User};

const LIFE: Duration = Duration::from_secs(600);

async fn each(test: impl AsyncFn(RedisCache, User)) {
    for servers in [Servers::one(), Servers::cluster()] {
        let user = User::new(servers);
        test(RedisCache::connect(user.options()).await.unwrap(), user).await;
    }
}

#[tokio::test]
async fn a_copy_gives_way_to_its_like_and_its_betters_only() {
    each(async |cache, _| {
        let copy = async || cache.get("a").await.unwrap();
        assert_eq!(copy().await, None);
        assert!(cache.put("a", 5, b"\0five\n", LIFE).await.unwrap());
        assert_eq!(copy().await.as_deref(), Some(&b"\0five\n"[..]));
        assert!(!cache.put("a", 4, b"four", LIFE).await.unwrap());
        assert_eq!(copy().await.as_deref(), Some(&b"\0five\n"[..]));
        assert!(cache.put("a", 5, b"", LIFE).await.unwrap());
        assert_eq!(copy().await.as_deref(), Some(&b""[..]));
        for rank in [10, u64::MAX - 1, u64::MAX] {
            assert!(cache.put("a", rank, b"higher", LIFE).await.unwrap());
            assert!(!cache.put("a", rank - 1, b"lower", LIFE).await.unwrap(), "below {rank}");
        }
        assert_eq!(cache.get("b").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_floor_drops_what_is_lower_and_lets_none_in() {
    each(async |cache, _| {
        cache.put("a", 5, b"five", LIFE).await.unwrap();
        cache.put("b", 7, b"seven", LIFE).await.unwrap();
        let floors: Vec<_> = ["a", "b", "c"].map(|key| (key.to_owned(), 6)).to_vec();
        cache.raise(&floors, LIFE).await.unwrap();
        assert_eq!(cache.get("a").await.unwrap(), None);
        assert_eq!(cache.get("b").await.unwrap().as_deref(), Some(&b"seven"[..]));
        assert!(!cache.put("c", 5, b"late", LIFE).await.unwrap());
        cache.raise(&[("c".into(), 2)], LIFE).await.unwrap();
        assert!(!cache.put("c", 5, b"late", LIFE).await.unwrap(), "a floor was lowered");
        assert!(cache.put("c", 6, b"six", LIFE).await.unwrap(), "a floor of the same rank gives way");
        // A copy that goes before its floor leaves the floor behind.
        assert!(cache.put("a", 9, b"nine", Duration::from_nanos(1)).await.unwrap());
        while cache.get("a").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        assert!(!cache.put("a", 5, b"late", LIFE).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn what_is_left_ends() {
    let user = User::new(Servers::one());
    let cache = RedisCache::connect(user.options()).await.unwrap();
    cache.put("a", 5, b"five", LIFE).await.unwrap();
    cache.raise(&[("a".into(), 1)], Duration::MAX).await.unwrap();
    for name in ["l2", "floor"] {
        let ttl = user.servers.0[0].command(&["TTL", &format!("{}{name}:a", user.prefix())]).unwrap();
        let digits: String = ttl.chars().filter(char::is_ascii_digit).collect();
        assert!(!ttl.contains('-') && digits.parse::<u64>().unwrap() > 500, "{name}: {ttl}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranks_never_go_down_under_32_writers() {
    each(async |cache, _| {
        let start = Arc::new(Barrier::new(33));
        let writers: Vec<_> = (0..32_u64)
            .map(|writer| {
                let (cache, start) = (cache.clone(), start.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    for step in 0..12_u64 {
                        // Each in another order, up and down.
                        let rank = (writer * 7 + step * 11) % 64;
                        if step % 3 == 0 {
                            cache.raise(&[("a".into(), rank)], LIFE).await.unwrap();
                        } else {
                            cache.put("a", rank, &rank.to_be_bytes(), LIFE).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        start.wait().await;
        let mut highest = 0;
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            if let Some(copy) = cache.get("a").await.unwrap() {
                let rank = u64::from_be_bytes(copy.try_into().unwrap());
                assert!(rank >= highest, "{rank} after {highest}");
                highest = rank;
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(!cache.put("a", 62, b"late", LIFE).await.unwrap(), "63 was there, as a copy or as a floor");
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_said() {
    each(async |cache, user| {
        cache.put("a", 5, b"five", LIFE).await.unwrap();
        user.lock_out();
        assert!(cache.get("a").await.is_err());
        assert!(cache.put("a", 6, b"six", LIFE).await.is_err());
        assert!(cache.raise(&[("a".into(), 6)], LIFE).await.is_err());
        assert!(cache.ping().await.is_err());
        user.let_in();
        cache.ping().await.unwrap();
        assert_eq!(cache.get("a").await.unwrap().as_deref(), Some(&b"five"[..]));
    })
    .await;
}
