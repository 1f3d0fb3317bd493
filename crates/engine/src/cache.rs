//! L1: ready replies in this process's memory. A hit takes no lock, does no I/O and allocates nothing.

use std::{
    fmt,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;
use tokenkeep_core::{AccessToken, Boot, Connection, ConnectionId, Freshness, Generation, Incarnation, Now};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

/// A token, ready to be served.
pub struct Ready {
    /// The whole JSON reply; wiped when dropped.
    pub body: Bytes,
    /// `"<generation>"`, quotes included.
    pub etag: HeaderValue,
    /// The number of the TokenSet.
    pub generation: Generation,
    /// The access token.
    pub token: Secret,
    /// `Bearer`, mostly.
    pub token_type: String,
    /// What the provider granted, separated by spaces.
    pub scope: Option<String>,
    /// When the token dies; `None` = never.
    pub expires_at: Option<Timestamp>,
    pub(crate) incarnation: Incarnation,
    /// Milliseconds since 1970, `i64::MAX` = never.
    dies: i64,
    due: i64,
    half_life: i64,
    /// When this was last known to be the newest: boot clock, milliseconds.
    checked: AtomicU64,
    checking: AtomicBool,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("generation", &self.generation)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Reply<'a> {
    access_token: &'a str,
    token_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    generation: Generation,
}

impl Ready {
    /// The reply for `connection`'s access token, if it has one.
    pub(crate) fn new(connection: &Connection, margin: Duration, asked: Asked) -> Option<Self> {
        let Connection { tokens, incarnation, generation, .. } = connection;
        let access = tokens.access.as_ref()?;
        Self::of(access, tokens.scope.as_deref(), (*incarnation, *generation), margin, asked)
    }

    /// The reply for an access token.
    pub(crate) fn of(
        access: &AccessToken,
        scope: Option<&str>,
        (incarnation, generation): (Incarnation, Generation),
        margin: Duration,
        asked: Asked,
    ) -> Option<Self> {
        let expires_at = access.expires_at.map(whole_seconds);
        let reply = Reply {
            access_token: access.token.expose_secret(),
            token_type: &access.token_type,
            expires_at,
            scope,
            generation,
        };
        let body = serde_json::to_vec(&reply).unwrap_or_default();
        let etag = HeaderValue::from_str(&format!("\"{generation}\"")).ok()?;
        Some(Self {
            body: Bytes::from_owner(Zeroizing::new(body)),
            etag,
            generation,
            token: access.token.clone(),
            token_type: access.token_type.clone(),
            scope: scope.map(str::to_owned),
            expires_at,
            incarnation,
            dies: access.expires_at.map_or(i64::MAX, Timestamp::as_millisecond),
            due: access.due_at(margin).map_or(i64::MAX, Timestamp::as_millisecond),
            half_life: half_life(access),
            checked: AtomicU64::new(millis(asked.at)),
            checking: AtomicBool::new(false),
        })
    }

    /// Whether it serves a reader who wants `min_ttl`.
    pub(crate) fn freshness(&self, min_ttl: Duration, now: Now) -> Freshness {
        let wall = now.wall.as_millisecond();
        let wanted = i64::try_from(min_ttl.as_millis()).unwrap_or(i64::MAX).min(self.half_life);
        if self.dies != i64::MAX && wall.saturating_add(wanted) >= self.dies {
            Freshness::Stale
        } else if wall >= self.due {
            Freshness::Early
        } else {
            Freshness::Fresh
        }
    }

    /// Whether the provider would still take it.
    pub(crate) fn is_alive(&self, now: Now) -> bool {
        now.wall.as_millisecond() < self.dies
    }

    /// The store was asked then, and has nothing younger.
    fn confirm(&self, asked: Asked) {
        self.checked.store(millis(asked.at), Relaxed);
        self.checking.store(false, Relaxed);
    }

    /// There may be a younger one.
    fn doubt(&self) {
        self.checked.store(0, Relaxed);
    }

    /// The store could not be asked: somebody else may try.
    pub(crate) fn unconfirmed(&self) {
        self.checking.store(false, Relaxed);
    }

    /// Milliseconds since it was last known to be the newest.
    fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.checked.load(Relaxed))
    }
}

