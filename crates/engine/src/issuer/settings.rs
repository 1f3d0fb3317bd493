//! What an installation says of its authorization server.

use std::{collections::BTreeSet, time::Duration};

use ipnet::IpNet;
use tokenkeep_core::{ClientId, IntegrationId};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::ClientMetadata, jws::Algorithm, metadata::Issuer as IssuerUrl, resource::Resource, scope::ScopeSet,
    },
};
use url::Url;

/// `[issuer]`, `[[client]]`.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// Its identifier (RFC 8414 2).
    pub url: IssuerUrl,
    /// Who may register.
    pub registration: Registration,
    /// Hosts in private networks from which client documents may be fetched all the same.
    pub document_hosts: BTreeSet<String>,
    /// How long access tokens live.
    pub access_token_ttl: Duration,
    /// How long a refresh token lives that nobody presents.
    pub refresh_token_ttl: Duration,
    /// What signs access tokens of resources that say nothing else.
    pub algorithm: Algorithm,
    /// Where people sign in for resources that say nothing else; the first is the default.
    pub upstreams: Vec<Upstream>,
    /// What the tokens are for.
    pub resources: Vec<ProtectedResource>,
    /// Who of those who signed in may go on.
    pub admitted: Admitted,
    /// An application's own pages for signing in and consenting: opened with `?interaction={id}`.
    pub interaction_url: Option<Url>,
    /// Clients of the configuration file.
    pub clients: Vec<ConfigClient>,
    /// The networks of proxies in front: their `X-Forwarded-For` says who asks, which is what ceilings count by, and at
    /// `/verify` their `X-Forwarded-*` and `X-Original-URL` say what is asked for.
    pub trusted_proxies: BTreeSet<IpNet>,
}

/// Who may register a client (RFC 7591).
#[derive(Clone, Debug)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Who has the initial access token (RFC 7591 3).
    Token(Secret),
    /// Nobody.
    Off,
}

/// Where people sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// At a provider.
    Integration(IntegrationId),
    /// Here, with an API key of the role admin. For development.
    LocalAdministrator,
}

/// What access tokens are for (RFC 8707).
#[derive(Clone, Debug)]
pub struct ProtectedResource {
    /// Its identifier.
    pub resource: Resource,
    /// For people.
    pub name: Option<String>,
    /// The scopes it knows.
    pub scopes: ScopeSet,
    /// What signs its tokens.
    pub algorithm: Option<Algorithm>,
    /// The key that it checks HS256 with, shared by the operator; at least 32 bytes, and its alone.
    pub signing_secret: Option<Secret>,
    /// The clients that speak for it: they may introspect its tokens.
    pub introspectors: BTreeSet<ClientId>,
    /// Those that speak for it, too, and may exchange its users' tokens for those of the provider (RFC 8693).
    pub exchangers: BTreeSet<ClientId>,
    /// Whether its users' provider must still stand behind them: where the connection ended, so does the grant.
    pub needs_upstream: bool,
    /// Where its users sign in, the default first; empty = where those of the issuer do.
    pub upstreams: Vec<Upstream>,
}

/// Who may go on. Whoever is named by one of the rules may; where no rule is there, everybody may; a rule that is there
/// and empty names nobody.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// Subjects (`github|42`), addresses, or user names: those are somebody else's at another provider.
    pub users: Option<BTreeSet<String>>,
    /// Domains of verified e-mail addresses.
    pub email_domains: Option<BTreeSet<String>>,
    /// Organisations, where they are somebody else's at another provider with its integration before (`github|acme`).
    pub organizations: Option<BTreeSet<String>>,
}

/// A client of the configuration file.
#[derive(Clone, Debug)]
pub struct ConfigClient {
    /// Its id.
    pub id: ClientId,
    /// What it is.
    pub metadata: ClientMetadata,
    /// Its secret, chosen by the operator.
    pub secret: Option<Secret>,
    /// The resources it may ask for; `None` = all.
    pub resources: Option<BTreeSet<Resource>>,
}

impl ProtectedResource {
    /// Whether `client` speaks for it.
    pub fn is_spoken_for_by(&self, client: &ClientId) -> bool {
        self.introspectors.contains(client) || self.exchangers.contains(client)
    }
}

impl IssuerSettings {
    /// Of a server that issues sessions and nothing else: nobody can ask it for tokens.
    pub(crate) fn of_sessions(url: IssuerUrl) -> Self {
        Self {
            url,
            registration: Registration::Off,
            document_hosts: BTreeSet::new(),
            access_token_ttl: Duration::ZERO,
            refresh_token_ttl: Duration::ZERO,
            algorithm: Algorithm::Es256,
            upstreams: Vec::new(),
            resources: Vec::new(),
            admitted: Admitted::default(),
            interaction_url: None,
            clients: Vec::new(),
            trusted_proxies: BTreeSet::new(),
        }
    }

    /// The resource of that identifier, if it is protected here.
    pub fn resource(&self, resource: &Resource) -> Option<&ProtectedResource> {
        self.resources.iter().find(|known| known.resource == *resource)
    }

    /// The resource that is meant where none is named: the only one there is.
    pub fn only_resource(&self) -> Option<&ProtectedResource> {
        match self.resources.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Where people sign in for `resource`; the first is the default.
    pub fn upstreams_of(&self, resource: &Resource) -> &[Upstream] {
        let own = self.resource(resource).map(|known| known.upstreams.as_slice());
        own.filter(|own| !own.is_empty()).unwrap_or(&self.upstreams)
    }

    /// What signs the tokens of `resource`.
    pub fn algorithm_of(&self, resource: &ProtectedResource) -> Algorithm {
        resource.algorithm.unwrap_or(self.algorithm)
    }
}
