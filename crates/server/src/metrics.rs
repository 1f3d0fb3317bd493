//! What the HTTP face counts.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Every metric of the HTTP face.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) fast_lane_hits: Counter,
    requests: Family<Labels, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    route: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// From a cache hit to a provider's deadline, in seconds.
const BUCKETS: [f64; 11] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            fast_lane_hits: Counter::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }

    /// Adds them to the `registry` of the engine, which puts `tokenkeep_` before every name.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let hits = self.fast_lane_hits.clone();
        registry.register("http_fast_lane_hits", "Requests answered before any routing", hits);
        let requests = self.requests.clone();
        registry.register("http_requests", "Routed requests by route and class of status", requests);
        registry.register_with_unit(
            "http_request_duration",
            "How long routed requests took",
            Unit::Seconds,
            self.durations.clone(),
        );
    }

    /// Counts one answer of the router.
    pub(crate) fn answered(&self, route: &str, status: StatusCode, took: Duration) {
        let class = format!("{}xx", status.as_u16() / 100);
        self.requests.get_or_create(&Labels { route: route.to_owned(), status: class }).inc();
        self.durations.get_or_create(&Route { route: route.to_owned() }).observe(took.as_secs_f64());
    }
}
