//! One after the other: changes of one grant on this instance. The compare-and-swap decides between instances; this
//! only spares those who would lose it.

use tokenkeep_core::GrantId;
use tokio::sync::{Mutex, MutexGuard};

/// So many grants can be changed at once. A power of two.
const LANES: usize = 256;

#[derive(Debug)]
pub(super) struct Turns(Box<[Mutex<()>]>);

impl Default for Turns {
    fn default() -> Self {
        Self(std::iter::repeat_with(Mutex::default).take(LANES).collect())
    }
}

impl Turns {
    /// Waits until nobody else here changes `grant`, or one of those that share its lane.
    pub(super) async fn of(&self, grant: GrantId) -> MutexGuard<'_, ()> {
        // The low bits of a ULID are random.
        let lane = usize::try_from(grant.0.random() % LANES as u128).unwrap_or(0);
        self.0[lane].lock().await
    }
}
