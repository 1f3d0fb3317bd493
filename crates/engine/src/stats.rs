//! Counts for people and dashboards.

use std::collections::BTreeMap;

use serde::Serialize;
use tokenkeep_core::{
    Action, Connection, Status,
    ports::{Filter, Scope},
};

use crate::{
    Caller, Error,
    connections::{ConnectionView, Connections},
    metrics::{OUTCOMES, RefreshLabels},
    records::Loaded,
};

/// Counts of what the caller may see.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Connections in all.
    pub connections: u64,
    /// Connections by status.
    pub by_status: BTreeMap<&'static str, u64>,
    /// Connections by integration.
    pub by_provider: BTreeMap<String, u64>,
    /// Records that are there and cannot be read.
    pub unreadable: u64,
    /// The cache in this process, since it started.
    pub cache: CacheStats,
    /// Refreshes by this process since it started, by outcome.
    pub refreshes: BTreeMap<&'static str, u64>,
    /// Refreshes under way here.
    pub refreshing: u64,
    /// Replies that the store does not have yet.
    pub journal_depth: u64,
}

/// How often the cache had what was asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CacheStats {
    /// Tokens in it.
    pub entries: u64,
    /// Served from it.
    pub hits: u64,
    /// Not there, or not fresh.
    pub misses: u64,
    /// `hits / (hits + misses)`; 0 before the first.
    pub hit_rate: f64,
}

const PAGE: u32 = 500;

impl Connections {
    /// Counts what the caller may see. Reads every record: not for every second.
    pub(crate) async fn stats(&self, caller: &Caller) -> Result<Stats, Error> {
        caller.may(Action::ReadStats)?;
        let mut stats = Stats::default();
        for status in Status::ALL {
            stats.by_status.insert(status.as_str(), 0);
        }
        let now = self.shared.now().wall;
        let scope = caller.scope(None);
        let mut cursor = None;
        loop {
            let page = self.shared.records.list::<Connection>(scope.clone(), Filter::All, PAGE, cursor).await?;
            for item in page.items {
                let connection = match item.content {
                    Ok(Loaded::Live(stored)) => stored.value,
                    Ok(_) => continue,
                    Err(_) => {
                        stats.unreadable += 1;
                        continue;
                    }
                };
                let id = &connection.id;
                if !caller.sees_tenant(&id.tenant) || !caller.sees_integration(&id.integration) {
                    continue;
                }
                let policy = self.policy(&id.integration).await;
                let view = ConnectionView::new(&connection, &policy, now);
                stats.connections += 1;
                *stats.by_status.entry(view.status.as_str()).or_default() += 1;
                *stats.by_provider.entry(id.integration.to_string()).or_default() += 1;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if scope == Scope::Every && caller.is_unbound() {
            self.add_process_counts(&mut stats);
        }
        Ok(stats)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits than f64 has")]
    fn add_process_counts(&self, stats: &mut Stats) {
        let metrics = &self.shared.metrics;
        let (hits, misses) = (metrics.l1_hits.get(), metrics.l1_misses.get());
        let asked = hits + misses;
        let hit_rate = if asked == 0 { 0.0 } else { hits as f64 / asked as f64 };
        stats.cache = CacheStats { entries: self.flights.cache.entries(), hits, misses, hit_rate };
        for (word, outcome) in OUTCOMES {
            let count = stats
                .by_provider
                .keys()
                .map(|integration| {
                    let labels = RefreshLabels { integration: integration.clone(), outcome };
                    metrics.refreshes.get(&labels).map_or(0, |counter| counter.get())
                })
                .sum();
            stats.refreshes.insert(word, count);
        }
        stats.refreshing = self.flights.flying() as u64;
        stats.journal_depth = self.flights.kept.unsettled() as u64;
    }
}
