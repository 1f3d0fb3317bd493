//! What hearing of another instance's doing does here.

use tokenkeep_core::{ConnectionId, Generation, Incarnation, InstanceId};

use super::Event;
use crate::{connections::Connections, instances, integrations::Integrations, issuer::Issuer, keys::Keys};

/// Whom events are passed on to.
#[derive(Clone, Debug)]
pub(crate) struct Ears {
    pub(crate) connections: Connections,
    pub(crate) integrations: Integrations,
    pub(crate) keys: Keys,
    pub(crate) issuer: Option<Issuer>,
}

impl Ears {
    /// Takes note of what `from`, never ourselves, did. Does not wait: the next message is heard after this.
    pub(crate) fn heard(&self, from: InstanceId, event: Event) {
        match event {
            Event::Changed { connection, incarnation, generation: floor }
            | Event::Deleted { connection, incarnation, floor } => self.changed(&connection, incarnation, floor),
            Event::Held { connection, attempt } => {
                tracing::trace!(%from, integration = %connection.integration, %attempt, "holds a reply");
                self.connections.flights.heard_beacon(&connection, attempt);
            }
            Event::KeysChanged => self.reload_keys(),
            Event::IntegrationChanged(id) => self.integrations.changed(&id),
            Event::ClientChanged(_)
            | Event::GrantChanged(_)
            | Event::AccessTokenSpent(_)
            | Event::SigningKeysChanged => {
                if let Some(issuer) = &self.issuer {
                    issuer.heard(&event);
                }
            }
            Event::InstanceForgotten(instance) => instances::heard_forgotten(&self.connections.flights, instance),
            // Whether its silence means something is not for the use cases.
            Event::Leaving => {}
        }
    }

    /// What is older than `floor` is not served any more. What it is at present is asked when it is wanted.
    pub(super) fn changed(&self, id: &ConnectionId, incarnation: Incarnation, floor: Generation) {
        self.connections.shared.l2.told(id, floor);
        self.connections.flights.cache.invalidate(id, incarnation, floor);
    }

    /// Messages were lost, and what was changed of connections has been asked of the store. The rest is read anew.
    pub(super) fn missed_something(&self) {
        self.integrations.any_may_have_changed();
        if let Some(issuer) = &self.issuer {
            issuer.missed_something();
        }
        self.reload_keys();
    }

    fn reload_keys(&self) {
        let keys = self.keys.clone();
        tokio::spawn(async move {
            // They are read again soon in any case.
            if let Err(error) = keys.reload().await {
                tracing::debug!(%error, "the API keys cannot be read at present");
            }
        });
    }
}
