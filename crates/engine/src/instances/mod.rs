//! Instances: which processes serve from this store, which of them are alive, and which never come back.
//!
//! Each keeps one record and renews it every ten seconds. Whether another is alive, an instance judges on its own boot
//! clock: a record that has not moved for thirty seconds belongs to one that is silent. Silence is no death: a silent
//! instance may hold a reply, so it is waited for as the refresh protocol says. What ends the waiting is a
//! [`Parting`]: it ended in order, its journal was adopted, or an operator had it forgotten.

mod instance;
mod one_writer;
mod peers;
mod registration;
mod registry;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokenkeep_core::{
    Action, InstanceId, Tenant,
    ports::{Filter, Put, Scope},
};
use tokio::task::AbortHandle;

pub use instance::{Instance, InstancePhase, Parting, Process};
pub use one_writer::SecondWriter;
pub(crate) use {one_writer::refuse_second_writer, registration::Registration};

use self::peers::Peers;
use crate::{
    Caller, Error,
    adoption::Heir,
    bus::Event,
    connections::flight::Flights,
    records::{Item, Loaded, Records, Stored},
    shared::Shared,
};

const ATTEMPTS: usize = 8;
const PAGE: u32 = 200;

/// The use cases of instances. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Instances {
    shared: Arc<Shared>,
    flights: Arc<Flights>,
    /// Where there is a journal.
    heir: Option<Arc<Heir>>,
    peers: Arc<Mutex<Peers>>,
    task: Arc<Mutex<Option<AbortHandle>>>,
}

/// An instance, as it is shown.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// What it says of itself.
    pub instance: Instance,
    /// How it stands, as far as we can tell.
    pub state: InstanceState,
    /// Whether it is the one that answers.
    pub is_this: bool,
}

/// How an instance stands, as another one sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It serves, or has not been silent for long enough to tell.
    Serving,
    /// It has not renewed its record for thirty seconds: it died, hangs, or cannot reach the store.
    Silent,
    /// It ended in order and left replies in its journal that wait to be adopted.
    Ended,
}

impl InstanceState {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Serving => "serving",
            InstanceState::Silent => "silent",
            InstanceState::Ended => "ended",
        }
    }
}

impl Instances {
    pub(crate) fn new(shared: Arc<Shared>, flights: Arc<Flights>, heir: Option<Arc<Heir>>) -> Self {
        Self { shared, flights, heir, peers: Arc::default(), task: Arc::default() }
    }

    /// Every instance that has a record, oldest first.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<InstanceView>, Error> {
        may(caller, Action::ReadInstances)?;
        let mut views: Vec<_> = live(&self.shared.records).await?.into_iter().map(|stored| self.view(stored)).collect();
        // ULIDs begin with the time.
        views.sort_by_key(|view| view.instance.id);
        Ok(views)
    }

    /// Takes the operator's word that an instance never comes back with its disk: what it was about to spend may be
    /// spent by others, and a reply that lies in its journal only is given up. One that may be alive is refused, unless
    /// `force`; it spends nothing any more once it finds out.
    pub async fn forget(&self, caller: &Caller, id: InstanceId, force: bool) -> Result<(), Error> {
        may(caller, Action::ForgetInstance)?;
        for _ in 0..ATTEMPTS {
            let loaded = self.shared.records.load::<Instance>(&id).await.map_err(Error::reading("instance"))?;
            let Loaded::Live(stored) = loaded else { return Err(Error::not_found("instance", id)) };
            let (version, state) = (stored.version.clone(), self.view(stored).state);
            if state == InstanceState::Serving && !force {
                return Err(Error::InstanceAlive(id));
            }
            if let Put::Committed(_) =
                self.shared.records.delete::<Instance>(&id, &version, &Parting::Forgotten).await?
            {
                tracing::info!(target: "audit", action = "instance_forgotten", by = %caller.name(), instance = %id, force);
                heard_forgotten(&self.flights, id);
                self.shared.bus.send(Event::InstanceForgotten(id));
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "instance" })
    }

    fn view(&self, stored: Stored<Instance>) -> InstanceView {
        let instance = stored.value;
        let is_this = instance.id == self.shared.instance;
        let state = match instance.phase {
            InstancePhase::Ended => InstanceState::Ended,
            InstancePhase::Serving if !is_this && self.peers().is_silent(instance.id, &stored.version) => {
                InstanceState::Silent
            }
            InstancePhase::Serving => InstanceState::Serving,
        };
        InstanceView { instance, state, is_this }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance was forgotten, here or elsewhere.
pub(crate) fn heard_forgotten(flights: &Flights, id: InstanceId) {
    let shared = flights.shared();
    if id == shared.instance {
        shared.registration.forget();
    } else {
        tracing::info!(instance = %id, "an operator had an instance forgotten");
        shared.bus.peer_gone(id);
        flights.is_gone(id);
    }
}

/// Instances belong to no tenant: a key that is bound to some cannot speak for all.
fn may(caller: &Caller, action: Action) -> Result<(), Error> {
    caller.may(action)?;
    if caller.is_unbound() {
        return Ok(());
    }
    Err(Error::Forbidden("a key that is bound to tenants or providers does not allow this".into()))
}

/// Every instance's record. One that cannot be read is left out, and said so.
async fn live(records: &Records) -> Result<Vec<Stored<Instance>>, Error> {
    let items = listed(records, Filter::All).await?;
    Ok(items
        .into_iter()
        .filter_map(|item| if let Ok(Loaded::Live(stored)) = item.content { Some(stored) } else { None })
        .collect())
}

async fn listed(records: &Records, filter: Filter) -> Result<Vec<Item<Instance>>, Error> {
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let scope = Scope::Tenant(Tenant::system());
        let page = records.list::<Instance>(scope, filter.clone(), PAGE, cursor).await?;
        for item in page.items {
            if let Err(error) = &item.content {
                tracing::error!(instance = item.key.id, %error, "an instance's record cannot be read");
            }
            items.push(item);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}
