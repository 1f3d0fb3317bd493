//! Waiting for a bucket, in the order in which one came.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tokenkeep_core::{
    Boot,
    ports::{Clock, Limit, Taken},
};

use super::count::Count;

/// The lines before the buckets that are empty.
#[derive(Debug)]
pub(super) struct Lines {
    count: Count,
    clock: Arc<dyn Clock>,
    lines: Mutex<HashMap<String, Arc<Line>>>,
}

/// Those who wait at one bucket.
#[derive(Debug, Default)]
struct Line {
    /// Who is at the head of the line. It is handed on in the order of asking.
    head: tokio::sync::Mutex<()>,
    /// How many there are, the head included.
    waiting: AtomicU32,
    /// There is none before this.
    none_before: Mutex<Boot>,
}

/// A place in the line, given up when dropped.
struct Place<'a>(&'a Line);

impl Lines {
    pub(super) fn new(count: Count, clock: Arc<dyn Clock>) -> Self {
        Self { count, clock, lines: Mutex::default() }
    }

    /// Takes one from `bucket`, and says whether it took a wait; or, if none will be there by `deadline`, how long it
    /// takes.
    pub(super) async fn take(&self, bucket: &str, limit: Limit, deadline: Boot) -> Result<bool, Duration> {
        if !self.is_waited_for(bucket) {
            match self.count.take(bucket, limit).await {
                Taken::Granted => return Ok(false),
                Taken::Wait(wait) => self.line(bucket).none_for(wait, self.now()),
            }
        }
        let line = self.line(bucket);
        let now = self.now();
        let likely = line.likely(limit);
        if likely > deadline {
            return Err(likely.since(now));
        }
        let _place = line.join();
        let _head = tokio::select! {
            biased;
            head = line.head.lock() => head,
            () = self.clock.sleep_until(deadline) => return Err(line.likely(limit).since(self.now()).max(LEAST)),
        };
        loop {
            let none_before = *line.none_before();
            if none_before > deadline {
                return Err(none_before.since(self.now()));
            }
            self.clock.sleep_until(none_before).await;
            match self.count.take(bucket, limit).await {
                Taken::Granted => return Ok(true),
                Taken::Wait(wait) => line.none_for(wait, self.now()),
            }
        }
    }

    fn is_waited_for(&self, bucket: &str) -> bool {
        self.lines().get(bucket).is_some_and(|line| line.waiting.load(SeqCst) > 0)
    }

    fn line(&self, bucket: &str) -> Arc<Line> {
        let mut lines = self.lines();
        if let Some(line) = lines.get(bucket) {
            return line.clone();
        }
        // There is a line only where somebody had to wait, and not for long.
        let now = self.now();
        lines.retain(|_, line| Arc::strong_count(line) > 1 || *line.none_before() > now);
        lines.entry(bucket.to_owned()).or_default().clone()
    }

    fn now(&self) -> Boot {
        self.clock.now().boot
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<String, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody is told to come back at once after a wait in vain.
const LEAST: Duration = Duration::from_millis(100);

impl Line {
    fn none_for(&self, wait: Duration, now: Boot) {
        *self.none_before() = now + wait;
    }

    /// When it would be the turn of one who came now, if nobody else took any.
    fn likely(&self, limit: Limit) -> Boot {
        let ahead = self.waiting.load(SeqCst);
        let after_them = match limit {
            Limit::Bucket { every, .. } => every.saturating_mul(ahead),
            Limit::Window { count, per } => per.saturating_mul(ahead / count),
        };
        Boot(self.none_before().0.saturating_add(after_them))
    }

    fn join(&self) -> Place<'_> {
        self.waiting.fetch_add(1, SeqCst);
        Place(self)
    }

    fn none_before(&self) -> MutexGuard<'_, Boot> {
        self.none_before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}
