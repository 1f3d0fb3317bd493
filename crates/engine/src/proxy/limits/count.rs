//! Counting over all instances; and what each does by itself while what they share does not answer.
//!
//! Each instance notes what it was granted. While the counter is out of reach it grants its part of each limit, by its
//! own notes: the limit divided by the number of instances that it knows of, or all of it where it knows of none. So
//! no more than the limit is sent in a window that lies wholly within the outage. In the one in which it begins, and in
//! the one in which it ends, what others took meanwhile is not known: up to a part per instance may be sent beyond the
//! limit. When the counter is back, what was granted without it is taken from it first.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokenkeep_core::{
    Boot, Buckets,
    ports::{Clock, Counter, CounterError, Limit, Taken},
};

use crate::{bus, conditions::Condition};

/// A counter that always answers.
#[derive(Debug)]
pub(super) struct Count {
    shared: Option<Arc<dyn Counter>>,
    condition: Arc<Condition>,
    instances: bus::Link,
    clock: Arc<dyn Clock>,
    own: Mutex<Own>,
}

/// One that was taken.
#[derive(Debug)]
pub(super) struct Grant {
    bucket: String,
    limit: Limit,
    by: By,
}

impl Grant {
    /// From which.
    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }
}

/// Who granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The counter of all instances.
    All,
    /// This instance, for want of that.
    Us,
}

/// What this instance knows by itself.
#[derive(Debug, Default)]
struct Own {
    /// What it was granted, by whomever.
    granted: Buckets,
    /// How many it granted itself of which the counter does not know yet.
    untold: HashMap<String, (Limit, u32)>,
    /// The counter is not asked before this.
    ask_again: Boot,
}

/// So many grants of one bucket are told at most: where it is about more, a few make no difference.
const MOST_TOLD: u32 = 100;

/// So many buckets are told about later before those are forgotten of which everything is back.
const TIDY_AT: usize = 4096;

impl Own {
    fn note_untold(&mut self, bucket: &str, limit: Limit, now: Boot) {
        let Self { granted, untold, .. } = self;
        if untold.len() >= TIDY_AT {
            untold.retain(|bucket, (limit, _)| granted.missing(bucket, *limit, now) > 0);
        }
        let (told_with, count) = untold.entry(bucket.to_owned()).or_insert((limit, 0));
        (*told_with, *count) = (limit, *count + 1);
    }

    /// Whether there is one more to tell of; from then on it is told.
    fn next_untold(&mut self, bucket: &str, limit: Limit, now: Boot) -> bool {
        let Self { granted, untold, .. } = self;
        let Some((_, count)) = untold.get_mut(bucket) else { return false };
        *count = granted.missing(bucket, limit, now).min(*count).min(MOST_TOLD);
        if *count == 0 {
            untold.remove(bucket);
            return false;
        }
        *count -= 1;
        true
    }
}

/// How long the counter may take to answer. One that writes to a disk may take its time; what is worse is a window
/// that is counted in parts.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long it is not asked after it did not answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Count {
    pub(super) fn new(
        shared: Option<Arc<dyn Counter>>,
        condition: Arc<Condition>,
        instances: bus::Link,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { shared, condition, instances, clock, own: Mutex::default() }
    }

    /// Takes one from `bucket`, or says how long there will be none.
    pub(super) async fn take(&self, bucket: &str, limit: Limit) -> Result<Grant, Duration> {
        let (taken, by) = match &self.shared {
            Some(shared) if self.may_ask() => match self.take_shared(&**shared, bucket, limit).await {
                Ok(taken) => (taken, By::All),
                Err(error) => {
                    self.condition.lost(self.now(), &error);
                    self.own().ask_again = self.now() + ASK_AGAIN_AFTER;
                    (self.take_alone(bucket, limit), By::Us)
                }
            },
            Some(_) => (self.take_alone(bucket, limit), By::Us),
            None => (self.own().granted.take(bucket, limit, self.now()), By::Us),
        };
        match taken {
            Taken::Granted => Ok(Grant { bucket: bucket.to_owned(), limit, by }),
            // The counter may be back sooner, and wants to be told.
            Taken::Wait(wait) if by == By::Us && self.shared.is_some() => Err(wait.min(ASK_AGAIN_AFTER)),
            Taken::Wait(wait) => Err(wait),
        }
    }

    /// Whether the counter is to be asked. While it is lost, one finds out whether it is back.
    fn may_ask(&self) -> bool {
        let (now, mut own) = (self.now(), self.own());
        if own.ask_again > now {
            return false;
        }
        if !self.condition.is_well() {
            own.ask_again = now + ANSWER_WITHIN;
        }
        true
    }

    /// Gives back what was not used. If the counter does not take it, it was used for nothing.
    pub(super) async fn give_back(&self, Grant { bucket, limit, by }: Grant) {
        match (&self.shared, by) {
            (Some(shared), By::All) => {
                let given = tokio::select! {
                    biased;
                    given = shared.give_back(&bucket, limit) => given.is_ok(),
                    () = self.clock.sleep(ANSWER_WITHIN) => false,
                };
                if !given {
                    return;
                }
            }
            (Some(_), By::Us) => drop(self.own().next_untold(&bucket, limit, self.now())),
            (None, _) => {}
        }
        self.own().granted.give_back(&bucket, limit);
    }

    async fn take_shared(&self, shared: &dyn Counter, bucket: &str, limit: Limit) -> Result<Taken, CounterError> {
        self.tell(shared, bucket, limit).await?;
        let taken = self.ask(shared, bucket, limit).await?;
        if !self.condition.is_well() {
            self.condition.well(self.now());
            self.own().ask_again = Boot::default();
        }
        if taken == Taken::Granted {
            self.own().granted.note(bucket, limit, self.now());
        }
        Ok(taken)
    }

    fn take_alone(&self, bucket: &str, limit: Limit) -> Taken {
        let (instances, now) = (self.instances.instances().unwrap_or(NonZeroU32::MIN), self.now());
        let mut own = self.own();
        let taken = own.granted.take_part(bucket, limit, instances, now);
        if taken == Taken::Granted {
            own.note_untold(bucket, limit, now);
        }
        taken
    }

    /// Takes from the counter what was granted without it, as far as it still matters.
    async fn tell(&self, shared: &dyn Counter, bucket: &str, limit: Limit) -> Result<(), CounterError> {
        while self.own().next_untold(bucket, limit, self.now()) {
            match self.ask(shared, bucket, limit).await {
                Ok(Taken::Granted) => {}
                // There is nothing left to take it from.
                Ok(Taken::Wait(_)) => drop(self.own().untold.remove(bucket)),
                Err(error) => {
                    self.own().note_untold(bucket, limit, self.now());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn ask(&self, shared: &dyn Counter, bucket: &str, limit: Limit) -> Result<Taken, CounterError> {
        tokio::select! {
            biased;
            answer = shared.take(bucket, limit) => answer,
            () = self.clock.sleep(ANSWER_WITHIN) => {
                Err(CounterError { reason: format!("no answer within {ANSWER_WITHIN:?}") })
            }
        }
    }

    fn now(&self) -> Boot {
        self.clock.now().boot
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
