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
    ports::{Clock, Limit},
};

use super::count::{Count, Grant};

/// The lines before the buckets.
#[derive(Debug)]
pub(super) struct Lines {
    count: Count,
    clock: Arc<dyn Clock>,
    open: Mutex<Open>,
}

/// The lines that are open.
#[derive(Debug, Default)]
struct Open {
    lines: HashMap<String, Arc<Line>>,
    /// So many were left when those were last closed at which nobody was.
    kept: usize,
}

/// So many are open before any is closed.
const TIDY_AT: usize = 1024;

/// One of the buckets that a call takes from.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) bucket: String,
    pub(super) limit: Limit,
}

/// What would take longer than one can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    /// Which of those that were wanted.
    pub(super) which: usize,
    /// How long it takes.
    pub(super) wait: Duration,
}

/// Those who wait at one bucket.
#[derive(Debug, Default)]
struct Line {
    /// Who asks whether there is one. One at a time: what they are told, the others need not ask.
    turn: tokio::sync::Mutex<()>,
    /// Who is at the head of the line. It is handed on in the order of asking.
    head: tokio::sync::Mutex<()>,
    /// How many there are, the head included.
    waiting: AtomicU32,
    /// There is none before this.
    none_before: Mutex<Boot>,
}

/// A place in the line, given up when dropped.
struct Place<'a>(&'a Line);

/// Nobody is told to come back at once after a wait in vain.
const LEAST: Duration = Duration::from_millis(100);

impl Lines {
    pub(super) fn new(count: Count, clock: Arc<dyn Clock>) -> Self {
        Self { count, clock, open: Mutex::default() }
    }

    /// Takes one from each bucket, all of them at one time, by `deadline`.
    ///
    /// Who is refused by one of them waits at the head of its line, or behind others, and then asks all of them again.
    pub(super) async fn take(&self, wanted: &[Wanted], deadline: Boot) -> Result<Vec<Grant>, TooLong> {
        let ahead = wanted.iter().position(|Wanted { bucket, .. }| self.is_waited_for(bucket));
        let mut empty = match ahead {
            Some(which) => which,
            None => match self.try_take(wanted).await {
                Ok(grants) => return Ok(grants),
                Err(which) => which,
            },
        };
        loop {
            let Wanted { bucket, limit } = &wanted[empty];
            let line = self.line(bucket);
            let too_long = |at: Boot| TooLong { which: empty, wait: at.since(self.now()).max(LEAST) };
            let likely = line.likely(*limit);
            if likely > deadline {
                return Err(too_long(likely));
            }
            let _place = line.join();
            let _head = tokio::select! {
                biased;
                head = line.head.lock() => head,
                () = self.clock.sleep_until(deadline) => return Err(too_long(line.likely(*limit))),
            };
            let next = loop {
                let none_before = *line.none_before();
                if none_before > deadline {
                    return Err(too_long(none_before));
                }
                self.clock.sleep_until(none_before).await;
                match self.try_take(wanted).await {
                    Ok(grants) => return Ok(grants),
                    Err(which) if which == empty => {}
                    Err(which) => break which,
                }
            };
            empty = next;
        }
    }

    /// Gives back what was taken and is not used.
    pub(super) async fn give_back(&self, grants: Vec<Grant>) {
        for grant in grants {
            *self.line(grant.bucket()).none_before() = self.now();
            self.count.give_back(grant).await;
        }
    }

    /// Takes one from each bucket, or from none; says which is empty.
    async fn try_take(&self, wanted: &[Wanted]) -> Result<Vec<Grant>, usize> {
        let mut grants = Vec::with_capacity(wanted.len());
        for (which, Wanted { bucket, limit }) in wanted.iter().enumerate() {
            match self.ask(bucket, *limit).await {
                Some(grant) => grants.push(grant),
                None => {
                    self.give_back(grants).await;
                    return Err(which);
                }
            }
        }
        Ok(grants)
    }

    async fn ask(&self, bucket: &str, limit: Limit) -> Option<Grant> {
        let line = self.line(bucket);
        let _turn = line.turn.lock().await;
        if *line.none_before() > self.now() {
            return None;
        }
        match self.count.take(bucket, limit).await {
            Ok(grant) => Some(grant),
            Err(wait) => {
                *line.none_before() = self.now() + wait;
                None
            }
        }
    }

    fn is_waited_for(&self, bucket: &str) -> bool {
        self.open().lines.get(bucket).is_some_and(|line| line.waiting.load(SeqCst) > 0)
    }

    fn line(&self, bucket: &str) -> Arc<Line> {
        let mut open = self.open();
        let Open { lines, kept } = &mut *open;
        if let Some(line) = lines.get(bucket) {
            return line.clone();
        }
        if lines.len() >= TIDY_AT.max(2 * *kept) {
            let now = self.now();
            lines.retain(|_, line| Arc::strong_count(line) > 1 || *line.none_before() > now);
            *kept = lines.len();
        }
        lines.entry(bucket.to_owned()).or_default().clone()
    }

    fn now(&self) -> Boot {
        self.clock.now().boot
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// When it would be the turn of one who came now, if nobody else took any.
    fn likely(&self, limit: Limit) -> Boot {
        let ahead = self.waiting.load(SeqCst);
        let after_them = match limit {
            Limit::Bucket { every, .. } => every.saturating_mul(ahead),
            Limit::Window { count, per } => per.saturating_mul(ahead / count),
        };
        *self.none_before() + after_them
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
