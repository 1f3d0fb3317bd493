//! What the engine counts. Labels are words of ours and ids of integrations: never a tenant, a subject or a secret.

use std::sync::Mutex;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokenkeep_core::IntegrationId;

/// Every metric of the engine, and the registry that other layers add theirs to.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) l1_hits: Counter,
    pub(crate) l1_misses: Counter,
    pub(crate) l1_revalidations: Counter,
    pub(crate) store_reads: Counter,
    pub(crate) refreshes: Family<RefreshLabels, Counter>,
    pub(crate) upstream_calls: Family<UpstreamLabels, Counter>,
    pub(crate) logins: Family<LoginLabels, Counter>,
    pub(crate) journal_depth: Gauge,
    pub(crate) flights: Gauge,
    pub(crate) cleaned: Counter,
    pub(crate) l2_hits: Counter,
    pub(crate) l2_misses: Counter,
    pub(crate) l2_errors: Counter,
    pub(crate) tokens_issued: Family<IssuedLabels, Counter>,
    pub(crate) bus_sent: Counter,
    pub(crate) bus_unsent: Counter,
    pub(crate) bus_received: Counter,
    pub(crate) bus_lost: Counter,
    pub(crate) bus_foreign: Counter,
    pub(crate) bus_trusting: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefreshLabels {
    pub(crate) integration: String,
    pub(crate) outcome: RefreshOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpstreamLabels {
    pub(crate) integration: String,
    pub(crate) call: UpstreamCall,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LoginLabels {
    pub(crate) integration: String,
    pub(crate) outcome: LoginOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct IssuedLabels {
    pub(crate) grant_type: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the variants are the label's values")]
pub(crate) enum RefreshOutcome {
    refreshed,
    current,
    absent,
    blocked,
    backing_off,
    dead,
    failed,
    behind,
    store_unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the variants are the label's values")]
pub(crate) enum UpstreamCall {
    refresh,
    exchange,
    device,
    login,
    discovery,
    userinfo,
    revoke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the variants are the label's values")]
pub(crate) enum LoginOutcome {
    succeeded,
    /// The provider does not take the credentials.
    refused,
    /// Whatever else went wrong.
    failed,
}

/// Refreshes by outcome, for `stats`.
pub(crate) const OUTCOMES: [(&str, RefreshOutcome); 9] = [
    ("refreshed", RefreshOutcome::refreshed),
    ("current", RefreshOutcome::current),
    ("absent", RefreshOutcome::absent),
    ("blocked", RefreshOutcome::blocked),
    ("backing_off", RefreshOutcome::backing_off),
    ("dead", RefreshOutcome::dead),
    ("failed", RefreshOutcome::failed),
    ("behind", RefreshOutcome::behind),
    ("store_unavailable", RefreshOutcome::store_unavailable),
];

impl Metrics {
    /// A registry with the engine's metrics in it.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tokenkeep");
        let metrics = Self {
            l1_hits: Counter::default(),
            l1_misses: Counter::default(),
            l1_revalidations: Counter::default(),
            store_reads: Counter::default(),
            refreshes: Family::default(),
            upstream_calls: Family::default(),
            logins: Family::default(),
            journal_depth: Gauge::default(),
            flights: Gauge::default(),
            cleaned: Counter::default(),
            l2_hits: Counter::default(),
            l2_misses: Counter::default(),
            l2_errors: Counter::default(),
            tokens_issued: Family::default(),
            bus_sent: Counter::default(),
            bus_unsent: Counter::default(),
            bus_received: Counter::default(),
            bus_lost: Counter::default(),
            bus_foreign: Counter::default(),
            bus_trusting: Gauge::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("cache_l1_hits", "Tokens served from this process's memory", metrics.l1_hits.clone());
        registry.register("cache_l1_misses", "Tokens that were not there, or not fresh", metrics.l1_misses.clone());
        registry.register(
            "cache_l1_revalidations",
            "Cached tokens compared with the store",
            metrics.l1_revalidations.clone(),
        );
        registry.register("store_reads", "Connections read from the store for a token", metrics.store_reads.clone());
        registry.register("refreshes", "Refreshes by how they ended", metrics.refreshes.clone());
        registry.register("upstream_calls", "Requests sent to providers", metrics.upstream_calls.clone());
        registry.register("logins", "Logins with stored or given credentials, by outcome", metrics.logins.clone());
        registry.register(
            "journal_depth",
            "Replies kept on this disk that the store does not have yet",
            metrics.journal_depth.clone(),
        );
        registry.register("flights", "Refreshes under way", metrics.flights.clone());
        registry.register("cleaned", "Records and dead access tokens removed by clean-up", metrics.cleaned.clone());
        registry.register("tokens_issued", "Access tokens of ours by grant type", metrics.tokens_issued.clone());
        metrics.register_shared(&mut registry);
        *metrics.registry() = registry;
        metrics
    }

    /// What instances do together.
    fn register_shared(&self, registry: &mut Registry) {
        registry.register("cache_l2_hits", "Tokens served from the shared cache", self.l2_hits.clone());
        registry.register("cache_l2_misses", "Tokens that the shared cache did not have", self.l2_misses.clone());
        registry.register("cache_l2_errors", "Calls of the shared cache that failed", self.l2_errors.clone());
        registry.register("bus_messages_sent", "Messages that the bus took", self.bus_sent.clone());
        registry.register("bus_messages_unsent", "Messages that the bus did not take", self.bus_unsent.clone());
        registry.register("bus_messages_received", "Messages heard, our own too", self.bus_received.clone());
        registry.register("bus_messages_lost", "Messages missing by their numbers", self.bus_lost.clone());
        registry.register(
            "bus_messages_foreign",
            "Messages that nobody with our root key sent",
            self.bus_foreign.clone(),
        );
        registry.register(
            "bus_trusting",
            "Whether cached tokens are served on the word of the bus: 1, or 0 while the store is asked",
            self.bus_trusting.clone(),
        );
    }

    /// Lets another layer add its own.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry());
    }

    /// All of it, in the text format of `OpenMetrics`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry());
        text
    }

    pub(crate) fn refreshed(&self, integration: &IntegrationId, outcome: RefreshOutcome) {
        let labels = RefreshLabels { integration: integration.to_string(), outcome };
        self.refreshes.get_or_create(&labels).inc();
    }

    pub(crate) fn logged_in(&self, integration: &IntegrationId, outcome: LoginOutcome) {
        let labels = LoginLabels { integration: integration.to_string(), outcome };
        self.logins.get_or_create(&labels).inc();
    }

    pub(crate) fn issued(&self, grant_type: &'static str) {
        self.tokens_issued.get_or_create(&IssuedLabels { grant_type }).inc();
    }

    pub(crate) fn called(&self, integration: &IntegrationId, call: UpstreamCall) {
        let labels = UpstreamLabels { integration: integration.to_string(), call };
        self.upstream_calls.get_or_create(&labels).inc();
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
