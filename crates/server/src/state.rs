//! What every handler can reach.

use std::{ops::Deref, sync::Arc};

use tokenkeep_core::ports::{Clock, Entropy};
use tokenkeep_engine::Engine;
use url::Url;

use crate::{compat::Compat, metrics::Metrics, oauth::issuing::Issuing, protect::Protected};

/// What every handler can reach. Cheap to clone: layers, handlers and extractors each have one of their own.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Reach>);

/// The same, in one place.
#[derive(Debug)]
pub struct Reach {
    pub(crate) engine: Engine,
    pub(crate) metrics: Metrics,
    pub(crate) settings: Settings,
    pub(crate) issuing: Option<Issuing>,
}

impl Deref for AppState {
    type Target = Reach;

    fn deref(&self) -> &Reach {
        &self.0
    }
}

/// What an installation can set, beside what the engine was told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether `/metrics` needs no key. Meant for listeners that only this machine reaches: the counts name
    /// integrations, never a tenant, a subject or a secret.
    pub open_metrics: bool,
    /// The routes of the service for BlueStakes tickets.
    pub compat: Compat,
    /// The servers that we stand in front of. Each is a resource of the engine's issuer.
    pub protected: Vec<Protected>,
}

impl AppState {
    /// Puts the face on `engine`. Once per engine: its metrics are added to the engine's.
    pub fn new(engine: Engine, settings: Settings) -> Self {
        let metrics = Metrics::new();
        engine.metrics().register(|registry| metrics.register(registry));
        let issuing = engine.issuer().cloned().map(Issuing::new);
        Self(Arc::new(Reach { engine, metrics, settings, issuing }))
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.engine.clock()
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &**self.engine.entropy()
    }

    /// Where browsers reach us.
    pub(crate) fn public_url(&self) -> &Url {
        &self.engine.settings().public_url
    }
}
