//! As many as allowed, whoever asks, however many at once.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use sqlx::Row;
use tokenkeep_core::ports::{Counter, Limit, Store, Taken};
use tokenkeep_store::{Postgres, PostgresCounter};
use tokio::sync::Barrier;

use crate::support::Database;

const HOUR: Duration = Duration::from_secs(3600);

fn window(count: u32, per: Duration) -> Limit {
    Limit::Window { count: NonZeroU32::new(count).unwrap(), per }
}

fn bucket(burst: u32, every: Duration) -> Limit {
    Limit::Bucket { burst: NonZeroU32::new(burst).unwrap(), every }
}

/// What 64 are answered that ask at once.
async fn at_once(counter: &PostgresCounter, limit: Limit) -> Vec<Taken> {
    let start = Arc::new(Barrier::new(64));
    let takes: Vec<_> = (0..64)
        .map(|_| {
            let (counter, start) = (counter.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                counter.take("b", limit).await.unwrap()
            })
        })
        .collect();
    let mut taken = Vec::new();
    for take in takes {
        taken.push(take.await.unwrap());
    }
    taken
}

fn granted(taken: &[Taken]) -> usize {
    taken.iter().filter(|taken| **taken == Taken::Granted).count()
}

/// Who was refused waits for less than `most`, and not for much less.
fn waits_are_plausible(taken: &[Taken], most: Duration) {
    for taken in taken {
        if let Taken::Wait(wait) = taken {
            assert!(*wait <= most && *wait > most.mul_f64(0.9), "{wait:?} of {most:?}");
        }
    }
}

async fn counts(store: Postgres) {
    let counter = store.counter();
    let taken = at_once(&counter, window(10, HOUR)).await;
    assert_eq!(granted(&taken), 10);
    waits_are_plausible(&taken, HOUR);

    // Another limit begins anew.
    let taken = at_once(&counter, bucket(5, HOUR)).await;
    assert_eq!(granted(&taken), 5);
    waits_are_plausible(&taken, HOUR);
    assert!(matches!(counter.take("b", bucket(5, HOUR)).await, Ok(Taken::Wait(_))), "nothing came back meanwhile");
    assert_eq!(counter.take("another'b", bucket(5, HOUR)).await.unwrap(), Taken::Granted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_granted_than_allowed() {
    counts(Database::hasty().await.store().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_granted_than_allowed_through_a_pooler() {
    counts(Database::hasty().await.pooled_store().await).await;
}

/// The row is set back instead of waiting.
async fn pass(database: &Database, time: Duration) {
    let micros = time.as_micros();
    database
        .execute(format!(
            "UPDATE tokenkeep.counters SET expires_at = expires_at - {micros},
             taken = (SELECT array_agg(at - {micros}) FROM unnest(taken) AS at)"
        ))
        .await;
}

#[tokio::test]
async fn a_bucket_fills_again_one_by_one_up_to_its_burst() {
    let database = Database::hasty().await;
    let counter = database.store().await.counter();
    let limit = bucket(3, HOUR);
    let take = || async { counter.take("b", limit).await.unwrap() };
    for _ in 0..3 {
        assert_eq!(take().await, Taken::Granted);
    }
    waits_are_plausible(&[take().await], HOUR);
    pass(&database, HOUR / 2).await;
    waits_are_plausible(&[take().await], HOUR / 2);
    pass(&database, HOUR / 2).await;
    assert_eq!(take().await, Taken::Granted);
    waits_are_plausible(&[take().await], HOUR);
    pass(&database, HOUR * 100).await;
    for _ in 0..3 {
        assert_eq!(take().await, Taken::Granted);
    }
    waits_are_plausible(&[take().await], HOUR);
}

#[tokio::test]
async fn a_window_lets_the_oldest_go_first() {
    let database = Database::hasty().await;
    let counter = database.store().await.counter();
    let limit = window(2, HOUR);
    let take = || async { counter.take("b", limit).await.unwrap() };
    assert_eq!(take().await, Taken::Granted);
    pass(&database, HOUR / 2).await;
    assert_eq!(take().await, Taken::Granted);
    waits_are_plausible(&[take().await], HOUR / 2);
    pass(&database, HOUR / 2).await;
    assert_eq!(take().await, Taken::Granted);
    waits_are_plausible(&[take().await], HOUR / 2);
}

#[tokio::test]
async fn what_is_given_back_can_be_taken_again() {
    let database = Database::hasty().await;
    let counter = database.store().await.counter();
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
    // The oldest comes back: the younger counts for its whole time.
    let limit = window(2, HOUR);
    counter.take("old", limit).await.unwrap();
    pass(&database, HOUR / 2).await;
    counter.take("old", limit).await.unwrap();
    counter.give_back("old", limit).await.unwrap();
    counter.take("old", limit).await.unwrap();
    let Ok(Taken::Wait(wait)) = counter.take("old", limit).await else { panic!("it is full") };
    assert!(wait > HOUR.mul_f64(0.9), "{wait:?}");
}

#[tokio::test]
async fn the_sweep_takes_buckets_that_are_as_good_as_new() {
    let database = Database::hasty().await;
    let store = database.store().await;
    let counter = store.counter();
    counter.take("old bucket", bucket(3, HOUR)).await.unwrap();
    counter.take("old window", window(3, HOUR)).await.unwrap();
    pass(&database, HOUR).await;
    counter.take("new bucket", bucket(3, HOUR)).await.unwrap();
    counter.take("new window", window(3, HOUR)).await.unwrap();
    assert_eq!(store.sweep(jiff::Timestamp::MIN).await.unwrap(), 0, "buckets are no records");
    let left = database.row("SELECT string_agg(bucket, ', ' ORDER BY bucket) FROM tokenkeep.counters").await;
    assert_eq!(left.get::<String, _>(0), "new bucket, new window");
}

#[tokio::test]
async fn limits_of_any_size_are_kept() {
    let database = Database::hasty().await;
    let counter = database.store().await.counter();
    let forever = Duration::MAX;
    for (name, limit) in [
        ("a", bucket(u32::MAX, forever)),
        ("b", bucket(1, Duration::from_micros(1))),
        ("c", window(10_000, forever)),
        ("d", window(1, Duration::from_millis(1))),
    ] {
        assert_eq!(counter.take(name, limit).await.unwrap(), Taken::Granted, "{limit:?}");
    }
    assert!(matches!(counter.take("a", bucket(1, forever)).await, Ok(Taken::Granted)));
    assert!(
        matches!(counter.take("a", bucket(1, forever)).await, Ok(Taken::Wait(wait)) if wait > HOUR * 24 * 365 * 100)
    );
}
