//! What hearing of another instance's doing does here.

use tokenkeep_core::InstanceId;

use super::Event;
use crate::{connections::Connections, instances, integrations::Integrations, keys::Keys};

/// Whom events are passed on to.
#[derive(Clone, Debug)]
pub(crate) struct Ears {
    pub(crate) connections: Connections,
    pub(crate) integrations: Integrations,
    pub(crate) keys: Keys,
}

impl Ears {
    /// Takes note of what `from`, never ourselves, did. Does not wait: the next message is heard after this.
    pub(crate) fn heard(&self, from: InstanceId, event: Event) {
        match event {
            Event::Changed { connection, incarnation, generation: floor }
            | Event::Deleted { connection, incarnation, floor } => {
                // What it is at present is asked when it is wanted.
                let known = self.connections.flights.cache.floor(&connection);
                if known.is_some_and(|known| known < (incarnation, floor)) {
                    self.connections.flights.cache.remove(&connection, incarnation, floor);
                }
            }
            Event::Held { connection, attempt } => {
                tracing::trace!(%from, integration = %connection.integration, %attempt, "holds a reply");
            }
            Event::KeysChanged => {
                let keys = self.keys.clone();
                tokio::spawn(async move { keys.reload().await });
            }
            Event::IntegrationChanged(id) => self.integrations.changed(&id),
            Event::InstanceForgotten(instance) => instances::heard_forgotten(&self.connections.flights, instance),
            // Whether its silence means something is not for the use cases.
            Event::Leaving => {}
        }
    }
}