/// Whole seconds are what providers say and what readers of RFC 3339 expect.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn half_life(access: &AccessToken) -> i64 {
    access.life().map_or(i64::MAX, |life| i64::try_from(life.as_millis() / 2).unwrap_or(i64::MAX))
}

/// Counted from a day before the machine started, so that 0 is long ago even then.
fn millis(boot: Boot) -> u64 {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    u64::try_from(boot.0.as_millis()).unwrap_or(u64::MAX).saturating_add(DAY)
}

/// When a question was put whose answer goes into the cache. What was invalidated since then is not answered by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    at: Boot,
    invalidations: u64,
}

/// Until when nothing can have changed that this instance was not told of: boot clock, milliseconds; 0 = it is told
/// of nothing. The bus extends it with every message.
#[derive(Debug, Default)]
pub(crate) struct Lease(AtomicU64);

impl Lease {
    pub(crate) fn holds(&self, now: Boot) -> bool {
        self.holds_at(millis(now))
    }

    fn holds_at(&self, now: u64) -> bool {
        now < self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, until: Option<Boot>) {
        self.0.store(until.map_or(0, millis), SeqCst);
    }
}

/// When what was last invalidated, by groups of connections. An answer that was on its way when its connection was
/// invalidated is recognised by this, although the cache had no entry to leave a floor in.
struct Invalidations {
    count: AtomicU64,
    last: Box<[AtomicU64]>,
}

/// Two connections of one group cost a look at the store too many, so there are many groups.
const GROUPS: usize = 16 * 1024;

impl Invalidations {
    fn new() -> Self {
        Self { count: AtomicU64::new(0), last: std::iter::repeat_with(AtomicU64::default).take(GROUPS).collect() }
    }

    fn group(&self, id: &ConnectionId) -> &AtomicU64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        &self.last[usize::try_from(hash % GROUPS as u64).unwrap_or(0)]
    }

    fn note(&self, id: &ConnectionId) {
        let number = self.count.fetch_add(1, SeqCst) + 1;
        self.group(id).fetch_max(number, SeqCst);
        // Whoever puts an older answer in either sees this, or is seen by what follows.
        fence(SeqCst);
    }

    fn any_since(&self, asked: Asked, id: &ConnectionId) -> bool {
        fence(SeqCst);
        self.group(id).load(SeqCst) > asked.invalidations
    }
}

/// What a look-up found.
pub(crate) enum Hit {
    /// Serve it. `check` = somebody should see soon whether it is still the newest, `refresh` = its refresh is due;
    /// both behind the reader's back, and `check` is said to one reader only.
    Serve { ready: Arc<Ready>, check: bool, refresh: bool },
    /// It is there, but whether it is still the newest must be seen first.
    Doubtful(Arc<Ready>),
    /// It is there, but not fresh enough.
    Stale(Arc<Ready>),
    /// It is not there.
    Miss,
}

#[derive(Clone)]
enum Slot {
    Ready(Arc<Ready>),
    /// Nothing may be served; nothing older than this may come back.
    Floor(Incarnation, Generation),
}

impl Slot {
    fn floor(&self) -> (Incarnation, Generation) {
        match self {
            Slot::Ready(ready) => (ready.incarnation, ready.generation),
            Slot::Floor(incarnation, generation) => (*incarnation, *generation),
        }
    }
}

/// A [`ConnectionId`] in parts, so that a look-up needs no copy.
struct Parts<'a> {
    integration: &'a str,
    tenant: &'a str,
    subject: &'a str,
}

impl Hash for Parts<'_> {
    // As ConnectionId derives it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.integration.hash(state);
        self.tenant.hash(state);
        self.subject.hash(state);
    }
}

