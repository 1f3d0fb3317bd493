//! Naming, changing and removing integrations.

use std::collections::BTreeMap;

use tokenkeep_core::{
    Action, ClientSigningKey, ConnectGrant, Connection, Integration, IntegrationId, ManagedBy, ProviderId, Tenant,
    ports::{Expect, Filter, LabelName, Put, Scope},
    provider::Kind,
};
use tokenkeep_oauth::{Secret, dialect::ClientAuth, endpoint};
use url::{Position, Url};

use super::{IntegrationView, Integrations, Party, discovery};
use crate::{
    Caller, Error,
    records::{Aggregate as _, Loaded},
};

const ATTEMPTS: usize = 8;

/// An integration as it shall be. Secrets that are left out stay as they are.
#[derive(Clone, Debug, Default)]
pub struct PutIntegration {
    /// A provider of the catalogue; `None` = the one named like the integration, unless there is an `issuer`.
    pub provider: Option<ProviderId>,
    /// An OIDC issuer to discover, instead of a provider of the catalogue.
    pub issuer: Option<String>,
    /// The only tenant that may use it; `None` = all.
    pub tenant: Option<Tenant>,
    /// Our `client_id` there; empty where the provider knows none.
    pub client_id: String,
    /// Our `client_secret` there.
    pub client_secret: Option<Secret>,
    /// How `connect` obtains tokens.
    pub grant: ConnectGrant,
    /// What we sign with, where the provider wants a signature.
    pub signing_key: Option<ClientSigningKey>,
    /// Scopes to ask for, separated by spaces; `None` = the provider's default.
    pub scope: Option<String>,
    /// Fills in the provider's templates.
    pub params: BTreeMap<String, String>,
    /// Hosts its tokens may be sent to; empty = the provider's own list.
    pub api_hosts: Vec<String>,
    /// Where the provider sends the browser back to; `None` = `{public_url}/oauth/callback`.
    pub redirect_uri: Option<Url>,
}

/// An integration of the configuration file.
#[derive(Clone, Debug)]
pub struct ConfigIntegration {
    /// Its id.
    pub id: IntegrationId,
    /// The rest, secrets included.
    pub integration: PutIntegration,
}

