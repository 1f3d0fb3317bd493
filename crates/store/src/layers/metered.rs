use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tokenkeep_core::ports::Clock;

use super::{Answer, Call, Layer, Layered, Pending, outcome};

/// A store whose every call is counted and timed.
pub type Metered = Layered<Metering>;

/// Counts and times each call.
#[derive(Clone, Debug)]
pub struct Metering {
    metrics: StoreMetrics,
    clock: Arc<dyn Clock>,
}

impl Metering {
    /// Counts into `metrics`, by the boot clock of `clock`.
    pub fn new(metrics: StoreMetrics, clock: Arc<dyn Clock>) -> Self {
        Self { metrics, clock }
    }
}

/// `store_operations_total{operation, outcome}` and `store_operation_duration_seconds{operation}`.
#[derive(Clone)]
pub struct StoreMetrics {
    operations: Family<Ended, Counter>,
    duration: Family<Operation, Histogram>,
}

impl StoreMetrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        // 50 µs, a read from the page cache, to 6.5 s, a lock waited for in vain.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(50e-6, 2.0, 18));
        let metrics = Self { operations: Family::default(), duration: Family::new_with_constructor(histogram) };
        registry.register("store_operations", "Calls to the store, by how they ended", metrics.operations.clone());
        registry.register_with_unit(
            "store_operation_duration",
            "How long calls to the store took",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        metrics
    }
}

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMetrics").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    operation: &'static str,
    outcome: &'static str,
}

impl Layer for Metering {
    fn call<'a, T: Answer + 'a>(&'a self, call: Call, future: Pending<'a, T>) -> Pending<'a, T> {
        let operation = call.operation;
        Box::pin(async move {
            let start = self.clock.now().boot;
            let result = future.await;
            let took = self.clock.now().boot.since(start);
            self.metrics.duration.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
            self.metrics.operations.get_or_create(&Ended { operation, outcome: outcome(&result) }).inc();
            result
        })
    }
}
