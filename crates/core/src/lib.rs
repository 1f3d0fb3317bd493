//! tokenkeep's domain, without I/O.
//!
//! A *connection* is one subject's authorization at one integration. Its aggregate ([`Connection`]) is one record,
//! changed by one compare-and-swap at a time. The heart is [`refresh`]: a state machine that says, step by step,
//! what an instance must do to spend a refresh token exactly once and never to lose the answer. It is pure; whoever
//! drives it reads, writes and waits on its behalf through the [`ports`].

pub mod api_key;
pub mod authorization_request;
mod buckets;
pub mod change;
pub mod client;
pub mod connection;
pub mod credentials;
pub mod grant;
pub mod id;
pub mod integration;
pub mod interaction;
pub mod ports;
pub mod provider;
pub mod refresh;
pub mod session;
pub mod signing_keys;
pub mod time;
pub mod voided;

pub use api_key::{Action, ApiKey, ApiKeyHash, Role};
pub use authorization_request::AuthorizationRequest;
pub use buckets::Buckets;
pub use client::{Client, ClientOrigin, ClientSecretHash};
pub use connection::{
    AccessToken, Alternate, Attempt, Connection, Deleted, Fingerprint, Freshness, Health, LastError, Phase,
    RefreshPolicy, RenewBy, Renewal, Spent, Status, TokenSet, freshness,
};
pub use credentials::{Credentials, LoginGrant};
pub use grant::Grant;
pub use id::{
    ApiKeyId, AttemptId, ClientId, ConnectId, ConnectionId, Generation, GrantId, Incarnation, InstanceId,
    IntegrationId, InteractionId, InvalidIdentifier, ProviderId, Subject, Tenant,
};
pub use integration::{ClientSigningKey, ConnectGrant, Integration, ManagedBy, Rejection};
pub use interaction::Interaction;
pub use provider::{Provider, Rotation};
pub use signing_keys::{SigningKey, SigningKeys};
pub use time::{Boot, Now};
pub use voided::Voided;
