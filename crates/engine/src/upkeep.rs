//! What an engine does by itself: refreshing what is due, cleaning up what is dead.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokenkeep_core::{
    Action, Connection, change,
    ports::{Expect, Filter, Put, Scope},
    time::{after, before},
};
use tokio::sync::watch;

use crate::{
    Caller, Error,
    connect::Connect,
    connections::{Connections, flight::Progress},
    records::{CLAIM, Loaded},
    shared::Shared,
};

const BATCH: u32 = 200;
/// How long one refresh may hold up the next of its batch.
const PATIENCE: Duration = Duration::from_secs(2);
/// What expired this long ago is dead, whatever the clocks say.
pub(crate) const GRACE: Duration = Duration::from_mins(5);

/// What a clean-up removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Records: connections that expired and hold nothing that could bring a new token, connects nobody finished,
    /// tombstones.
    pub removed: u64,
    /// Dead access tokens of connections that still hold a refresh token.
    pub tokens_dropped: u64,
}

/// The engine's own work.
#[derive(Clone, Debug)]
pub(crate) struct Upkeep {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Connections,
    pub(crate) connect: Connect,
}

impl Upkeep {
    /// Refreshes what is due, for ever.
    pub(crate) async fn preload(self) {
        loop {
            match self.preload_once().await {
                // There may be more.
                Ok(claimed) if claimed >= BATCH as usize => {}
                Ok(_) => self.shared.clock.sleep(self.shared.settings.preload_interval).await,
                Err(error) => {
                    tracing::warn!(%error, "the preloader cannot see what is due");
                    self.shared.clock.sleep(self.shared.settings.preload_interval).await;
                }
            }
        }
    }

    /// Refreshes one batch of what is due; answers how many were.
    pub(crate) async fn preload_once(&self) -> Result<usize, Error> {
        let now = self.shared.now().wall;
        let claimed = self.shared.records.claim::<Connection>(now, BATCH, after(now, CLAIM)).await?;
        let count = claimed.len();
        stream::iter(claimed)
            .for_each_concurrent(self.shared.settings.preload_concurrency, |item| async move {
                let Ok(Loaded::Live(stored)) = item.content else { return };
                let Some(progress) = self.connections.refresh_behind(&stored.value.id).await else { return };
                // A provider that hangs must not hold up the others: its flights go on by themselves.
                tokio::select! {
                    () = landed(progress) => {}
                    () = self.shared.clock.sleep(PATIENCE) => {}
                }
            })
            .await;
        Ok(count)
    }

    /// Cleans up, for ever.
    pub(crate) async fn clean(self) {
        loop {
            self.shared.clock.sleep(self.shared.settings.cleanup_interval).await;
            if let Err(error) = self.clean_once().await {
                tracing::warn!(%error, "clean-up was cut short");
            }
        }
    }

    /// Cleans up once, on behalf of `caller`.
    pub(crate) async fn clean_for(&self, caller: &Caller) -> Result<Cleaned, Error> {
        caller.may(Action::CleanUp)?;
        self.clean_once().await
    }

    async fn clean_once(&self) -> Result<Cleaned, Error> {
        let now = self.shared.now();
        let died_before = before(now.wall, GRACE);
        self.connect.drop_unconfirmed().await?;
        let mut cleaned =
            Cleaned { removed: self.shared.records.store().sweep(died_before).await?, ..Cleaned::default() };
        let mut cursor = None;
        loop {
            let page = self.shared.records.list::<Connection>(Scope::Every, Filter::All, BATCH, cursor).await?;
            for item in page.items {
                let Ok(Loaded::Live(stored)) = item.content else { continue };
                let Some(next) = change::drop_dead_access(&stored.value, died_before, now.wall) else { continue };
                let margin = self.connections.policy(&next.id.integration).await.margin;
                let expect = Expect::Version(&stored.version);
                // Somebody else changed it: then it is not dead any more, or the next clean-up will see.
                if let Put::Committed(_) = self.shared.records.save(&next, margin, expect).await? {
                    cleaned.tokens_dropped += 1;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        self.connections.flights.cache.sweep(now);
        self.shared.metrics.cleaned.inc_by(cleaned.removed + cleaned.tokens_dropped);
        tracing::info!(removed = cleaned.removed, tokens_dropped = cleaned.tokens_dropped, "cleaned up");
        Ok(cleaned)
    }
}

/// Waits for a flight's end.
pub(crate) async fn landed(mut progress: watch::Receiver<Progress>) {
    while !matches!(*progress.borrow_and_update(), Progress::Landed { .. }) {
        if progress.changed().await.is_err() {
            return;
        }
    }
}
