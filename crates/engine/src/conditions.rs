//! How the parts that this instance needs stand: one line in the log when one is lost, one when it is back, and a
//! gauge for each. Whoever uses a part says how it went, every time; what did not change costs one atomic read.

use std::{
    fmt::Display,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use tokenkeep_core::Boot;

use crate::metrics::Metrics;

/// All parts.
#[derive(Debug)]
pub(crate) struct Conditions {
    /// The store answers.
    pub(crate) store: Arc<Condition>,
    /// The store takes what is written.
    pub(crate) store_writes: Arc<Condition>,
    /// Other instances are heard.
    pub(crate) bus: Arc<Condition>,
    /// The shared cache answers.
    pub(crate) cache: Arc<Condition>,
    /// What counts over all instances answers.
    pub(crate) counter: Arc<Condition>,
    /// Replies can be made durable on this machine.
    pub(crate) journal: Arc<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

impl Conditions {
    /// All well, until somebody says otherwise.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauges = Family::<PartLabels, Gauge>::default();
        metrics.register(|registry| {
            registry.register("part_available", "Whether a part works: 1, or 0 while it does not", gauges.clone());
        });
        let part = |part| {
            let gauge = gauges.get_or_create(&PartLabels { part }).clone();
            gauge.set(1);
            Arc::new(Condition { part, lost: AtomicBool::default(), since: Mutex::default(), gauge })
        };
        Self {
            store: part("store"),
            store_writes: part("store_writes"),
            bus: part("bus"),
            cache: part("cache"),
            counter: part("counter"),
            journal: part("journal"),
        }
    }
}

/// How one part stands.
#[derive(Debug)]
pub(crate) struct Condition {
    part: &'static str,
    lost: AtomicBool,
    since: Mutex<Option<Boot>>,
    gauge: Gauge,
}

impl Condition {
    /// Whether it works, as far as is known.
    pub(crate) fn is_well(&self) -> bool {
        !self.lost.load(Relaxed)
    }

    /// It works.
    pub(crate) fn well(&self, now: Boot) {
        if self.lost.load(Relaxed)
            && let Some(down) = self.turn(None, now)
        {
            tracing::info!(part = self.part, after = ?down, "back again");
        }
    }

    /// It does not.
    pub(crate) fn lost(&self, now: Boot, reason: &dyn Display) {
        if !self.lost.load(Relaxed) && self.turn(Some(now), now).is_some() {
            tracing::warn!(part = self.part, %reason, "unavailable; this instance goes on without");
        }
    }

    /// Notes the change, if it is one: of several who notice it together, one writes the line. Answers how long the
    /// part was lost.
    fn turn(&self, lost: Option<Boot>, now: Boot) -> Option<Duration> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_some() == lost.is_some() {
            return None;
        }
        self.lost.store(lost.is_some(), Relaxed);
        self.gauge.set(i64::from(lost.is_none()));
        Some(std::mem::replace(&mut *since, lost).map_or(Duration::ZERO, |at| now.since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_turns_once() {
        let metrics = Metrics::new();
        let conditions = Conditions::new(&metrics);
        let (store, start) = (&conditions.store, Boot::default());
        assert_eq!(store.turn(None, start), None, "it was well before");
        store.lost(start, &"cut");
        assert_eq!(store.turn(Some(start), start), None, "once is enough");
        assert!(!store.is_well() && conditions.bus.is_well());
        assert!(metrics.render().contains("tokenkeep_part_available{part=\"store\"} 0"), "{}", metrics.render());
        assert_eq!(store.turn(None, start + Duration::from_secs(7)), Some(Duration::from_secs(7)));
        assert!(store.is_well());
        assert!(metrics.render().contains("tokenkeep_part_available{part=\"store\"} 1"));
    }
}
