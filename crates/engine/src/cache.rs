//! L1: ready replies in this process's memory. A hit takes no lock, does no I/O and allocates nothing.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
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
    pub(crate) fn new(connection: &Connection, margin: Duration, now: Now) -> Option<Self> {
        let access = connection.tokens.access.as_ref()?;
        let expires_at = access.expires_at.map(whole_seconds);
        let reply = Reply {
            access_token: access.token.expose_secret(),
            token_type: &access.token_type,
            expires_at,
            scope: connection.tokens.scope.as_deref(),
            generation: connection.generation,
        };
        let body = serde_json::to_vec(&reply).unwrap_or_default();
        let etag = HeaderValue::from_str(&format!("\"{}\"", connection.generation)).ok()?;
        Some(Self {
            body: Bytes::from_owner(Zeroizing::new(body)),
            etag,
            generation: connection.generation,
            token: access.token.clone(),
            token_type: access.token_type.clone(),
            scope: connection.tokens.scope.clone(),
            expires_at,
            incarnation: connection.incarnation,
            dies: access.expires_at.map_or(i64::MAX, Timestamp::as_millisecond),
            due: access.due_at(margin).map_or(i64::MAX, Timestamp::as_millisecond),
            half_life: half_life(access),
            checked: AtomicU64::new(millis(now.boot)),
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

    /// The store was asked, and has nothing younger.
    pub(crate) fn confirm(&self, now: Now) {
        self.checked.store(millis(now.boot), Relaxed);
        self.checking.store(false, Relaxed);
    }

    /// The store could not be asked: somebody else may try.
    pub(crate) fn unconfirmed(&self) {
        self.checking.store(false, Relaxed);
    }

    fn age(&self, now: Now) -> Duration {
        Duration::from_millis(millis(now.boot).saturating_sub(self.checked.load(Relaxed)))
    }
}

/// Whole seconds are what providers say and what readers of RFC 3339 expect.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn half_life(access: &AccessToken) -> i64 {
    access.life().map_or(i64::MAX, |life| i64::try_from(life.as_millis() / 2).unwrap_or(i64::MAX))
}

fn millis(boot: Boot) -> u64 {
    u64::try_from(boot.0.as_millis()).unwrap_or(u64::MAX)
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
    soft_life: Duration,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("entries", &self.slots.entry_count()).finish_non_exhaustive()
    }
}

/// What an entry costs beside its body: the parsed token, the key, moka's own.
const OVERHEAD: usize = 768;

impl Cache {
    pub(crate) fn new(bytes: u64, soft_life: Duration) -> Self {
        let weigh = |_: &ConnectionId, slot: &Slot| match slot {
            Slot::Ready(ready) => u32::try_from(OVERHEAD + ready.body.len()).unwrap_or(u32::MAX),
            Slot::Floor(..) => u32::try_from(OVERHEAD).unwrap_or(u32::MAX),
        };
        Self { slots: moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).build(), soft_life }
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
        let age = ready.age(now);
        if age >= self.soft_life {
            return Hit::Doubtful(ready);
        }
        // Half-way, one reader looks behind its back, so that a token in use is never waited for.
        let check = age >= self.soft_life / 2 && !ready.checking.swap(true, Relaxed);
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

    /// Puts `ready` in, unless something younger is there; answers what is there now.
    pub(crate) fn insert(&self, id: &ConnectionId, ready: Ready) -> Arc<Ready> {
        let ready = Arc::new(ready);
        let entry = self.slots.entry_by_ref(id).and_upsert_with(|present| match present.map(moka::Entry::into_value) {
            Some(slot) if !may_follow(slot.floor(), (ready.incarnation, ready.generation)) => slot,
            _ => Slot::Ready(ready.clone()),
        });
        match entry.into_value() {
            Slot::Ready(present) => present,
            Slot::Floor(..) => ready,
        }
    }

    /// Serves `id` no longer, and nothing older than `floor`.
    pub(crate) fn remove(&self, id: &ConnectionId, incarnation: Incarnation, floor: Generation) {
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
