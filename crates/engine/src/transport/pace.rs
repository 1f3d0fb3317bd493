//! How hard a provider may be knocked at: so many connections at once, so many a second, none while it asked for
//! quiet.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokenkeep_core::{Boot, ports::Clock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

/// How hard one origin may be knocked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Exchanges at the same time.
    pub concurrency: usize,
    /// New connections a second; as many may come in a burst.
    pub per_second: Option<NonZeroU32>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { concurrency: 64, per_second: None }
    }
}

/// How hard every origin may be knocked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pacing {
    /// Where nothing else is said.
    pub default: Pace,
    /// By origin: `https://oauth2.googleapis.com`.
    pub origins: BTreeMap<String, Pace>,
}

/// Hands out the permits to connect, per origin. Share one between the transport, which waits for them, and whoever
/// reads `Retry-After`.
pub struct Pacer {
    clock: Arc<dyn Clock>,
    pacing: Pacing,
    /// One per origin ever asked for: as many as there are providers.
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").field("pacing", &self.pacing).finish_non_exhaustive()
    }
}

/// The queue before one origin.
struct Lane {
    slots: Arc<Semaphore>,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, BootClock, NoOpMiddleware<Duration>>>,
    quiet_until: Mutex<Boot>,
}

/// The origin asked for a longer quiet than the caller has patience for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provider asked for {} more seconds of quiet", left.as_secs())]
pub struct Quiet {
    /// How much longer.
    pub left: Duration,
}

/// The right to one exchange, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _slot: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// For what is not paced.
    pub(super) fn unpaced() -> Self {
        Self { _slot: None }
    }
}

impl Pacer {
    /// A pacer that waits by `clock`.
    pub fn new(clock: Arc<dyn Clock>, pacing: Pacing) -> Self {
        Self { clock, pacing, lanes: Mutex::default() }
    }

    /// Asks for quiet towards the origin of `url` for `wait` from now, as a `Retry-After` does. The longest request
    /// for quiet counts. Exchanges under way go on.
    pub fn penalise(&self, url: &Url, wait: Duration) {
        let until = self.clock.now().boot + wait;
        let lane = self.lane(url);
        let mut quiet_until = lane.quiet_until();
        *quiet_until = until.max(*quiet_until);
    }

    /// How much longer the origin of `url` asked for quiet.
    pub fn quiet(&self, url: &Url) -> Duration {
        self.lane(url).quiet_until().since(self.clock.now().boot)
    }

    /// Waits for a slot and for the rate, as long as it takes; for quiet, only if it ends within `patience`.
    pub async fn enter(&self, url: &Url, patience: Duration) -> Result<Permit, Quiet> {
        let lane = self.lane(url);
        // The semaphore is never closed; if it were, there would be nothing to wait for.
        let slot = Arc::clone(&lane.slots).acquire_owned().await.ok();
        loop {
            let now = self.clock.now().boot;
            let left = lane.quiet_until().since(now);
            if left > patience {
                return Err(Quiet { left });
            }
            if !left.is_zero() {
                self.clock.sleep(left).await;
            } else if let Some(Err(not_until)) = lane.rate.as_ref().map(RateLimiter::check) {
                self.clock.sleep(not_until.wait_time_from(now.0)).await;
            } else {
                return Ok(Permit { _slot: slot });
            }
        }
    }

    fn lane(&self, url: &Url) -> Arc<Lane> {
        let origin = url.origin().ascii_serialization();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(origin).or_insert_with_key(|origin| {
            let pace = self.pacing.origins.get(origin).copied().unwrap_or(self.pacing.default);
            Arc::new(Lane::new(pace, Arc::clone(&self.clock)))
        });
        Arc::clone(lane)
    }
}

impl Lane {
    fn new(pace: Pace, clock: Arc<dyn Clock>) -> Self {
        let rate = |per_second| RateLimiter::direct_with_clock(Quota::per_second(per_second), BootClock(clock));
        Self {
            slots: Arc::new(Semaphore::new(pace.concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            rate: pace.per_second.map(rate),
            quiet_until: Mutex::default(),
        }
    }

    fn quiet_until(&self) -> MutexGuard<'_, Boot> {
        self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our clock in governor's words.
#[derive(Clone, Debug)]
struct BootClock(Arc<dyn Clock>);

impl governor::clock::Clock for BootClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.now().boot.0
    }
}

#[cfg(test)]
mod tests {
    use tokenkeep_testkit::ManualClock;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn pacer(pace: Pace) -> (ManualClock, Pacer, Url) {
        let clock = ManualClock::default();
        let pacing = Pacing { default: pace, origins: BTreeMap::new() };
        (clock.clone(), Pacer::new(Arc::new(clock), pacing), Url::parse("https://provider.example/token").unwrap())
    }

    #[tokio::test]
    async fn slots_are_per_origin_and_come_back() {
        let (_, mut pacer, url) = pacer(Pace::default());
        pacer.pacing.origins.insert("https://provider.example".into(), Pace { concurrency: 1, per_second: None });
        let first = pacer.enter(&url, PATIENCE).await.unwrap();
        let other = Url::parse("https://other.example").unwrap();
        pacer.enter(&other, PATIENCE).await.unwrap();
        let mut second = std::pin::pin!(pacer.enter(&url, PATIENCE));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(futures_util::poll!(&mut second).is_ready());
    }

    #[tokio::test]
    async fn a_rate_spreads_what_is_beyond_the_burst() {
        let (clock, pacer, url) = pacer(Pace { concurrency: 64, per_second: NonZeroU32::new(2) });
        for _ in 0..2 {
            pacer.enter(&url, PATIENCE).await.unwrap();
        }
        let mut third = std::pin::pin!(pacer.enter(&url, PATIENCE));
        assert!(futures_util::poll!(&mut third).is_pending());
        clock.advance(Duration::from_millis(499));
        assert!(futures_util::poll!(&mut third).is_pending());
        clock.advance(Duration::from_millis(1));
        assert!(futures_util::poll!(&mut third).is_ready());
    }

    #[tokio::test]
    async fn quiet_is_kept_and_the_longest_counts() {
        let (clock, pacer, url) = pacer(Pace::default());
        pacer.penalise(&url, Duration::from_secs(9));
        pacer.penalise(&url, Duration::from_secs(3));
        assert_eq!(pacer.enter(&url, PATIENCE).await.unwrap_err(), Quiet { left: Duration::from_secs(9) });
        clock.advance(Duration::from_secs(4));
        assert_eq!(pacer.quiet(&url), Duration::from_secs(5));
        let mut patient = std::pin::pin!(pacer.enter(&url, PATIENCE));
        assert!(futures_util::poll!(&mut patient).is_pending());
        clock.advance(Duration::from_secs(5));
        assert!(futures_util::poll!(&mut patient).is_ready());
    }
}
