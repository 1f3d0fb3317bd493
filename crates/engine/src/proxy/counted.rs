//! How many calls, how they ended, and how long their replies took.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Unit,
};
use tokenkeep_core::IntegrationId;

use crate::metrics::Metrics;

/// Of all integrations.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    calls: Family<Call, Counter>,
    durations: Family<Integration, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    integration: String,
    /// `2xx` and so on; `none` where there was no reply.
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Integration {
    integration: String,
}

/// In seconds.
const BUCKETS: [f64; 11] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Of one integration: nothing is looked up for a call.
#[derive(Debug)]
pub(super) struct CountedHere {
    calls: [Counter; STATUSES.len()],
    durations: Histogram,
}

impl Counted {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let durations: fn() -> Histogram = || Histogram::new(BUCKETS);
        let this = Self { calls: Family::default(), durations: Family::new_with_constructor(durations) };
        metrics.register(|registry| {
            registry.register("api_calls", "Calls to providers' APIs by class of status", this.calls.clone());
            let durations = this.durations.clone();
            registry.register_with_unit(
                "api_call_duration",
                "How long the heads of replies took",
                Unit::Seconds,
                durations,
            );
        });
        this
    }

    pub(super) fn of(&self, integration: &IntegrationId) -> CountedHere {
        let integration = integration.to_string();
        let call = |status| self.calls.get_or_create(&Call { integration: integration.clone(), status }).clone();
        let calls = STATUSES.map(call);
        CountedHere { calls, durations: self.durations.get_or_create(&Integration { integration }).clone() }
    }
}

impl CountedHere {
    /// Counts one call, whose reply took so long to begin; `None` = there was none.
    pub(super) fn count(&self, status: Option<StatusCode>, took: Duration) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        if let Some(calls) = self.calls.get(class) {
            calls.inc();
        }
        self.durations.observe(took.as_secs_f64());
    }
}
