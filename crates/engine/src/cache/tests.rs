use tokenkeep_core::{AccessToken, id::Ulid, ports::Clock as _};
use tokenkeep_testkit::ManualClock;

use super::*;

const SOFT: Duration = Duration::from_secs(5);
const LIFE: Incarnation = Incarnation(Ulid(1));

struct Fixture {
    clock: ManualClock,
    cache: Cache,
    id: ConnectionId,
}

fn fixture() -> Fixture {
    let cache = Cache::new(1 << 20, SOFT, Arc::default());
    Fixture { clock: ManualClock::default(), cache, id: "fake/_default/alice".parse().unwrap() }
}

impl Fixture {
    fn asking(&self) -> Asked {
        self.cache.asking(self.clock.now())
    }

    fn insert(&self, generation: u64, asked: Asked) -> Arc<Ready> {
        let issued_at = self.clock.now().wall;
        let access = AccessToken { token: "t".into(), token_type: "Bearer".to_owned(), issued_at, expires_at: None };
        let ready = Ready::of(&access, None, (LIFE, Generation(generation)), Duration::ZERO, asked).unwrap();
        self.cache.insert(&self.id, ready, asked)
    }

    fn get(&self) -> Hit {
        self.cache.get("fake", "_default", "alice", Duration::ZERO, self.clock.now())
    }

    fn served(&self) -> bool {
        matches!(self.get(), Hit::Serve { .. })
    }
}

#[test]
fn what_was_on_its_way_when_it_was_invalidated_is_looked_at_again() {
    let f = fixture();
    let (before, id) = (f.asking(), &f.id);
    f.cache.invalidate(id, LIFE, Generation(2));
    assert!(f.cache.floor(id).is_none(), "there was nothing to leave a floor in");
    let ready = f.insert(1, before);
    assert!(matches!(f.get(), Hit::Doubtful(_)));
    f.cache.confirm(id, &ready, before);
    assert!(matches!(f.get(), Hit::Doubtful(_)), "an answer from before confirms nothing");
    f.cache.confirm(id, &ready, f.asking());
    assert!(f.served());
}

#[test]
fn only_what_is_older_is_invalidated() {
    let f = fixture();
    f.insert(2, f.asking());
    f.cache.invalidate(&f.id, LIFE, Generation(2));
    assert!(f.served());
    f.cache.invalidate(&f.id, LIFE, Generation(3));
    assert!(matches!(f.get(), Hit::Miss));
    assert!(!f.cache.admits(&f.id, (LIFE, Generation(2))) && f.cache.admits(&f.id, (LIFE, Generation(3))));
    f.insert(2, f.asking());
    assert!(matches!(f.get(), Hit::Miss), "nothing goes below a floor");
    f.insert(3, f.asking());
    assert!(f.served());
    f.cache.doubt(&f.id);
    assert!(matches!(f.get(), Hit::Doubtful(_)));
}

#[test]
fn a_lease_lengthens_the_soft_life_while_it_holds() {
    let f = fixture();
    f.insert(1, f.asking());
    f.clock.advance(SOFT);
    assert!(matches!(f.get(), Hit::Doubtful(_)));
    f.cache.lease.set(Some(f.clock.now().boot + SOFT));
    assert!(f.served());
    f.clock.advance(SOFT);
    assert!(matches!(f.get(), Hit::Doubtful(_)), "it ends by itself");
    f.cache.lease.set(Some(f.clock.now().boot + TRUSTED_LIFE));
    assert!(f.served());
    f.clock.advance(TRUSTED_LIFE.saturating_sub(SOFT * 2));
    assert!(matches!(f.get(), Hit::Doubtful(_)), "even the trusting look now and then");
}
