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

#[cfg(all(test, feature = "memory"))]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use jiff::Timestamp;
    use tokenkeep_core::{
        Boot, Now, Tenant,
        ports::{BoxFuture, Kind, RecordKey, Store},
    };

    use super::*;
    use crate::Memory;

    /// A second later whenever it is read.
    #[derive(Debug, Default)]
    struct Ticking(AtomicU64);

    impl Clock for Ticking {
        fn now(&self) -> Now {
            let seconds = self.0.fetch_add(1, Ordering::Relaxed);
            Now { wall: Timestamp::UNIX_EPOCH, boot: Boot(Duration::from_secs(seconds)) }
        }
        fn sleep_until(&self, _: Boot) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn calls_are_counted_by_outcome_and_timed() {
        let mut registry = Registry::default();
        let metering = Metering::new(StoreMetrics::register(&mut registry), Arc::<Ticking>::default());
        let store = Metered::around(Arc::new(Memory::new()), metering);
        let key = RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: "alice".into() };
        store.get(&key).await.unwrap();
        store.get(&key).await.unwrap();
        store.ping().await.unwrap();
        let mut shown = String::new();
        prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
        for line in [
            r#"store_operations_total{operation="get",outcome="absent"} 2"#,
            r#"store_operations_total{operation="ping",outcome="ok"} 1"#,
            r#"store_operation_duration_seconds_sum{operation="get"} 2.0"#,
        ] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
        assert!(!shown.contains("alice"));
    }
}
