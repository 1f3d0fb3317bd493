//! How often somebody may do what costs us something.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher as _, Hash},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokenkeep_core::Boot;

/// Every ceiling of the OAuth endpoints.
#[derive(Debug)]
pub(crate) struct Ceilings {
    /// Failures to prove to be a client, by client and network.
    pub(crate) guesses: Ceiling,
    /// The same by network, whoever they say to be: names cost nothing.
    pub(crate) guessers: Ceiling,
    /// Registrations, and changes of them, by network. A whole company may be behind one address.
    pub(crate) registrations: Ceiling,
    /// Those of them that left a new client behind: fewer than all networks together may, so that none uses up what
    /// there is for all.
    pub(crate) new_clients: Ceiling,
    /// Sign-ins that begin, by network: each is a record for ten minutes. An office or a school is one network.
    pub(crate) sign_ins: Ceiling,
}

impl Default for Ceilings {
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self {
            guesses: Ceiling::new(30, minute),
            guessers: Ceiling::new(600, minute),
            registrations: Ceiling::new(600, minute),
            new_clients: Ceiling::new(100, 10 * minute),
            sign_ins: Ceiling::new(300, minute),
        }
    }
}

/// So many names are remembered; beyond that, those whose time is over are forgotten.
const TIDY_AT: usize = 4_096;
/// Beyond this, no new ones are taken: what is remembered of a flood must not be one.
const FULL: usize = 65_536;

/// At most so many in so long, for each name. The time begins with the first.
#[derive(Debug)]
pub(crate) struct Ceiling {
    most: u32,
    per: Duration,
    names: RandomState,
    counted: Mutex<Names>,
    /// How many are in it: mostly none, and then nobody needs the lock.
    size: AtomicUsize,
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<u64, Counted>,
    tidied_at: Boot,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    since: Boot,
    count: u32,
}

impl Ceiling {
    pub(crate) fn new(most: u32, per: Duration) -> Self {
        Self { most, per, names: RandomState::new(), counted: Mutex::default(), size: AtomicUsize::new(0) }
    }

    /// What somebody is counted by: short, however long what they call themselves.
    pub(crate) fn name(&self, who: &impl Hash) -> u64 {
        self.names.hash_one(who)
    }

    /// Whether nobody is remembered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.size.load(Relaxed) == 0
    }

    /// Whether `name` may; else how long it may not.
    pub(crate) fn check(&self, name: u64, now: Boot) -> Result<(), Duration> {
        if self.is_quiet() {
            return Ok(());
        }
        match self.lock().by_name.get(&name) {
            Some(counted) if counted.count >= self.most => {
                let left = self.per.saturating_sub(now.since(counted.since));
                if left.is_zero() { Ok(()) } else { Err(left) }
            }
            _ => Ok(()),
        }
    }

    /// It did.
    pub(crate) fn count(&self, name: u64, now: Boot) {
        let mut names = self.lock();
        // Looking through all of them costs something, too.
        if names.by_name.len() >= TIDY_AT && now.since(names.tidied_at) >= self.per / 4 {
            names.by_name.retain(|_, one| now.since(one.since) < self.per);
            names.tidied_at = now;
        }
        let by_name = &mut names.by_name;
        if by_name.len() < FULL || by_name.contains_key(&name) {
            let one = by_name.entry(name).or_insert(Counted { since: now, count: 0 });
            if now.since(one.since) >= self.per {
                *one = Counted { since: now, count: 0 };
            }
            one.count = one.count.saturating_add(1);
        }
        self.size.store(by_name.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(seconds))
    }

    #[test]
    fn whoever_is_at_the_ceiling_waits_and_nobody_else() {
        let ceiling = Ceiling::new(2, Duration::from_mins(1));
        let (alice, bob) = (ceiling.name(&"alice"), ceiling.name(&"bob"));
        for second in [10, 20] {
            assert_eq!(ceiling.check(alice, at(second)), Ok(()));
            ceiling.count(alice, at(second));
        }
        assert_eq!(ceiling.check(alice, at(30)), Err(Duration::from_secs(40)));
        assert_eq!(ceiling.check(bob, at(30)), Ok(()));
        assert_eq!(ceiling.check(alice, at(70)), Ok(()));
        ceiling.count(alice, at(70));
        assert_eq!(ceiling.check(alice, at(70)), Ok(()), "a new minute begins at nothing");
    }

    #[test]
    fn a_flood_of_names_is_forgotten() {
        let ceiling = Ceiling::new(1, Duration::from_mins(1));
        for name in 0..70_000 {
            ceiling.count(name, at(0));
        }
        assert_eq!(ceiling.lock().by_name.len(), FULL);
        ceiling.count(1, at(60));
        assert_eq!(ceiling.lock().by_name.len(), 1);
    }
}
