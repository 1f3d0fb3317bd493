//! What is counted.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What a [`Redis`](super::Redis) counts: `redis_waits_total{outcome}`, the writes that waited until a replica, or the
/// disk, had them. `in_time`: it had. `late`: it had not when the wait was over, and what was written is lost if the
/// primary is lost before that.
#[derive(Clone, Debug)]
pub struct RedisMetrics {
    waits: Family<Waited, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    outcome: &'static str,
}

const IN_TIME: &str = "in_time";
const LATE: &str = "late";

impl RedisMetrics {
    /// Has `registry` show them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "redis_waits",
            "Writes that waited for a replica or the disk of Redis, by whether it had them in time",
            self.waits.clone(),
        );
    }

    /// Both from zero, so that the first late one is seen as a rise.
    pub(super) fn new() -> Self {
        let metrics = Self { waits: Family::default() };
        for outcome in [IN_TIME, LATE] {
            drop(metrics.waits.get_or_create(&Waited { outcome }));
        }
        metrics
    }

    pub(super) fn waited(&self, in_time: bool) {
        let outcome = if in_time { IN_TIME } else { LATE };
        self.waits.get_or_create(&Waited { outcome }).inc();
    }
}
