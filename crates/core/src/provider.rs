//! What the catalogue says of a provider: endpoints, API hosts and quirks. Data only.
//!
//! URLs and some values are *templates*: `{name}` is filled in from the integration's `params` by
//! [`Provider::resolve`], which also sees to it that no parameter can lead a request to somebody else's host.

use std::{collections::BTreeMap, time::Duration};

use tokenkeep_oauth::{CredentialKind, Dialect, login::LoginDialect};

use crate::ProviderId;

mod api;
mod identity;
mod resolve;
mod template;

pub use api::{Api, ApiLimit, LimitPer};
pub use identity::{EmailSource, Identity, IdentitySource, OrganizationSource};
pub use resolve::{ParamError, ResolvedProvider};
pub use template::{TemplateError, check_api_host, check_host, check_login_text, check_text, check_url, is_template};

/// One entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its id, which is its file's name.
    pub id: ProviderId,
    /// For people.
    pub display_name: String,
    /// What it is, and so what can be done with it.
    pub kind: Kind,
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
    /// How it is known who signed in; without it, as OIDC has it where there is an issuer, and not at all elsewhere.
    pub identity: Option<Identity>,
    /// How credentials bring a token, where they do.
    pub login: Option<Login>,
    /// Hosts (`host` or `host:port`) a token of this provider may be sent to, by TLS unless `http://` stands before it;
    /// the first is the default. One with a parameter that is left empty is left out.
    pub api_hosts: Vec<String>,
    /// How its API is called.
    pub api: Api,
    /// Scopes asked for when nobody names any, separated by spaces.
    pub default_scope: Option<String>,
    /// The scope without which no refresh token comes; added to whatever is asked for.
    pub offline_scope: Option<String>,
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
    /// Which facts nobody has verified, by field name (`revoke`, `dialect.pkce`).
    pub unverified: Vec<String>,
    /// Where the facts come from, by field name; the codes are explained in `providers/README.md`.
    pub sources: BTreeMap<String, String>,
}

impl Provider {
    /// An OAuth 2 provider of which nothing is known yet: the plain dialect, and the strictest rotation.
    pub fn new(id: ProviderId) -> Self {
        Self {
            display_name: id.to_string(),
            id,
            kind: Kind::default(),
            authorize_url: None,
            token_url: None,
            refresh_url: None,
            revoke: None,
            device_authorization_url: None,
            issuer: None,
            userinfo_url: None,
            identity: None,
            login: None,
            api_hosts: Vec::new(),
            api: Api::default(),
            default_scope: None,
            offline_scope: None,
            params: BTreeMap::new(),
            dialect: Dialect::default(),
            rotation: Rotation::default(),
            default_lifetime: None,
            margin: None,
            notes: String::new(),
            unverified: Vec::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Which credentials its connections can be made with; `None` = none.
    pub fn takes(&self) -> Option<CredentialKind> {
        takes(self.kind, self.login.as_ref().map(|login| &login.dialect))
    }

    /// Whether a user can consent in a browser. The endpoints may still have to be discovered.
    pub fn has_code_flow(&self) -> bool {
        self.kind == Kind::Oauth2 && (self.authorize_url.is_some() || self.issuer.is_some())
    }
}

fn takes(kind: Kind, login: Option<&LoginDialect>) -> Option<CredentialKind> {
    match kind {
        Kind::ApiKey => Some(CredentialKind::ApiKey),
        Kind::Basic => Some(CredentialKind::Password),
        Kind::Login | Kind::Oauth2 => login.map(LoginDialect::takes),
        Kind::AppInstallation | Kind::RequestSigning => None,
    }
}

/// What a provider is, and so what can be done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// An OAuth 2 authorization server.
    #[default]
    Oauth2,
    /// No OAuth: credentials bring a token ([`Provider::login`]).
    Login,
    /// No OAuth: a key that the provider made is what its API takes.
    ApiKey,
    /// No OAuth: its API takes a username and a password with every call (RFC 7617).
    Basic,
    /// No OAuth: an app's own JWT brings the token of one installation. Listed only.
    AppInstallation,
    /// No tokens at all: every request is signed. Listed only.
    RequestSigning,
}

impl Kind {
    /// Whether credentials are all that it takes, so that nobody needs a client there.
    pub fn takes_credentials_only(self) -> bool {
        matches!(self, Kind::Login | Kind::ApiKey | Kind::Basic)
    }

    /// Whether what is stored is what its API takes: there is nothing to log in to, and nothing to renew.
    pub fn is_static(self) -> bool {
        matches!(self, Kind::ApiKey | Kind::Basic)
    }

    /// The word for it in the catalogue's files and in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Oauth2 => "oauth2",
            Kind::Login => "login",
            Kind::ApiKey => "api_key",
            Kind::Basic => "basic",
            Kind::AppInstallation => "app_installation",
            Kind::RequestSigning => "request_signing",
        }
    }
}

/// A parameter that an integration supplies. Unless `one_of` or `ends_with` says otherwise, its place decides what it
/// may hold: host labels, a path segment, or printable ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Param {
    /// What it is.
    pub description: String,
    /// What stands in for it; without one it is required. The empty default makes it optional: what it would fill
    /// is not sent.
    pub default: Option<String>,
    /// The only values it can have, if not empty.
    pub one_of: Vec<String>,
    /// For a whole host name: the domains (`.example.com`) it must be under, if not empty.
    pub ends_with: Vec<String>,
}

/// How credentials bring a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login<U = String> {
    /// Where.
    pub url: U,
    /// The request, and where in the reply the token stands.
    pub dialect: LoginDialect,
}

/// How a token is revoked upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation<U = String> {
    /// In which way.
    pub method: RevocationMethod,
    /// Where. `{client_id}` is the integration's.
    pub url: U,
}

/// In which way a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationMethod {
    /// RFC 7009: POST with `token`.
    Rfc7009,
    /// POST with the token itself as the bearer (Dropbox).
    BearerPost,
    /// DELETE with the client's Basic credentials and `{"access_token": ...}` (GitHub).
    BasicDelete,
    /// DELETE with the token itself as the bearer (Facebook).
    BearerDelete,
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
