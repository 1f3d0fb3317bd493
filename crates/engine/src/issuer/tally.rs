//! Tokens that clients get for themselves, for the audit log. There may be thousands a second, so each is counted, and
//! what was counted is said now and then, and exactly at the end.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokenkeep_core::ClientId;
use tokenkeep_oauth::issuer::resource::Resource;

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<HashMap<ClientId, HashMap<Resource, u64>>>);

impl Tally {
    pub(super) fn count(&self, client: &ClientId, resource: &Resource) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counted.get_mut(client).and_then(|of| of.get_mut(resource)) {
            *count += 1;
            return;
        }
        counted.entry(client.clone()).or_default().insert(resource.clone(), 1);
    }

    /// Says what was counted since the last time.
    pub(super) fn say(&self) {
        let counted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (client, of) in counted {
            for (resource, count) in of {
                tracing::info!(
                    target: "audit", action = "tokens_issued", grant_type = "client_credentials", %client, %resource, count,
                );
            }
        }
    }
}
