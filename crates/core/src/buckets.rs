//! Counting what may happen only so often, for one process: the rules of [`crate::ports::Counter`] without its I/O.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use crate::{
    Boot,
    ports::{Limit, Taken},
};

/// What was taken from each bucket.
#[derive(Debug, Default)]
pub struct Buckets {
    buckets: HashMap<String, Bucket>,
    /// So many were left when those that were as good as new were last forgotten.
    kept: usize,
}

/// So many buckets are kept before any is forgotten.
const TIDY_AT: usize = 4096;

impl Buckets {
    /// Takes one from the bucket of that name, or says how long there will be none. A bucket belongs to the limit it is
    /// used with: asking with another one begins it anew.
    pub fn take(&mut self, name: &str, limit: Limit, now: Boot) -> Taken {
        self.take_part(name, limit, NonZeroU32::MIN, now)
    }

    /// The same where `sharers` count for themselves, and each is to be content with its part: at least one.
    pub fn take_part(&mut self, name: &str, limit: Limit, sharers: NonZeroU32, now: Boot) -> Taken {
        self.bucket(name, limit, now).take(sharers, now)
    }

    /// Notes that one was taken, whether or not it was there.
    pub fn note(&mut self, name: &str, limit: Limit, now: Boot) {
        self.bucket(name, limit, now).note(now);
    }

    /// Gives back one that was taken and not used; of a window, the oldest.
    pub fn give_back(&mut self, name: &str, limit: Limit) {
        if let Some(bucket) = self.buckets.get_mut(name).filter(|bucket| bucket.limit == limit) {
            bucket.give_back();
        }
    }

    /// How many were taken from that bucket that are not back yet.
    pub fn missing(&mut self, name: &str, limit: Limit, now: Boot) -> u32 {
        self.buckets.get_mut(name).filter(|bucket| bucket.limit == limit).map_or(0, |bucket| bucket.missing(now))
    }

    fn bucket(&mut self, name: &str, limit: Limit, now: Boot) -> &mut Bucket {
        // Not before they have doubled: where all are in use, looking at each for every new one would take long.
        if self.buckets.len() >= TIDY_AT.max(2 * self.kept) && !self.buckets.contains_key(name) {
            self.buckets.retain(|_, bucket| bucket.missing(now) > 0);
            self.kept = self.buckets.len();
        }
        let bucket = self.buckets.entry(name.to_owned()).or_insert_with(|| Bucket::new(limit, now));
        if bucket.limit != limit {
            *bucket = Bucket::new(limit, now);
        }
        bucket
    }
}

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

impl Bucket {
    fn new(limit: Limit, now: Boot) -> Self {
        let state = match limit {
            Limit::Bucket { .. } => State::FullAt(now),
            Limit::Window { .. } => State::Taken(VecDeque::new()),
        };
        Self { limit, state }
    }

    fn take(&mut self, sharers: NonZeroU32, now: Boot) -> Taken {
        self.forget_what_is_back(now);
        let part = |all: NonZeroU32| (all.get() / sharers).max(1);
        match (&mut self.state, self.limit) {
            (State::FullAt(full_at), Limit::Bucket { burst, every }) => {
                let every = every.saturating_mul(sharers.get());
                let after = (*full_at).max(now) + every;
                let furthest = now + every.saturating_mul(part(burst));
                if after > furthest {
                    return Taken::Wait(after.since(furthest));
                }
                *full_at = after;
            }
            (State::Taken(taken), Limit::Window { count, per }) => {
                let room = part(count) as usize;
                if let Some(oldest) = taken.len().checked_sub(room).and_then(|at| taken.get(at)) {
                    return Taken::Wait(per.saturating_sub(now.since(*oldest)).max(Duration::from_micros(1)));
                }
                taken.push_back(now);
            }
            // The state is made for its limit, and replaced with it.
            (State::FullAt(_), Limit::Window { .. }) | (State::Taken(_), Limit::Bucket { .. }) => {}
        }
        Taken::Granted
    }

    fn note(&mut self, now: Boot) {
        self.forget_what_is_back(now);
        match (&mut self.state, self.limit) {
            (State::FullAt(full_at), Limit::Bucket { burst, every }) => {
                let furthest = now + every.saturating_mul(burst.get());
                *full_at = ((*full_at).max(now) + every).min(furthest);
            }
            (State::Taken(taken), Limit::Window { count, .. }) => {
                if taken.len() >= count.get() as usize {
                    taken.pop_front();
                }
                taken.push_back(now);
            }
            (State::FullAt(_), Limit::Window { .. }) | (State::Taken(_), Limit::Bucket { .. }) => {}
        }
    }

    fn give_back(&mut self) {
        match (&mut self.state, self.limit) {
            (State::FullAt(full_at), Limit::Bucket { every, .. }) => full_at.0 = full_at.0.saturating_sub(every),
            (State::FullAt(_), Limit::Window { .. }) => {}
            (State::Taken(taken), _) => drop(taken.pop_front()),
        }
    }

