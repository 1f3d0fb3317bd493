//! A token, ready to be served.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;
use tokenkeep_core::{AccessToken, Boot, Connection, Freshness, Generation, Incarnation, Now};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

use super::Asked;

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
    pub(super) fn confirm(&self, asked: Asked) {
        self.checked.store(millis(asked.at), Relaxed);
        self.checking.store(false, Relaxed);
    }

    /// There may be a younger one.
    pub(super) fn doubt(&self) {
        self.checked.store(0, Relaxed);
    }

    /// Whether the caller, and nobody else, is to see whether it is still the newest.
    pub(crate) fn begin_check(&self) -> bool {
        !self.checking.swap(true, Relaxed)
    }

    /// The store could not be asked: somebody else may try.
    pub(crate) fn unconfirmed(&self) {
        self.checking.store(false, Relaxed);
    }

    /// Milliseconds since it was last known to be the newest.
    pub(super) fn age(&self, now: u64) -> u64 {
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
pub(super) fn millis(boot: Boot) -> u64 {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    u64::try_from(boot.0.as_millis()).unwrap_or(u64::MAX).saturating_add(DAY)
}
