//! What the catalogue says of a provider: endpoints, API hosts and quirks. Data only.

use std::{collections::BTreeMap, time::Duration};

use tokenkeep_oauth::Dialect;

use crate::ProviderId;

/// One entry of the catalogue. URLs are templates: `{name}` is filled in from the integration's `params`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its id, which is its file's name.
    pub id: ProviderId,
    /// For people.
    pub display_name: String,
    /// Where the user's browser is sent; `None` where there is no code flow.
    pub authorize_url: Option<String>,
    /// Where codes and refresh tokens are exchanged.
    pub token_url: Option<String>,
    /// Where refreshes go, if not to `token_url`.
    pub refresh_url: Option<String>,
    /// How a token is revoked upstream; `None` where it cannot be.
    pub revoke: Option<Revocation>,
    /// Where the device flow starts (RFC 8628).
    pub device_authorization_url: Option<String>,
    /// The OIDC issuer, where there is one: discovery fills in what is missing above.
    pub issuer: Option<String>,
    /// Where the signed-in user is described.
    pub userinfo_url: Option<String>,
    /// Hosts a token of this provider may be sent to; the first is the default.
    pub api_hosts: Vec<String>,
    /// Scopes asked for when nobody names any.
    pub default_scope: Option<String>,
    /// What the integration's `params` must or may hold.
    pub params: BTreeMap<String, Param>,
    /// How it departs from the RFCs.
    pub dialect: Dialect,
    /// How it answers a refresh token that was spent before.
    pub rotation: Rotation,
    /// How long its access tokens live when the reply does not say.
    pub default_lifetime: Option<Duration>,
    /// How long before expiry a refresh is due; capped by a fraction of the token's life.
    pub margin: Option<Duration>,
    /// What people must know about it.
    pub notes: String,
    /// Which facts nobody has verified, by field name.
    pub unverified: Vec<String>,
    /// Where the facts come from, by field name.
    pub sources: BTreeMap<String, String>,
}

/// A parameter that an integration supplies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Param {
    /// What it is.
    pub description: String,
    /// What stands in for it; without one it is required.
    pub default: Option<String>,
}

/// How a token is revoked upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// RFC 7009: POST with `token`.
    Rfc7009 {
        /// The revocation endpoint.
        url: String,
    },
    /// POST with the token itself as the bearer.
    BearerPost {
        /// The endpoint.
        url: String,
    },
    /// DELETE with the client's Basic credentials and `{"access_token": ...}` (GitHub).
    BasicDelete {
        /// The endpoint; `{client_id}` is filled in.
        url: String,
    },
    /// DELETE with the token itself as the bearer.
    BearerDelete {
        /// The endpoint.
        url: String,
    },
}

/// What a provider does with a refresh token that has been spent. It decides who may spend it again when an
/// answer was lost. What is unknown counts as [`Rotation::Strict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// A refresh changes nothing: the same refresh token stays good (or none is needed).
    None,
    /// A new refresh token comes with each refresh; the old ones stay good.
    Overlap,
    /// The old one stays good until the new one is first used.
    Predecessor,
    /// A replay within `window` of the first spend is answered: with the same successor, or with a new one.
    Grace {
        /// How long.
        window: Duration,
        /// Which successor the replay brings.
        successor: Successor,
    },
    /// A second spend is refused and may end the whole grant.
    #[default]
    Strict,
}

/// Which successor a replay within the grace window brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// The one the first spend brought.
    Same,
    /// Another one.
    New,
}
