//! How often a provider's API is called: as often as the catalogue says that it allows, over all instances, and not
//! while it asked for quiet.
//!
//! Who comes too early waits, as long as the caller's patience lasts and the caller is there. Nobody starves: those who
//! wait at one instance are served in the order in which they came, and who comes later does not overtake them
//! (`line`); between instances, whose turn is next is a matter of luck, each time anew. Who would wait longer than the
//! caller's patience lasts is told so at once, and for how long.

mod count;
mod line;
mod quiet;

use std::{cmp::Reverse, sync::Arc, time::Duration};

use http::Response;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter as Metric, family::Family, histogram::Histogram},
};
use tokenkeep_core::{
    Boot, ConnectionId, Now,
    ports::{Clock, Counter},
    provider::{Api, ApiLimit, LimitPer},
};
use tokenkeep_oauth::parse_quiet;

use self::{
    count::{Count, Grant},
    line::{Lines, TooLong, Wanted},
    quiet::Quiet,
};
use crate::{Error, bus, conditions::Condition, integrations::Party, metrics::Metrics, records::Records};

/// How often providers' APIs may be called.
#[derive(Debug)]
pub(crate) struct Limits {
    lines: Lines,
    quiet: Quiet,
    records: Records,
    clock: Arc<dyn Clock>,
    waits: Family<WaitLabels, Histogram>,
    refusals: Family<RefusalLabels, Metric>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    integration: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    integration: String,
    /// Whose limit it is: `all`, `tenant`, `subject`, or `provider` for the quiet that a provider asked for.
    limit: &'static str,
}

/// One more request may be sent.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    grants: Vec<Grant>,
    /// Whether that took any time.
    pub(crate) waited: bool,
}

/// There will be none while the caller has patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    limit: &'static str,
    wait: Duration,
}

const WAIT_BUCKETS: [f64; 7] = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

impl Limits {
    /// Counts with `counter`, which all instances share; without one, in this process.
    pub(crate) fn new(
        counter: Option<Arc<dyn Counter>>,
        condition: Arc<Condition>,
        instances: bus::Link,
        records: Records,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(WAIT_BUCKETS);
        let (waits, refusals) = (Family::new_with_constructor(histogram), Family::default());
        metrics.register(|registry| {
            registry.register("api_wait_seconds", "How long calls waited for a provider's limits", waits.clone());
            registry.register(
                "api_limit_refusals",
                "Calls that were refused because of a provider's limits",
                refusals.clone(),
            );
        });
        let count = Count::new(counter, condition, instances, clock.clone());
        Self { lines: Lines::new(count, clock.clone()), quiet: Quiet::default(), records, clock, waits, refusals }
    }

    /// Waits until one more call may be sent for `id`, for `patience` at most. To be asked for each request that is
    /// sent, a repeated one too, and right before it is sent: what is granted is for now. Who sends nothing then
    /// [gives it back](Self::give_back).
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] if it would take longer, and how long.
    pub(crate) async fn enter(&self, party: &Party, id: &ConnectionId, patience: Duration) -> Result<Entered, Error> {
        let api = &party.provider.api;
        if api.limits.is_empty() && self.quiet.is_over() {
            return Ok(Entered::default());
        }
        Box::pin(self.enter_api(api, id, patience)).await
    }

    /// Nothing was sent: others may.
    pub(crate) async fn give_back(&self, entered: Entered) {
        self.lines.give_back(entered.grants).await;
    }

    async fn enter_api(&self, api: &Api, id: &ConnectionId, patience: Duration) -> Result<Entered, Error> {
        let began = self.clock.now().boot;
        let entered = self.pass(api, id, began + patience).await;
        let integration = id.integration.to_string();
        let waited = self.clock.now().boot.since(began);
        if !waited.is_zero() {
            let labels = WaitLabels { integration: integration.clone() };
            self.waits.get_or_create(&labels).observe(waited.as_secs_f64());
        }
        entered.map(|grants| Entered { grants, waited: !waited.is_zero() }).map_err(|Refused { limit, wait }| {
            self.refusals.get_or_create(&RefusalLabels { integration, limit }).inc();
            let what = if limit == QUIET {
                "the provider asked not to be called at present"
            } else {
                "the provider allows no more calls at present"
            };
            Error::TooMany { what, retry_after: wait }
        })
    }

    /// The same for a login, which counts as a call at some providers.
    pub(crate) async fn enter_login(&self, party: &Party, id: &ConnectionId, patience: Duration) -> Result<(), Error> {
        if party.provider.api.logins_count {
            self.enter(party, id, patience).await?;
        }
        Ok(())
    }

    /// Looks for what a reply says of limits. Where it asks for quiet, `id` calls no more until that is over; nobody
    /// does, if the provider is known to count all calls as one. Other instances are not told: each hears it for
    /// itself, at the cost of a call.
    pub(crate) fn heard<B>(&self, party: &Party, id: &ConnectionId, reply: &Response<B>, now: Now) {
        if let Some(wait) = parse_quiet(reply.status(), reply.headers(), now.wall) {
            self.quiet.ask(&party.provider.api, id, now.boot, wait);
        }
    }

    async fn pass(&self, api: &Api, id: &ConnectionId, deadline: Boot) -> Result<Vec<Grant>, Refused> {
        let mut limits: Vec<(usize, &ApiLimit)> = api.limits.iter().enumerate().collect();
        // The narrowest first: who takes more than their part finds that out before they take from the others.
        limits.sort_by_key(|(_, limit)| Reverse(limit.per));
        let wanted: Vec<Wanted> = limits
            .iter()
            .map(|(nth, limit)| Wanted {
                bucket: self.bucket(limit.per, id, *nth),
                limit: limit.with_margin(api.latency_margin),
            })
            .collect();
        loop {
            self.until_quiet_is_over(api, id, deadline).await?;
            let grants = self.lines.take(&wanted, deadline).await.map_err(|TooLong { which, wait }| Refused {
                limit: limits.get(which).map_or(QUIET, |(_, limit)| limit.per.as_str()),
                wait,
            })?;
            if self.quiet.until(api, id, self.clock.now().boot).is_none() {
                return Ok(grants);
            }
            self.lines.give_back(grants).await;
        }
    }

    async fn until_quiet_is_over(&self, api: &Api, id: &ConnectionId, deadline: Boot) -> Result<(), Refused> {
        loop {
            let now = self.clock.now().boot;
            let Some(until) = self.quiet.until(api, id, now) else { return Ok(()) };
            if until > deadline {
                return Err(Refused { limit: QUIET, wait: until.since(now) });
            }
            self.clock.sleep_until(until).await;
        }
    }

    /// What the bucket of the `nth` limit is called. Short, and names nobody.
    fn bucket(&self, per: LimitPer, id: &ConnectionId, nth: usize) -> String {
        let (labels, integration) = (self.records.labels(), &id.integration);
        match per {
            LimitPer::All => format!("calls:{integration}:{nth}"),
            LimitPer::Tenant => format!("calls:{integration}:{nth}:tenant:{}", labels.tenant(&id.tenant)),
            LimitPer::Subject => format!("calls:{integration}:{nth}:subject:{}", labels.connection(id)),
        }
    }
}

/// The limit that a provider speaks of itself.
const QUIET: &str = "provider";

#[cfg(test)]
mod tests;
