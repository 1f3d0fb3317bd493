use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use tokenkeep_core::{Boot, ConnectionId, Generation};

/// What was changed lately: which generation a copy must have to be believed.
///
/// The shared cache may have lost what was put there, or never have got it. So who reads copies remembers by itself
/// what it was told, for as long as an older copy can be found. A connection is kept as its hash alone: two that share
/// one cost a look at the store.
#[derive(Debug)]
pub(super) struct Floors {
    life: Duration,
    most: usize,
    hasher: RandomState,
    /// The floor, and when it was last raised.
    by_hash: HashMap<u64, (Generation, Boot)>,
    /// In the order in which they were raised.
    raised: VecDeque<(u64, Boot)>,
    /// More was changed than could be remembered: until then nothing is known.
    blind_until: Boot,
}

impl Floors {
    /// Remembers up to `most` floors for `life`.
    pub(super) fn new(life: Duration, most: usize) -> Self {
        let (hasher, by_hash, raised) = (RandomState::new(), HashMap::new(), VecDeque::new());
        Self { life, most, hasher, by_hash, raised, blind_until: Boot::default() }
    }

    /// No copy of `id` below `floor` may be believed any more.
    pub(super) fn raise(&mut self, id: &ConnectionId, floor: Generation, now: Boot) {
        self.forget_old(now);
        if self.raised.len() >= self.most {
            self.by_hash.clear();
            self.raised.clear();
            self.blind_until = now + self.life;
        }
        let hash = self.hasher.hash_one(id);
        let (known, at) = self.by_hash.entry(hash).or_insert((floor, now));
        (*known, *at) = (floor.max(*known), now);
        self.raised.push_back((hash, now));
    }

    /// Whether nothing is known against a copy of `id` of that generation.
    pub(super) fn admit(&self, id: &ConnectionId, generation: Generation, now: Boot) -> bool {
        let floor = self.by_hash.get(&self.hasher.hash_one(id));
        now >= self.blind_until && floor.is_none_or(|(floor, _)| generation >= *floor)
    }

    fn forget_old(&mut self, now: Boot) {
        while let Some((hash, at)) = self.raised.pop_front_if(|(_, at)| now.since(*at) >= self.life) {
            // Unless it was raised again since.
            if self.by_hash.get(&hash).is_some_and(|(_, last)| *last == at) {
                self.by_hash.remove(&hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_mins(5);

    fn id(n: usize) -> ConnectionId {
        format!("fake/_default/{n}").parse().unwrap()
    }

    #[test]
    fn a_floor_lasts_for_its_life_counted_from_the_last_time_it_was_raised() {
        let (mut floors, start) = (Floors::new(LIFE, 100), Boot::default());
        floors.raise(&id(1), Generation(3), start);
        floors.raise(&id(1), Generation(2), start);
        assert!(!floors.admit(&id(1), Generation(2), start) && floors.admit(&id(1), Generation(3), start));
        assert!(floors.admit(&id(2), Generation(1), start));
        let later = start + LIFE / 2;
        floors.raise(&id(1), Generation(3), later);
        floors.raise(&id(2), Generation(2), start + LIFE);
        assert!(!floors.admit(&id(1), Generation(2), start + LIFE), "it was raised again");
        floors.raise(&id(2), Generation(2), later + LIFE);
        assert!(floors.admit(&id(1), Generation(2), later + LIFE));
        assert_eq!((floors.by_hash.len(), floors.raised.len()), (1, 2));
    }

    #[test]
    fn who_cannot_remember_everything_believes_nothing() {
        let (mut floors, start) = (Floors::new(LIFE, 10), Boot::default());
        for n in 0..11 {
            floors.raise(&id(n), Generation(2), start);
        }
        assert!(!floors.admit(&id(0), Generation(1), start) && !floors.admit(&id(99), Generation(9), start));
        assert!(floors.admit(&id(0), Generation(1), start + LIFE), "what it was about is too old by then");
        assert!(floors.raised.len() <= 10);
    }
}
