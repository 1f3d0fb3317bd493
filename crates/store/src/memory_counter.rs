//! Counting in this process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokenkeep_core::{
    Boot,
    ports::{BoxFuture, Clock, Counter, CounterError, Limit, Taken},
};

/// A counter of one process, for where instances share none: each then grants the whole limit by itself.
#[derive(Debug)]
pub struct MemoryCounter {
    clock: Arc<dyn Clock>,
    buckets: Mutex<HashMap<String, Bucket>>,
}

/// What was taken, under which limit.
#[derive(Debug)]
struct Bucket {
    limit: Limit,
    state: State,
}

#[derive(Debug)]
enum State {
    /// When the bucket is full again.
    FullAt(Boot),
    /// When each of those was taken that still count.
    Taken(VecDeque<Boot>),
}

/// So many buckets are kept; beyond that, those that are as good as new are forgotten.
const TIDY_AT: usize = 4096;

impl MemoryCounter {
    /// With nothing taken yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, buckets: Mutex::default() }
    }

    fn take_now(&self, name: &str, limit: Limit) -> Taken {
        let now = self.clock.now().boot;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= TIDY_AT && !buckets.contains_key(name) {
            buckets.retain(|_, bucket| !bucket.is_new(now));
        }
        let fresh = || Bucket::new(limit, now);
        let bucket = buckets.entry(name.to_owned()).or_insert_with(fresh);
        if bucket.limit != limit {
            *bucket = fresh();
        }
        bucket.take(now)
    }
}

impl Counter for MemoryCounter {
    fn take<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<Taken, CounterError>> {
        Box::pin(async move { Ok(self.take_now(bucket, limit)) })
    }
}

impl Bucket {
    fn new(limit: Limit, now: Boot) -> Self {
        let state = match limit {
            Limit::Bucket { .. } => State::FullAt(now),
            Limit::Window { .. } => State::Taken(VecDeque::new()),
        };
        Self { limit, state }
    }

    fn is_new(&self, now: Boot) -> bool {
        match (&self.state, self.limit) {
            (State::FullAt(at), _) => *at <= now,
            (State::Taken(taken), Limit::Window { per, .. }) => taken.back().is_none_or(|last| now.since(*last) >= per),
            (State::Taken(taken), Limit::Bucket { .. }) => taken.is_empty(),
        }
    }

    fn take(&mut self, now: Boot) -> Taken {
        match (&mut self.state, self.limit) {
            (State::FullAt(full_at), Limit::Bucket { burst, every }) => {
                let after = (*full_at).max(now) + every;
                let furthest = now + every.saturating_mul(burst.get());
                if after > furthest {
                    return Taken::Wait(after.since(furthest));
                }
                *full_at = after;
                Taken::Granted
            }
            (State::Taken(taken), Limit::Window { count, per }) => {
                while taken.front().is_some_and(|first| now.since(*first) >= per) {
                    taken.pop_front();
                }
                match taken.front() {
                    Some(first) if taken.len() >= count.get() as usize => {
                        Taken::Wait(per.saturating_sub(now.since(*first)).max(Duration::from_micros(1)))
                    }
                    _ => {
                        taken.push_back(now);
                        Taken::Granted
                    }
                }
            }
            // The state is made for its limit, and replaced with it.
            (State::FullAt(_), Limit::Window { .. }) | (State::Taken(_), Limit::Bucket { .. }) => Taken::Granted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(seconds))
    }

    fn n(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_at_a_time() {
        let mut bucket = Bucket::new(Limit::Bucket { burst: n(3), every: Duration::from_secs(10) }, at(0));
        for _ in 0..3 {
            assert_eq!(bucket.take(at(0)), Taken::Granted);
        }
        assert_eq!(bucket.take(at(4)), Taken::Wait(Duration::from_secs(6)));
        assert_eq!(bucket.take(at(10)), Taken::Granted);
        assert_eq!(bucket.take(at(10)), Taken::Wait(Duration::from_secs(10)));
        assert!(!bucket.is_new(at(39)) && bucket.is_new(at(40)));
        for _ in 0..3 {
            assert_eq!(bucket.take(at(1000)), Taken::Granted, "it never holds more than its burst");
        }
        assert!(matches!(bucket.take(at(1000)), Taken::Wait(_)));
    }

    #[test]
    fn no_window_wherever_it_begins_holds_more_than_its_count() {
        let per = Duration::from_secs(60);
        let mut bucket = Bucket::new(Limit::Window { count: n(10), per }, at(0));
        let granted: Vec<u64> = (0..600).filter(|s| bucket.take(at(*s)) == Taken::Granted).collect();
        assert_eq!(granted.len(), 100);
        for first in &granted {
            let within = granted.iter().filter(|s| (*first..first + 60).contains(s)).count();
            assert!(within <= 10, "{within} in the minute from {first}");
        }
        assert_eq!(bucket.take(at(599)), Taken::Wait(Duration::from_secs(1)));
    }
}
