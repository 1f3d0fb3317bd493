//! Asking the store what was changed while nobody could say so.

use std::time::Duration;

use tokenkeep_core::{
    Connection, ConnectionId,
    ports::{Filter, RecordKey, Scope, StoreError},
    time::before,
};

use super::{Ears, jitter};
use crate::{
    records::{Item, Loaded},
    shared::Shared,
};

/// What was changed so long before a loss is looked at, too: writes that took their time, messages lost before their
/// loss was noticed, and clocks that differ.
const OVERLAP: Duration = Duration::from_secs(30);
const PAGE: u32 = 500;
/// All instances lose a broker together. They do not ask the store together.
const JITTER: Duration = Duration::from_millis(150);
/// A store that does not answer is asked again after this, and then after twice as long, ...
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(8);

/// Catches up on what was changed within `gap` before now, however long it takes until the store answers.
pub(super) async fn catch_up(shared: &Shared, ears: &Ears, gap: Duration) {
    let began = shared.now().boot;
    shared.clock.sleep(jitter(&*shared.entropy, JITTER)).await;
    for failures in 0_u32.. {
        // By the wall clock as it shows now: if it was set meanwhile, then to be right.
        let since = before(shared.now().wall, gap + shared.now().boot.since(began) + OVERLAP);
        match changed_since(shared, ears, since).await {
            Ok(changed) => {
                tracing::debug!(changed, ?gap, "caught up");
                ears.missed_something();
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot catch up yet");
                let wait = RETRY.saturating_mul(1 << failures.min(5)).min(LONGEST_RETRY);
                shared.clock.sleep(wait + jitter(&*shared.entropy, wait)).await;
            }
        }
    }
}

/// Lets go of everything older than what was changed since; answers how much was.
async fn changed_since(shared: &Shared, ears: &Ears, since: jiff::Timestamp) -> Result<usize, StoreError> {
    let (mut changed, mut cursor) = (0, None);
    loop {
        let filter = Filter::ChangedSince(since);
        let page = shared.records.list::<Connection>(Scope::Every, filter, PAGE, cursor).await?;
        changed += page.items.len();
        for Item { key, content } in page.items {
            let Some(id) = connection_of(&key) else { continue };
            let (incarnation, floor) = match content {
                Ok(Loaded::Live(stored)) => (stored.value.incarnation, stored.value.generation),
                Ok(Loaded::Deleted(tombstone)) => {
                    (tombstone.remembered.incarnation, tombstone.remembered.generation.next())
                }
                Ok(Loaded::Absent) => continue,
                Err(_) => {
                    ears.connections.flights.cache.doubt(&id);
                    continue;
                }
            };
            ears.changed(&id, incarnation, floor);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(changed);
        }
    }
}

/// Whose record that is.
fn connection_of(key: &RecordKey) -> Option<ConnectionId> {
    let (integration, subject) = key.id.split_once('/')?;
    Some(ConnectionId {
        integration: integration.parse().ok()?,
        tenant: key.tenant.clone(),
        subject: subject.parse().ok()?,
    })
}
