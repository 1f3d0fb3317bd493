use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokenkeep_core::{
    Boot, Now,
    ports::{BoxFuture, Clock},
    time::after,
};
use tokio::sync::watch;

/// A [`Clock`] that stands still until the test moves it. Clones show the same time.
///
/// Waiting is by event: a sleep completes in the very [`advance`](Self::advance) that reaches it, and
/// [`sleepers`](Self::sleepers) tells a test that the code it drives has come to its wait, so that nothing is
/// advanced too early.
#[derive(Clone, Debug)]
pub struct ManualClock {
    time: watch::Sender<Now>,
    waiting: Arc<watch::Sender<Waiting>>,
}

/// Until when each sleep lasts, by its number.
#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    until: BTreeMap<u64, Boot>,
}

impl Default for ManualClock {
    /// Starts at 2026-01-01T00:00:00Z, an hour after boot.
    fn default() -> Self {
        Self::at(Timestamp::constant(1_767_225_600, 0))
    }
}

impl ManualClock {
    /// Starts at `wall`, an hour after boot.
    pub fn at(wall: Timestamp) -> Self {
        let now = Now { wall, boot: Boot(Duration::from_hours(1)) };
        Self { time: watch::Sender::new(now), waiting: Arc::default() }
    }

    /// Moves both clocks.
    pub fn advance(&self, by: Duration) {
        self.time.send_modify(|now| *now = Now { wall: after(now.wall, by), boot: now.boot + by });
    }

    /// Moves the wall clock alone, either way, as an operator or NTP does. Nobody's sleep ends by it.
    pub fn jump_wall(&self, by: SignedDuration) {
        self.time.send_modify(|now| now.wall = now.wall.saturating_add(by).unwrap_or(now.wall));
    }

    /// Sets the wall clock alone.
    pub fn set_wall(&self, wall: Timestamp) {
        self.time.send_modify(|now| now.wall = wall);
    }

    /// Waits until at least `count` sleeps are being waited for.
    pub async fn sleepers(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives in `self`, so the channel cannot close under us.
        let _open = waiting.wait_for(|waiting| waiting.until.len() >= count).await;
    }

    /// Waits until somebody sleeps, then advances to the end of the shortest sleep. Says by how much.
    pub async fn advance_to_next_wake(&self) -> Duration {
        self.sleepers(1).await;
        let until = self.waiting.borrow().until.values().min().copied();
        let by = until.map_or(Duration::ZERO, |until| until.since(self.now().boot));
        self.advance(by);
        by
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.time.borrow()
    }

    fn sleep_until(&self, until: Boot) -> BoxFuture<'static, ()> {
        let mut time = self.time.subscribe();
        let waiting = Arc::clone(&self.waiting);
        Box::pin(async move {
            if time.borrow().boot >= until {
                return;
            }
            let _sleeping = Sleeping::enter(waiting, until);
            if time.wait_for(|now| now.boot >= until).await.is_err() {
                // Every clock is gone: nobody will ever say that the time has come.
                std::future::pending::<()>().await;
            }
        })
    }
}

/// One sleep being waited for; leaves the list when it ends or is dropped.
struct Sleeping {
    waiting: Arc<watch::Sender<Waiting>>,
    id: u64,
}

impl Sleeping {
    fn enter(waiting: Arc<watch::Sender<Waiting>>, until: Boot) -> Self {
        let mut id = 0;
        waiting.send_modify(|waiting| {
            id = waiting.next_id;
            waiting.next_id += 1;
            waiting.until.insert(id, until);
        });
        Self { waiting, id }
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        self.waiting.send_modify(|waiting| {
            waiting.until.remove(&self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleep_ends_in_the_advance_that_reaches_it() {
        let clock = ManualClock::default();
        let sleep = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.sleepers(1).await;
        clock.advance(Duration::from_secs(9));
        clock.jump_wall(SignedDuration::from_hours(24));
        tokio::task::yield_now().await;
        assert!(!sleep.is_finished());
        clock.advance(Duration::from_secs(1));
        sleep.await.unwrap();
        assert!(clock.waiting.borrow().until.is_empty());
    }

    #[tokio::test]
    async fn a_dropped_sleep_is_no_sleeper() {
        let clock = ManualClock::default();
        let long = tokio::spawn(clock.sleep(Duration::from_secs(100)));
        let short = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.sleepers(2).await;
        short.abort();
        assert!(short.await.is_err());
        assert_eq!(clock.advance_to_next_wake().await, Duration::from_secs(100));
        long.await.unwrap();
    }

    #[test]
    fn the_wall_jumps_alone() {
        let clock = ManualClock::default();
        let before = clock.now();
        clock.jump_wall(SignedDuration::from_secs(-5));
        assert_eq!(clock.now().boot, before.boot);
        assert!(clock.now().wall < before.wall);
    }
}
