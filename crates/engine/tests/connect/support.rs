//! What these tests share: an engine with the integration `fake`, and browsers.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use secrecy::ExposeSecret as _;
use tokenkeep_core::{ApiKey, ConnectId, ConnectionId, Role, Rotation, Tenant};
use tokenkeep_engine::{Caller, ConnectStatus, Engine, Error, NewKey, PutIntegration, Returned, StartConnect, Started};
use tokenkeep_oauth::Secret;
use tokenkeep_testkit::Config;
use url::Url;

pub(crate) use crate::common::browser::{at_provider, get, params};
use crate::common::{World, alice, fake, put_fake};

pub(crate) const RETURN_TO: &str = "https://app.example.com/done?tab=2";

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) engine: Engine,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(put_fake()).await
    }

    /// With the integration `fake` as it is given.
    pub(crate) async fn with(put: PutIntegration) -> Self {
        Self::in_world(World::new(Rotation::Strict).await, put).await
    }

    pub(crate) async fn configured(config: Config, put: PutIntegration) -> Self {
        Self::in_world(World::with(config).await, put).await
    }

    pub(crate) async fn in_world(world: World, put: PutIntegration) -> Self {
        world.store.lets_others_in.store(true, SeqCst);
        let engine = world.engine(1, None).await;
        engine.integrations().put(&Caller::Local, &fake(), put).await.unwrap();
        Self { world, engine }
    }

    pub(crate) async fn start(&self, caller: &Caller, start: StartConnect) -> Result<Started, Error> {
        self.engine.connect().start(caller, start).await
    }

    /// A connect of alice's that was started by the process itself: without confirmation.
    pub(crate) async fn started(&self) -> Started {
        self.start(&Caller::Local, for_alice()).await.unwrap()
    }

    pub(crate) async fn status_of(&self, id: &ConnectId) -> (ConnectStatus, Option<String>) {
        let view = self.engine.connect().view(&Caller::Local, id).await.unwrap();
        (view.status, view.error)
    }

    /// Waits until the background work has brought the connect there.
    pub(crate) async fn comes_to(&self, id: &ConnectId, status: ConnectStatus) {
        let reached = async {
            while self.status_of(id).await.0 != status {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("it never came to that");
    }

    pub(crate) async fn access_token(&self, id: &ConnectionId) -> Result<String, Error> {
        let ready = self.engine.connections().token(&Caller::Local, id, Duration::from_secs(60)).await?;
        Ok(ready.token.expose_secret().to_owned())
    }

    pub(crate) async fn is_absent(&self, id: &ConnectionId) -> bool {
        matches!(self.access_token(id).await, Err(Error::NotFound { what: "connection", .. }))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.world.clock.advance(by);
    }

    pub(crate) async fn key(&self, role: Role, tenants: Option<&[&str]>) -> Caller {
        key(&self.engine, role, tenants).await
    }
}

pub(crate) async fn key(engine: &Engine, role: Role, tenants: Option<&[&str]>) -> Caller {
    Caller::Key(Arc::new(api_key(engine, role, tenants).await.0))
}

pub(crate) async fn api_key(engine: &Engine, role: Role, tenants: Option<&[&str]>) -> (ApiKey, Secret) {
    let tenants = tenants.map(|all| all.iter().map(|t| Tenant::new(t).unwrap()).collect());
    let new = NewKey { name: format!("a test's {}", role.as_str()), role, tenants, providers: None };
    engine.keys().create(&Caller::Local, new).await.unwrap()
}

pub(crate) fn for_alice() -> StartConnect {
    StartConnect { connection: alice(), scope: None, return_to: Some(RETURN_TO.parse().unwrap()), confirm: None }
}

/// Somebody's browser: it keeps one cookie.
#[derive(Clone, Default)]
pub(crate) struct Browser {
    pub(crate) cookie: Option<Secret>,
}

impl Browser {
    /// Opens the link as far as the provider's door.
    pub(crate) async fn open(&mut self, engine: &Engine, link: &Url) -> Result<Url, Error> {
        let (provider, cookie) = engine.connect().redirect(ticket(link), self.cookie.clone()).await?;
        self.cookie = Some(cookie);
        Ok(provider)
    }

    pub(crate) async fn come_back(&self, engine: &Engine, query: &str) -> Result<Returned, Error> {
        engine.connect().callback(query.as_bytes(), self.cookie.clone()).await
    }

    /// All the way: opens the link, consents, comes back.
    pub(crate) async fn consent(&mut self, stage: &Stage, link: &Url) -> Result<Returned, Error> {
        let provider = self.open(&stage.engine, link).await?;
        self.come_back(&stage.engine, &at_provider(&provider).await).await
    }
}

/// The last segment of the link.
pub(crate) fn ticket(link: &Url) -> &str {
    link.path().rsplit('/').next().unwrap()
}