impl Integrations {
    /// The integrations that the caller may see, by id.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<IntegrationView>, Error> {
        caller.may(Action::ReadIntegrations)?;
        let mut views: Vec<IntegrationView> =
            self.all().await?.into_iter().filter(|i| sees(caller, i)).map(Into::into).collect();
        views.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(views)
    }

    /// One integration.
    pub async fn get(&self, caller: &Caller, id: &IntegrationId) -> Result<IntegrationView, Error> {
        caller.may(Action::ReadIntegrations)?;
        let stored = self.load(id).await?.filter(|stored| sees(caller, &stored.value));
        stored.map(|stored| stored.value.into()).ok_or_else(|| Error::not_found("integration", id))
    }

    /// Makes or replaces an integration, and answers whether it is new. It is tried out as far as that is possible
    /// without a user: its parameters must fit its provider, its keys must sign, its issuer must answer. Where it leads
    /// the tokens of an integration or of connections that are there, only who may read them changes.
    pub async fn put(
        &self,
        caller: &Caller,
        id: &IntegrationId,
        put: PutIntegration,
    ) -> Result<(bool, IntegrationView), Error> {
        may_manage(caller, id, put.tenant.as_ref())?;
        if let Some(issuer) = &put.issuer {
            self.discovery.forget(issuer);
        }
        for _ in 0..ATTEMPTS {
            let old = self.load(id).await?;
            if let Some(old) = &old {
                may_manage(caller, id, old.value.tenant.as_ref())?;
                if old.value.managed_by == ManagedBy::Config {
                    return Err(Error::ManagedByConfig { what: "integration", id: id.to_string() });
                }
            }
            let before = old.as_ref().map(|old| &old.value);
            let drafted = self.draft(id, put.clone(), before, ManagedBy::Api)?;
            self.may_lead(caller, &drafted, before).await?;
            let party = self.introduce(drafted).await?;
            check(&party, true)?;
            let integration = party.integration;
            let expect = old.as_ref().map_or(Expect::Absent, |old| Expect::Version(&old.version));
            // Where the answer to the write was lost, writing the same once more does no harm.
            if let Put::Committed(_) = self.shared.records.save(&integration, (), expect).await? {
                self.announce(id);
                let created = old.is_none();
                tracing::info!(target: "audit", action = "integration_put", by = %caller.name(), integration = %id, provider = %integration.provider, created);
                return Ok((created, integration.into()));
            }
        }
        Err(Error::Conflict { what: "integration" })
    }

    /// Whether `caller` may have tokens sent where `new` sends them: whoever chose that would get to read them.
    async fn may_lead(&self, caller: &Caller, new: &Integration, old: Option<&Integration>) -> Result<(), Error> {
        if caller.may(Action::ReadToken).is_ok() {
            return Ok(());
        }
        let unmade;
        let old = match old {
            Some(old) => old,
            None if !self.has_connections(&new.id).await? => return Ok(()),
            // They are meant for what the catalogue has under this name.
            None => {
                let provider = self.provider_named_like(&new.id).map_or_else(discovery::oidc, |p| p.id.clone());
                let (issuer, params, api_hosts) = (None, BTreeMap::new(), Vec::new());
                unmade = Integration { provider, issuer, params, api_hosts, ..new.clone() };
                &unmade
            }
        };
        let moved = [
            ("provider", new.provider != old.provider),
            ("issuer", new.issuer != old.issuer),
            ("params", new.params != old.params),
            ("api_hosts", new.api_hosts != old.api_hosts),
        ];
        match moved.into_iter().find(|(_, changed)| *changed) {
            None => Ok(()),
            Some((name, _)) => Err(Error::Forbidden(
                format!("`{name}` decides where tokens are sent: changing it takes a key that may read them").into(),
            )),
        }
    }

    async fn has_connections(&self, id: &IntegrationId) -> Result<bool, Error> {
        let filter = Filter::Label(LabelName::Provider, id.to_string());
        let page = self.shared.records.list::<Connection>(Scope::Every, filter, 1, None).await?;
        Ok(!page.items.is_empty() || page.next.is_some())
    }

    /// Removes an integration. Its connections stay: they are served until their tokens expire.
    pub async fn delete(&self, caller: &Caller, id: &IntegrationId) -> Result<(), Error> {
        caller.may(Action::ManageIntegrations)?;
        let mut found = false;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.load(id).await?.filter(|stored| sees(caller, &stored.value)) else {
                // It may be our own deletion whose answer was lost.
                return if found { Ok(()) } else { Err(Error::not_found("integration", id)) };
            };
            may_manage(caller, id, stored.value.tenant.as_ref())?;
            if stored.value.managed_by == ManagedBy::Config {
                return Err(Error::ManagedByConfig { what: "integration", id: id.to_string() });
            }
            found = true;
            if self.bury(id, &stored.version).await? {
                tracing::info!(target: "audit", action = "integration_deleted", by = %caller.name(), integration = %id);
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "integration" })
    }

    /// Makes the integrations of the configuration file those of the store: new ones are added, changed ones changed,
    /// those that are no longer in the file removed. The file's word counts over one that was made over the API under
    /// the same id. Issuers are not asked: one that does not answer must not keep us from starting.
    pub async fn sync_config(&self, wanted: Vec<ConfigIntegration>) -> Result<(), Error> {
        let mut drafted = Vec::with_capacity(wanted.len());
        for ConfigIntegration { id, integration } in wanted {
            let at = |error: Error| match error {
                Error::Invalid(text) => Error::invalid(format!("integration `{id}`: {text}")),
                other => other,
            };
            let party =
                self.draft(&id, integration, None, ManagedBy::Config).and_then(|i| self.prepare(i)).map_err(at)?;
            check(&party, !party.is_discovered()).map_err(at)?;
            if drafted.iter().any(|other: &Integration| other.id == id) {
                return Err(Error::invalid(format!("there are two integrations `{id}`")));
            }
            drafted.push(party.integration);
        }
        for old in self.all().await? {
            if old.managed_by == ManagedBy::Config && !drafted.iter().any(|new| new.id == old.id) {
                self.settle(&old.id, None).await?;
            }
        }
        for new in &drafted {
            self.settle(&new.id, Some(new)).await?;
        }
        Ok(())
    }

    /// Brings the store to `wanted`, `None` = gone.
    async fn settle(&self, id: &IntegrationId, wanted: Option<&Integration>) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let old = self.load(id).await?;
            let done = match (&old, wanted) {
                (None, None) => return Ok(()),
                (Some(old), Some(wanted)) if same(&old.value, wanted) => return Ok(()),
                (Some(old), None) => self.bury(id, &old.version).await?,
                (old, Some(wanted)) => {
                    let mut wanted = wanted.clone();
                    if let Some(old) = old {
                        wanted.created_at = old.value.created_at;
                    }
                    let expect = old.as_ref().map_or(Expect::Absent, |old| Expect::Version(&old.version));
                    let put = self.shared.records.save(&wanted, (), expect).await?;
                    self.announce(id);
                    matches!(put, Put::Committed(_))
                }
            };
            if done {
                let action = if wanted.is_some() { "integration_put" } else { "integration_deleted" };
                tracing::info!(target: "audit", action, by = "configuration", integration = %id);
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "integration" })
    }

    async fn bury(&self, id: &IntegrationId, version: &tokenkeep_core::ports::Version) -> Result<bool, Error> {
        let put = self.shared.records.delete::<Integration>(id, version, &()).await?;
        self.announce(id);
        Ok(matches!(put, Put::Committed(_)))
    }

    async fn all(&self) -> Result<Vec<Integration>, Error> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let scope = Scope::Tenant(Tenant::system());
            let page = self.shared.records.list::<Integration>(scope, Filter::All, 200, cursor).await?;
            for item in page.items {
                match item.content {
                    Ok(Loaded::Live(stored)) => all.push(stored.value),
                    Ok(_) => {}
                    Err(error) => tracing::error!(integration = item.key.id, %error, "an integration cannot be read"),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// The integration as it shall be, with the secrets of the old one where none are given.
    fn draft(
        &self,
        id: &IntegrationId,
        put: PutIntegration,
        old: Option<&Integration>,
        managed_by: ManagedBy,
    ) -> Result<Integration, Error> {
        let now = self.shared.now().wall;
        let provider = match (put.provider, &put.issuer) {
            (Some(provider), None) => provider,
            (None, None) => match self.provider_named_like(id) {
                Some(provider) => provider.id.clone(),
                None => return Err(Error::invalid(format!("`provider` is missing: the catalogue has no `{id}`"))),
            },
            (None, Some(_)) => discovery::oidc(),
            (Some(provider), Some(_)) if provider == discovery::oidc() => provider,
            (Some(_), Some(_)) => {
                return Err(Error::invalid("`issuer` stands instead of a `provider` of the catalogue: leave one out"));
            }
        };
        let mut integration = Integration {
            id: id.clone(),
            provider,
            issuer: put.issuer,
            tenant: put.tenant,
            client_id: put.client_id,
            client_secret: put.client_secret,
            grant: put.grant,
            signing_key: put.signing_key,
            scope: put.scope.filter(|scope| !scope.trim().is_empty()),
            params: put.params,
            api_hosts: put.api_hosts,
            redirect_uri: put.redirect_uri,
            managed_by,
            rejection: None,
            created_at: old.map_or(now, |old| old.created_at),
            updated_at: now,
        };
        if let Some(old) = old {
            keep_secrets(&mut integration, old)?;
        }
        Ok(integration)
    }
}

/// Keeps the old secrets where no new ones are given, unless they would then be sent somewhere else: whoever may change
/// an integration shall not learn by it what they were never shown.
fn keep_secrets(new: &mut Integration, old: &Integration) -> Result<(), Error> {
    let moved = [
        ("provider", new.provider != old.provider),
        ("issuer", new.issuer != old.issuer),
        ("client_id", new.client_id != old.client_id),
        ("params", new.params != old.params),
    ];
    let moved = moved.into_iter().find(|(_, changed)| *changed).map(|(name, _)| name);
    let again = |secret: &str, changed: &str| {
        Error::invalid(format!("`{secret}` must be given again: `{changed}` changes, and it decides where it is sent"))
    };
    if new.client_secret.is_none() && old.client_secret.is_some() {
        if let Some(changed) = moved {
            return Err(again("client_secret", changed));
        }
        new.client_secret.clone_from(&old.client_secret);
    }
    if new.signing_key.is_none() && old.signing_key.is_some() {
        if let Some(changed) = moved {
            return Err(again("signing_key", changed));
        }
        new.signing_key.clone_from(&old.signing_key);
    }
    Ok(())
}

/// Whether the party has what its grant and its provider need; `endpoints` = they are all known by now.
fn check(party: &Party, endpoints: bool) -> Result<(), Error> {
    let Party { integration, provider, client, .. } = party;
    let refuse = |text: String| Err(Error::invalid(text));
    if matches!(provider.kind, Kind::AppInstallation | Kind::RequestSigning) {
        return refuse(format!("`{}` knows no OAuth: it is listed only", provider.id));
    }
    let auth = provider.dialect.client_auth;
    let names_itself = integration.grant == ConnectGrant::JwtBearer && party.assertion_issuer.is_some();
    if client.id.is_empty() && auth != ClientAuth::Omitted && !names_itself && provider.kind == Kind::Oauth2 {
        return refuse("`client_id` is missing".to_owned());
    }
    let signs = matches!(auth, ClientAuth::PrivateKeyJwt | ClientAuth::AppleJwt);
    match &client.key {
        None if signs || integration.grant == ConnectGrant::JwtBearer => {
            return refuse("`signing_key` is missing: a signature is wanted here".to_owned());
        }
        Some(key) if auth == ClientAuth::AppleJwt && (key.algorithm() != "ES256" || key.kid().is_none()) => {
            return refuse("`signing_key` must be a P-256 key and have a `key_id`".to_owned());
        }
        _ => {}
    }
    let proves = client.secret.is_some() || signs || matches!(auth, ClientAuth::None | ClientAuth::Omitted);
    if integration.grant == ConnectGrant::ClientCredentials && !proves {
        return refuse("`client_secret` is missing: these credentials are all there is".to_owned());
    }
    if endpoints {
        if provider.token_url.is_none() && provider.kind == Kind::Oauth2 {
            return refuse(format!("`{}` has no token endpoint", party.provider_name));
        }
        if integration.grant == ConnectGrant::DeviceCode && provider.device_authorization_url.is_none() {
            return refuse(format!("`{}` has no device authorization endpoint", party.provider_name));
        }
    }
    if let Some(host) = integration.api_hosts.iter().find(|host| !is_host(host)) {
        return refuse(format!("`api_hosts`: `{host}` is no host name"));
    }
    if let Some(url) = &integration.redirect_uri
        && let Err(problem) = endpoint::check(url)
    {
        return refuse(format!("`redirect_uri` cannot be used: {problem}"));
    }
    Ok(())
}

/// Whether `text` is a host, or a host and a port, and nothing else; `http://` may stand before it.
fn is_host(text: &str) -> bool {
    let text = text.strip_prefix("http://").unwrap_or(text);
    Url::parse(&format!("https://{text}/")).is_ok_and(|url| &url[Position::BeforeUsername..Position::AfterPort] == text)
}

fn same(a: &Integration, b: &Integration) -> bool {
    let mut b = b.clone();
    (b.created_at, b.updated_at) = (a.created_at, a.updated_at);
    b.rejection.clone_from(&a.rejection);
    *a.encode() == *b.encode()
}

fn sees(caller: &Caller, integration: &Integration) -> bool {
    caller.sees_integration(&integration.id) && integration.tenant.as_ref().is_none_or(|t| caller.sees_tenant(t))
}

/// An integration of all tenants is changed only by whoever reaches all tenants.
fn may_manage(caller: &Caller, id: &IntegrationId, tenant: Option<&Tenant>) -> Result<(), Error> {
    caller.may(Action::ManageIntegrations)?;
    match (caller, tenant) {
        (_, Some(tenant)) => caller.may_at(Action::ManageIntegrations, id, tenant),
        (Caller::Key(key), None) if key.tenants.is_some() || !key.allows_integration(id) => {
            Err(Error::Forbidden("this key may not change what other tenants use".into()))
        }
        (_, None) => Ok(()),
    }
}