    fn missing(&mut self, now: Boot) -> u32 {
        self.forget_what_is_back(now);
        let missing = match (&self.state, self.limit) {
            (State::FullAt(at), Limit::Bucket { every, .. }) => {
                at.since(now).as_nanos().div_ceil(every.as_nanos().max(1))
            }
            (State::FullAt(_), Limit::Window { .. }) => 0,
            (State::Taken(taken), _) => taken.len() as u128,
        };
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    fn forget_what_is_back(&mut self, now: Boot) {
        if let (State::Taken(taken), Limit::Window { per, .. }) = (&mut self.state, self.limit) {
            while taken.front().is_some_and(|first| now.since(*first) >= per) {
                taken.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(seconds))
    }

    fn n(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).expect("not 0")
    }

    fn bucket(burst: u32, seconds: u64) -> Limit {
        Limit::Bucket { burst: n(burst), every: Duration::from_secs(seconds) }
    }

    fn window(count: u32, seconds: u64) -> Limit {
        Limit::Window { count: n(count), per: Duration::from_secs(seconds) }
    }

    fn wait(seconds: u64) -> Taken {
        Taken::Wait(Duration::from_secs(seconds))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_at_a_time() {
        let mut bucket = Bucket::new(bucket(3, 10), at(0));
        for _ in 0..3 {
            assert_eq!(bucket.take(n(1), at(0)), Taken::Granted);
        }
        assert_eq!(bucket.take(n(1), at(4)), wait(6));
        assert_eq!(bucket.take(n(1), at(10)), Taken::Granted);
        assert_eq!(bucket.take(n(1), at(10)), wait(10));
        assert_eq!([bucket.missing(at(39)), bucket.missing(at(40))], [1, 0]);
        for _ in 0..3 {
            assert_eq!(bucket.take(n(1), at(1000)), Taken::Granted, "it never holds more than its burst");
        }
        assert!(matches!(bucket.take(n(1), at(1000)), Taken::Wait(_)));
    }

    #[test]
    fn no_window_wherever_it_begins_holds_more_than_its_count() {
        let mut bucket = Bucket::new(window(10, 60), at(0));
        let granted: Vec<u64> = (0..600).filter(|s| bucket.take(n(1), at(*s)) == Taken::Granted).collect();
        assert_eq!(granted.len(), 100);
        for first in &granted {
            let within = granted.iter().filter(|s| (*first..first + 60).contains(s)).count();
            assert!(within <= 10, "{within} in the minute from {first}");
        }
        assert_eq!(bucket.take(n(1), at(599)), wait(1));
    }

    #[test]
    fn three_who_count_for_themselves_take_no_more_together_than_one() {
        let mut each: [Buckets; 3] = std::array::from_fn(|_| Buckets::default());
        let mut granted = Vec::new();
        for s in 0..600 {
            let took = each.iter_mut().filter_map(|own| match own.take_part("b", window(10, 60), n(3), at(s)) {
                Taken::Granted => Some(s),
                Taken::Wait(_) => None,
            });
            granted.extend(took);
        }
        assert_eq!(granted.len(), 90, "3 of 10 each");
        let mut own = Buckets::default();
        let took = (0..600).filter(|s| own.take_part("b", bucket(9, 1), n(3), at(*s)) == Taken::Granted).count();
        assert_eq!(took, 3 + 199, "a third of the burst, and then one in three seconds");
        let mut own = Buckets::default();
        assert_eq!(own.take_part("b", window(2, 60), n(5), at(0)), Taken::Granted, "nobody is left with nothing");
    }

    #[test]
    fn what_was_taken_elsewhere_counts_here() {
        let mut own = Buckets::default();
        for s in 0..4 {
            own.note("b", window(10, 60), at(s));
        }
        assert_eq!(own.missing("b", window(10, 60), at(4)), 4);
        assert_eq!(own.take_part("b", window(10, 60), n(3), at(4)), wait(57), "the first of the last three");
        assert_eq!(own.take_part("b", window(10, 60), n(3), at(61)), Taken::Granted);
        for _ in 0..20 {
            own.note("full", window(10, 60), at(0));
            own.note("drained", bucket(10, 6), at(0));
        }
        assert_eq!(own.missing("full", window(10, 60), at(1)), 10);
        assert_eq!(own.take("drained", bucket(10, 6), at(0)), wait(6));
        assert_eq!(own.take("full", window(9, 60), at(1)), Taken::Granted, "another limit begins anew");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut own = Buckets::default();
        for limit in [window(2, 60), bucket(2, 30)] {
            for s in 0..2 {
                assert_eq!(own.take("b", limit, at(s)), Taken::Granted);
            }
            own.give_back("b", limit);
            assert_eq!(own.take("b", limit, at(2)), Taken::Granted, "{limit:?}");
            assert!(matches!(own.take("b", limit, at(2)), Taken::Wait(_)), "{limit:?}");
        }
        own.give_back("b", window(3, 60));
        assert!(matches!(own.take("b", bucket(2, 30), at(2)), Taken::Wait(_)), "it was not of that limit");
        // Given back is the oldest, so the younger one counts for its whole time.
        let mut own = Buckets::default();
        own.take("b", window(2, 60), at(0));
        own.take("b", window(2, 60), at(30));
        own.give_back("b", window(2, 60));
        own.take("b", window(2, 60), at(31));
        assert_eq!(own.take("b", window(2, 60), at(61)), wait(29));
    }

    #[test]
    fn the_longest_time_is_not_too_long() {
        let mut own = Buckets::default();
        for limit in
            [Limit::Bucket { burst: n(1), every: Duration::MAX }, Limit::Window { count: n(1), per: Duration::MAX }]
        {
            assert_eq!(own.take("b", limit, at(5)), Taken::Granted);
            own.note("b", limit, at(5));
            assert!(own.missing("b", limit, at(5)) > 0);
        }
    }

    #[test]
    fn buckets_that_are_as_good_as_new_are_forgotten() {
        let mut own = Buckets::default();
        for name in 0..TIDY_AT {
            own.note(&name.to_string(), window(1, 60), at(if name == 0 { 30 } else { 0 }));
        }
        own.note("one more", window(1, 60), at(61));
        assert_eq!(own.buckets.len(), 2);
    }
}
