//! The task that renews our record and looks at those of the others.

use std::{sync::PoisonError, time::Duration};

use tokenkeep_core::{
    InstanceId,
    ports::{Filter, Put, Reach, Version},
    time::before,
};

use super::{
    Instance, InstancePhase, Instances, Parting, listed, live,
    peers::{Change, RENEW_EVERY},
};
use crate::{Error, bus::Event, records::Loaded};

/// Who parted longer ago than this has nothing under way that anybody waits for.
const PARTINGS: Duration = Duration::from_hours(24);

impl Instances {
    /// Makes our record, and learns who is there and who parted.
    pub(crate) async fn begin(&self) -> Result<(), Error> {
        self.renew().await;
        let since = before(self.shared.now().wall, PARTINGS);
        for item in listed(&self.shared.records, Filter::ChangedSince(since)).await? {
            if let (Ok(id), Ok(Loaded::Deleted(_))) = (item.key.id.parse(), item.content) {
                self.flights.is_gone(id);
            }
        }
        self.look().await?;
        self.warn_of_other_machines().await
    }

    /// Begins to renew and look. It goes on until [`Instances::leave`]: also while a shutdown waits for exchanges.
    pub(crate) fn start(&self) {
        let task = tokio::spawn(self.clone().follow());
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    /// Says that this instance ended in order, and whether it left anything.
    pub(crate) async fn leave(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.bury_the_adopted().await;
        self.shared.bus.send(Event::Leaving);
        let left = self.flights.kept.unsettled() + self.flights.flying();
        if let Err(error) = self.shared.registration.leave(&self.shared, left as u64).await {
            tracing::warn!(%error, "the others cannot be told that this instance ended in order");
        }
    }

    /// Renews and looks, for ever.
    async fn follow(self) {
        loop {
            self.shared.clock.sleep(RENEW_EVERY).await;
            self.renew().await;
            // What keeps us from looking keeps everything else from the store as well, and is said there.
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the other instances cannot be seen");
            }
            self.bury_the_adopted().await;
        }
    }

    async fn renew(&self) {
        let uncommitted = self.flights.kept.unsettled() as u64;
        if let Err(error) = self.shared.registration.renew(&self.shared, uncommitted).await {
            tracing::debug!(%error, "this instance cannot say that it is there");
        }
    }

    async fn look(&self) -> Result<(), Error> {
        let own = self.shared.instance;
        let serving: Vec<(InstanceId, Version)> = live(&self.shared.records)
            .await?
            .into_iter()
            .filter(|stored| stored.value.id != own && stored.value.phase == InstancePhase::Serving)
            .map(|stored| (stored.value.id, stored.version))
            .collect();
        let changes = self.peers().observe(&serving, self.shared.now().boot);
        for change in changes {
            match change {
                Change::Seen(id) => {
                    tracing::info!(instance = %id, "another instance is there");
                    self.shared.bus.peer_seen(id);
                }
                Change::Silent(id) => {
                    tracing::warn!(instance = %id, "another instance is silent: it renews its record no more");
                    // It cannot write connections either; once it can again, its record moves.
                    self.shared.bus.peer_gone(id);
                    self.look_for_journals();
                }
                Change::Vanished(id) => {
                    self.shared.bus.peer_gone(id);
                    self.look_for_journals();
                    self.learn_parting(id).await?;
                }
            }
        }
        Ok(())
    }

    /// Why `id` is no longer among those that serve.
    async fn learn_parting(&self, id: InstanceId) -> Result<(), Error> {
        let parting = match self.shared.records.load::<Instance>(&id).await.map_err(Error::reading("instance"))? {
            Loaded::Deleted(tombstone) => tombstone.remembered,
            // It left replies behind, or its record was swept long after it fell silent: it may have some.
            Loaded::Live(_) | Loaded::Absent => return Ok(()),
        };
        tracing::info!(instance = %id, ?parting, "another instance is gone");
        self.flights.is_gone(id);
        Ok(())
    }

    fn look_for_journals(&self) {
        if let Some(heir) = &self.heir {
            heir.look_now();
        }
    }

    /// Tells the others of the dead whose journals we adopted and settled: nothing of theirs is left.
    pub(crate) async fn bury_the_adopted(&self) {
        let Some(heir) = &self.heir else { return };
        for id in heir.settled() {
            match self.bury(id).await {
                Ok(()) => heir.is_buried(id),
                Err(error) => tracing::debug!(%error, instance = %id, "an adopted instance cannot be buried yet"),
            }
        }
    }

    async fn bury(&self, id: InstanceId) -> Result<(), Error> {
        let loaded = self.shared.records.load::<Instance>(&id).await.map_err(Error::reading("instance"))?;
        let Loaded::Live(stored) = loaded else { return Ok(()) };
        match self.shared.records.delete::<Instance>(&id, &stored.version, &Parting::Adopted).await? {
            Put::Committed(_) => Ok(()),
            Put::Conflict | Put::Unknown => Err(Error::Conflict { what: "instance" }),
        }
    }

    /// A store of one machine that is used from several is a mistake that nothing else would show: its locks mean
    /// nothing between them.
    async fn warn_of_other_machines(&self) -> Result<(), Error> {
        if self.shared.records.store().describe().reach != Reach::Machine {
            return Ok(());
        }
        let host = &self.shared.settings.process.host;
        for stored in live(&self.shared.records).await? {
            let Instance { id, process, .. } = &stored.value;
            if process.host != *host && stored.value.phase == InstancePhase::Serving {
                tracing::warn!(
                    instance = %id, host = process.host,
                    "the store is for the processes of one machine, and an instance on another machine uses it: records \
                     can be lost; use a store for several machines"
                );
            }
        }
        Ok(())
    }
}
