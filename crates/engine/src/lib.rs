//! tokenkeep as a library: every use case of holding and serving OAuth tokens.
//!
//! An [`Engine`] keeps the tokens that providers issued to an application's users: it stores them sealed, serves them
//! fresh, and refreshes each of them exactly once, whoever asks. HTTP, the command line and other faces call what you
//! see here and nothing else.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use tokenkeep_engine::{Caller, Engine, Given, Parts, PutMode, PutTokens, Settings, barrier::{Barrier, RootKey}};
//! # use tokenkeep_engine::{catalogue::Catalogue, system::{SystemClock, SystemEntropy}, transport::{HyperTransport, Outbound, Pacer, Pacing, TransportOptions}};
//! # use tokenkeep_store::Memory;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = Arc::new(SystemClock);
//! let entropy = Arc::new(SystemEntropy);
//! let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
//! let engine = Engine::start(
//!     Parts {
//!         store: Arc::new(Memory::new()),
//!         bus: None,
//!         shared_cache: None,
//!         counter: None,
//!         barrier: Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone()),
//!         transport: Arc::new(HyperTransport::new(clock.clone(), pacer.clone(), &TransportOptions::default())?),
//!         outbound: Some(Outbound::new(clock.clone(), &TransportOptions::default())?),
//!         pacer: Some(pacer),
//!         catalogue: Catalogue::builtin(),
//!         journal_dir: None,
//!         clock,
//!         entropy,
//!     },
//!     Settings::new("http://localhost:7420".parse()?),
//! )
//! .await?;
//!
//! let connection = "google/_default/alice".parse()?;
//! let tokens = PutTokens {
//!     access_token: Some("ya29.secret".into()),
//!     refresh_token: Given::Absent,
//!     expires_at: None,
//!     scope: None,
//!     token_type: None,
//!     display_name: None,
//! };
//! engine.connections().put(&Caller::Local, &connection, tokens, PutMode::default()).await?;
//! let ready = engine.connections().token(&Caller::Local, &connection, Duration::from_secs(60)).await?;
//! assert_eq!(ready.generation.0, 1);
//! # Ok(())
//! # }
//! ```

mod adoption;
pub mod barrier;
mod bus;
mod cache;
mod caller;
pub mod catalogue;
mod conditions;
mod connect;
mod connections;
mod engine;
mod error;
mod handover;
mod health;
mod instances;
mod integrations;
pub mod issuer;
pub mod journal;
mod kept;
mod keys;
mod l2;
pub mod metrics;
pub mod proxy;
pub mod records;
pub mod sessions;
mod shared;
mod stats;
pub mod system;
pub mod transport;
mod uniform;
mod upkeep;

pub use cache::Ready;
pub use caller::Caller;
pub use connect::{Connect, ConnectPage, ConnectStatus, ConnectView, Device, Returned, StartConnect, Started};
pub use connections::{
    ConnectionFilter, ConnectionView, Connections, Given, GivenCredentials, Listing, LoggedIn, PutMode, PutTokens,
    Seeded, TokenCounts,
};
pub use engine::{Engine, Parts, StartError};
pub use error::{Blame, Error};
pub use health::{Health, HealthStatus, Part};
pub use instances::{Instance, InstancePhase, InstanceState, InstanceView, Instances, Parting, Process, SecondWriter};
pub use integrations::{ConfigIntegration, IntegrationView, Integrations, Party, PutIntegration};
pub use keys::{ConfigKey, Keys, NewKey};
pub use proxy::{CircuitSettings, ProxySettings};
pub use shared::Settings;
pub use stats::{CacheStats, Stats};
pub use upkeep::Cleaned;