impl equivalent::Equivalent<ConnectionId> for Parts<'_> {
    fn equivalent(&self, id: &ConnectionId) -> bool {
        self.subject == id.subject.as_str()
            && self.tenant == id.tenant.as_str()
            && self.integration == id.integration.as_str()
    }
}

/// The cache. Bounded by bytes; what is evicted is read from the store again.
pub(crate) struct Cache {
    slots: moka::sync::Cache<ConnectionId, Slot>,
    /// How long a token is served without asking the store, in milliseconds.
    soft_life: u64,
    /// The same while the lease holds.
    trusted_life: u64,
    lease: Arc<Lease>,
    invalidations: Invalidations,
}

/// Even who is told of everything looks now and then: it costs little, and no proof is without assumptions.
const TRUSTED_LIFE: Duration = Duration::from_mins(1);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("entries", &self.slots.entry_count()).finish_non_exhaustive()
    }
}

/// What an entry costs beside its body: the parsed token, the key, moka's own.
const OVERHEAD: usize = 768;

impl Cache {
    pub(crate) fn new(bytes: u64, soft_life: Duration, lease: Arc<Lease>) -> Self {
        let weigh = |_: &ConnectionId, slot: &Slot| match slot {
            Slot::Ready(ready) => u32::try_from(OVERHEAD + ready.body.len()).unwrap_or(u32::MAX),
            Slot::Floor(..) => u32::try_from(OVERHEAD).unwrap_or(u32::MAX),
        };
        let millis = |life: Duration| u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        Self {
            slots: moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).build(),
            soft_life: millis(soft_life),
            trusted_life: millis(soft_life.max(TRUSTED_LIFE)),
            lease,
            invalidations: Invalidations::new(),
        }
    }

    /// Looks a token up.
    pub(crate) fn get(&self, integration: &str, tenant: &str, subject: &str, min_ttl: Duration, now: Now) -> Hit {
        let Some(Slot::Ready(ready)) = self.slots.get(&Parts { integration, tenant, subject }) else {
            return Hit::Miss;
        };
        let freshness = ready.freshness(min_ttl, now);
        if freshness == Freshness::Stale {
            return Hit::Stale(ready);
        }
        let now = millis(now.boot);
        let age = ready.age(now);
        let life =
            if age >= self.soft_life / 2 && self.lease.holds_at(now) { self.trusted_life } else { self.soft_life };
        if age >= life {
            return Hit::Doubtful(ready);
        }
        // Half-way, one reader looks behind its back, so that a token in use is never waited for.
        let check = age >= life / 2 && !ready.checking.swap(true, Relaxed);
        Hit::Serve { check, refresh: freshness == Freshness::Early, ready }
    }

    pub(crate) fn peek(&self, id: &ConnectionId) -> Option<Arc<Ready>> {
        match self.slots.get(id) {
            Some(Slot::Ready(ready)) => Some(ready),
            _ => None,
        }
    }

    /// The newest generation known of `id`.
    pub(crate) fn floor(&self, id: &ConnectionId) -> Option<(Incarnation, Generation)> {
        self.slots.get(id).map(|slot| slot.floor())
    }

    /// To be taken before the store, or anybody else, is asked for what will be put in.
    pub(crate) fn asking(&self, now: Now) -> Asked {
        Asked { at: now.boot, invalidations: self.invalidations.count.load(SeqCst) }
    }

    /// Whether nothing was heard of `id` that the answer to `asked` may not show.
    pub(crate) fn is_answered(&self, id: &ConnectionId, asked: Asked) -> bool {
        !self.invalidations.any_since(asked, id)
    }

    /// Puts `ready` in, unless something younger is there; answers what is there now. `asked` = before `ready` was
    /// read.
    pub(crate) fn insert(&self, id: &ConnectionId, ready: Ready, asked: Asked) -> Arc<Ready> {
        let ready = Arc::new(ready);
        let entry = self.slots.entry_by_ref(id).and_upsert_with(|present| match present.map(moka::Entry::into_value) {
            Some(slot) if !may_follow(slot.floor(), (ready.incarnation, ready.generation)) => slot,
            _ => Slot::Ready(ready.clone()),
        });
        let present = match entry.into_value() {
            Slot::Ready(present) => present,
            Slot::Floor(..) => ready,
        };
        if !self.is_answered(id, asked) {
            present.doubt();
        }
        present
    }

    /// The store showed that nothing is younger than `ready`.
    pub(crate) fn confirm(&self, id: &ConnectionId, ready: &Ready, asked: Asked) {
        ready.confirm(asked);
        if !self.is_answered(id, asked) {
            ready.doubt();
        }
    }

    /// Whether something older than `next` is all that may be there.
    pub(crate) fn admits(&self, id: &ConnectionId, next: (Incarnation, Generation)) -> bool {
        self.floor(id).is_none_or(|floor| may_follow(floor, next))
    }

    /// Somebody else changed `id`: what is older than `floor` is not served any more, nor what is on its way here.
    pub(crate) fn invalidate(&self, id: &ConnectionId, incarnation: Incarnation, floor: Generation) {
        self.invalidations.note(id);
        let next = (incarnation, floor);
        self.slots.entry_by_ref(id).and_compute_with(|present| match present.map(moka::Entry::into_value) {
            Some(slot) if slot.floor() != next && may_follow(slot.floor(), next) => {
                moka::ops::compute::Op::Put(Slot::Floor(incarnation, floor))
            }
            _ => moka::ops::compute::Op::Nop,
        });
    }

    /// Somebody else changed `id`, and it cannot be seen how: the next reader looks.
    pub(crate) fn doubt(&self, id: &ConnectionId) {
        self.invalidations.note(id);
        if let Some(ready) = self.peek(id) {
            ready.doubt();
        }
    }

    /// Serves `id` no longer, and nothing older than `floor`.
    pub(crate) fn remove(&self, id: &ConnectionId, incarnation: Incarnation, floor: Generation) {
        self.invalidations.note(id);
        self.slots.insert(id.clone(), Slot::Floor(incarnation, floor));
    }

    /// The connection is gone: what was served of it must not come back.
    pub(crate) fn remove_deleted(&self, id: &ConnectionId) {
        if let Some(ready) = self.peek(id) {
            self.remove(id, ready.incarnation, ready.generation.next());
        }
    }

    /// Forgets dead tokens and old floors; answers how many.
    pub(crate) fn sweep(&self, now: Now) -> usize {
        let dead: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| match slot {
                Slot::Ready(ready) => !ready.is_alive(now),
                Slot::Floor(..) => true,
            })
            .map(|(id, _)| id)
            .collect();
        for id in &dead {
            self.slots.invalidate(id.as_ref());
        }
        dead.len()
    }

    /// How many tokens and floors there are. Counts exactly, so it is not for the hot path.
    pub(crate) fn entries(&self) -> u64 {
        self.slots.run_pending_tasks();
        self.slots.entry_count()
    }
}

/// Whether `next` may take the place of what set `floor`. Generations go on across lives; where a store has forgotten
/// a deleted connection, the younger life wins.
fn may_follow(floor: (Incarnation, Generation), next: (Incarnation, Generation)) -> bool {
    if floor.0 == next.0 { next.1 >= floor.1 } else { next.1 > floor.1 || next.0 > floor.0 }
}

#[cfg(test)]
mod tests {
    use tokenkeep_core::{id::Ulid, ports::Clock as _};
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
            let access =
                AccessToken { token: "t".into(), token_type: "Bearer".to_owned(), issued_at, expires_at: None };
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
        f.clock.advance(TRUSTED_LIFE - SOFT - SOFT);
        assert!(matches!(f.get(), Hit::Doubtful(_)), "even the trusting look now and then");
    }
}
