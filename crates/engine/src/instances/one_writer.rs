//! Stores that only one instance may write: a second one is refused at start.

use std::time::Duration;

use tokenkeep_core::{InstanceId, ports::Reach};

use super::{Instance, InstancePhase, live};
use crate::{
    Error,
    records::{Records, Stored},
};
use tokenkeep_core::ports::Clock;

/// Longer than an instance takes between two renewals.
const WATCH_FOR: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Another instance writes to a store that takes one writer only.
#[derive(Debug, thiserror::Error)]
#[error(
    "instance {id} (process {process_id} on {host}) writes to this store, which takes one writer only; end it first, or \
     use a store for several"
)]
pub struct SecondWriter {
    /// Which.
    pub id: InstanceId,
    /// Its machine.
    pub host: String,
    /// Its process id there.
    pub process_id: u32,
}

/// Refuses to be the second writer of a store that takes one. A record left by one that died looks like a living
/// one's until it has not moved for longer than a living one takes to renew it; so that long it is watched.
pub(crate) async fn refuse_second_writer(
    records: &Records,
    clock: &dyn Clock,
) -> Result<Result<(), SecondWriter>, Error> {
    if records.store().describe().reach != Reach::OneWriter {
        return Ok(Ok(()));
    }
    let first = serving(records).await?;
    if first.is_empty() {
        return Ok(Ok(()));
    }
    tracing::info!(
        seconds = WATCH_FOR.as_secs(),
        "this store takes one writer only, and an earlier instance did not end in order: waiting to see that it is dead"
    );
    let until = clock.now().boot + WATCH_FOR;
    while clock.now().boot < until {
        clock.sleep(LOOK_EVERY).await;
        for now in serving(records).await? {
            if !first.iter().any(|then| then.version == now.version) {
                let Instance { id, process, .. } = now.value;
                return Ok(Err(SecondWriter { id, host: process.host, process_id: process.id }));
            }
        }
    }
    Ok(Ok(()))
}

async fn serving(records: &Records) -> Result<Vec<Stored<Instance>>, Error> {
    let mut serving = live(records).await?;
    serving.retain(|stored| stored.value.phase == InstancePhase::Serving);
    Ok(serving)
}
