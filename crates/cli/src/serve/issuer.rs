//! What the configuration file says of our authorization server, brought into the engine's words.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ClientId, IntegrationId, session::is_session_client};
use tokenkeep_engine::{
    Caller, Engine, Error,
    issuer::{Admitted, ConfigClient, IssuerSettings, ProtectedResource, Registration, Upstream},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::{AuthMethod, ClientMetadata, GrantType, check_document_url},
        jwks::parse_jwks,
        jws::{Algorithm, TokenKey},
        metadata::Issuer as IssuerUrl,
        redirect_uri::RedirectUri,
        resource::Resource,
        scope::ScopeSet,
    },
};
use url::{Host, Url};

use super::{
    protect,
    said::{required, scopes},
};
use crate::config::{Config, Integration, Issuer, IssuerResource, OAuthClient, secret};

/// The word for signing in with an admin key.
const LOCAL: &str = "local";
/// The shortest secret that somebody chose, in characters.
const MIN_SECRET: usize = 20;
const ACCESS_TOKEN_TTL: std::ops::RangeInclusive<u64> = 60..=30 * DAY;
const REFRESH_TOKEN_TTL: std::ops::RangeInclusive<u64> = 300..=365 * DAY;
const DAY: u64 = 24 * 60 * 60;

/// What is to be issued, checked; `None` = nothing.
pub(crate) fn settings(config: &Config, public_url: &Url) -> Result<Option<IssuerSettings>> {
    let place = config.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
    let implied = Issuer::default();
    let issuer = match &config.issuer {
        Some(issuer) => issuer,
        None if !config.protect.is_empty() => &implied,
        None if config.clients.is_empty() => return Ok(None),
        None => bail!("{place}: [[client]] is a client of our authorization server: that needs an [issuer], too"),
    };
    let numbered = |what: &str, index: usize| format!("{place}: [[{what}]] number {}", index + 1);
    let resources = issuer.resource.iter().enumerate();
    let resources = resources
        .map(|(i, r)| resource(r, issuer).with_context(|| numbered("issuer.resource", i)))
        .collect::<Result<Vec<_>>>()?;
    let protected = protect::read(config, public_url)?;
    let of_protected = protected.iter().enumerate();
    let of_protected = of_protected
        .map(|(i, told)| {
            let provider = told.provider.as_deref();
            let own = provider.map(|name| upstream(config, issuer, public_url, name)).transpose();
            let own = own.with_context(|| numbered("protect", i))?.into_iter().collect();
            told.resource(own).with_context(|| numbered("protect", i))
        })
        .collect::<Result<Vec<_>>>()?;
    let resources = [resources, of_protected].concat();
    let clients = config.clients.iter().enumerate();
    let clients = clients
        .map(|(i, c)| client(c, &resources).with_context(|| numbered("client", i)))
        .collect::<Result<Vec<_>>>()?;
    let settings =
        together(config, issuer, resources, clients, public_url).with_context(|| format!("{place}: [issuer]"))?;
    protect::check(&protected, &settings).with_context(|| place.clone())?;
    Ok(Some(settings))
}

fn together(
    config: &Config,
    issuer: &Issuer,
    resources: Vec<ProtectedResource>,
    clients: Vec<ConfigClient>,
    public_url: &Url,
) -> Result<IssuerSettings> {
    check_resources(&resources)?;
    check_clients(&clients, &resources)?;
    let registration = registration(issuer)?;
    let interaction_url = issuer
        .interaction_url
        .as_deref()
        .map(tokenkeep_oauth::endpoint::parse)
        .transpose()
        .map_err(|problem| anyhow!("`interaction_url` cannot be used: {problem}"))?;
    let has_people = !matches!(registration, Registration::Off)
        || clients.iter().any(|client| client.metadata.allows(GrantType::AuthorizationCode));
    let nowhere = resources.iter().any(|resource| resource.upstreams.is_empty());
    let upstreams = upstreams(config, issuer, public_url, nowhere)?;
    if upstreams.is_empty() && nowhere && has_people && interaction_url.is_none() {
        bail!(
            "nobody could sign in: name an [[integration]] and, if there are several, an [[issuer.upstream]]; for \
             development [[issuer.upstream]] provider = \"local\" will do"
        );
    }
    let access_token_ttl = within("access_token_ttl", issuer.access_token_ttl, &ACCESS_TOKEN_TTL)?;
    let refresh_token_ttl = within("refresh_token_ttl", issuer.refresh_token_ttl, &REFRESH_TOKEN_TTL)?;
    if refresh_token_ttl < access_token_ttl {
        bail!("`refresh_token_ttl` is shorter than `access_token_ttl`: nothing could be refreshed");
    }
    let admitted = admitted(issuer)?;
    let own = resources.iter().flat_map(|resource| &resource.upstreams);
    check_whose(&admitted, upstreams.iter().chain(own))?;
    Ok(IssuerSettings {
        url: url(issuer, public_url)?,
        registration,
        document_hosts: issuer.document_hosts.iter().map(|host| host_name(host)).collect::<Result<_>>()?,
        access_token_ttl: std::time::Duration::from_secs(access_token_ttl),
        refresh_token_ttl: std::time::Duration::from_secs(refresh_token_ttl),
        algorithm: algorithm(&issuer.algorithm)?,
        upstreams,
        resources,
        admitted,
        interaction_url,
        clients,
        trusted_proxies: issuer.trusted_proxies.iter().map(|text| network(text)).collect::<Result<_>>()?,
    })
}

/// An address, or all of a network.
fn network(text: &str) -> Result<IpNet> {
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map_err(|_| anyhow!("`trusted_proxies` holds something else than addresses and networks: {text}"))
}

fn within(name: &str, seconds: u64, range: &std::ops::RangeInclusive<u64>) -> Result<u64> {
    if range.contains(&seconds) {
        return Ok(seconds);
    }
    bail!("`{name}` must be from {} to {} seconds", range.start(), range.end())
}

fn url(issuer: &Issuer, public_url: &Url) -> Result<IssuerUrl> {
    let Some(text) = &issuer.url else {
        return IssuerUrl::parse(public_url.as_str().trim_end_matches('/'))
            .context("`server.public_url` is no name for an authorization server; set `url`");
    };
    let url = IssuerUrl::parse(text).context("`url`")?;
    // Browsers come back from the provider to the public URL, with a cookie that the pages of the issuer set.
    if Url::parse(text).is_ok_and(|url| url.origin() != public_url.origin()) {
        bail!("`url` and `server.public_url` must have the same origin: the pages of both are this server's");
    }
    Ok(url)
}

fn registration(issuer: &Issuer) -> Result<Registration> {
    let token =
        secret("registration_token", issuer.registration_token.as_ref(), issuer.registration_token_file.as_deref())?;
    match (issuer.registration.as_str(), token) {
        ("open", None) => Ok(Registration::Open),
        ("off", None) => Ok(Registration::Off),
        ("token", Some(token)) => {
            check_given("registration_token", &token)?;
            Ok(Registration::Token(token))
        }
        ("token", None) => {
            bail!("`registration = \"token\"` needs `registration_token` (or `registration_token_file`)")
        }
        ("open" | "off", Some(_)) => bail!("`registration_token` goes with `registration = \"token\"`"),
        _ => bail!("`registration` must be one of `open`, `token`, `off`"),
    }
}

/// That nobody guesses it, and that it can be sent in a header.
fn check_given(name: &str, secret: &Secret) -> Result<()> {
    let text = secret.expose_secret();
    if text.len() < MIN_SECRET || !text.bytes().all(|b| b.is_ascii_graphic()) {
        bail!(
            "`{name}` must be at least {MIN_SECRET} printable ASCII characters without spaces; `tokenkeep secret random` \
             makes one"
        );
    }
    Ok(())
}

fn algorithm(word: &str) -> Result<Algorithm> {
    Algorithm::parse(word).ok_or_else(|| {
        anyhow!("`algorithm` must be one of {}", listed(Algorithm::ALL.iter().map(|algorithm| algorithm.as_str())))
    })
}

fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn host_name(text: &str) -> Result<String> {
    match Host::parse(text) {
        Ok(host) if host.to_string() == text => Ok(text.to_owned()),
        _ => bail!("`document_hosts` holds something else than a host: no port, no path, lower case"),
    }
}

fn admitted(issuer: &Issuer) -> Result<Admitted> {
    let set = |name: &str, list: Option<&Vec<String>>| match list {
        Some(list) if list.iter().any(|entry| entry.trim().is_empty()) => bail!("`{name}` holds an empty entry"),
        list => Ok(list.map(|list| list.iter().cloned().collect::<BTreeSet<_>>())),
    };
    let email_domains = set("allowed_email_domains", issuer.allowed_email_domains.as_ref())?;
    if email_domains.iter().flatten().any(|domain| domain.contains('@')) {
        bail!(
            "`allowed_email_domains` holds something else than a domain (`example.com`): leave out the @ and what stands before it"
        );
    }
    Ok(Admitted {
        users: set("allowed_users", issuer.allowed_users.as_ref())?,
        email_domains: email_domains.map(|all| all.iter().map(|domain| domain.to_ascii_lowercase()).collect()),
        organizations: set("allowed_organizations", issuer.allowed_organizations.as_ref())?,
    })
}

/// A name says who somebody is at one provider. At another, anybody may have taken it.
fn check_whose<'a>(admitted: &Admitted, upstreams: impl Iterator<Item = &'a Upstream>) -> Result<()> {
    let integration = |one: &'a Upstream| match one {
        Upstream::Integration(id) => Some(id),
        Upstream::LocalAdministrator => None,
    };
    if upstreams.filter_map(integration).collect::<BTreeSet<_>>().len() < 2 {
        return Ok(());
    }
    let is_bare = |entry: &&String| !entry.contains(['|', '@']);
    if let Some(name) = admitted.users.iter().flatten().find(is_bare) {
        bail!(
            "`allowed_users`: {name} may be somebody else at another provider; with several, write the subject \
             (`github|583231`) or an address"
        );
    }
    if let Some(name) = admitted.organizations.iter().flatten().find(is_bare) {
        bail!(
            "`allowed_organizations`: {name} may be somebody else's at another provider; with several, say whose is \
             meant (`github|{name}`)"
        );
    }
    Ok(())
}

/// `needed`: whether some resource has no place of its own where its users sign in.
fn upstreams(config: &Config, issuer: &Issuer, public_url: &Url, needed: bool) -> Result<Vec<Upstream>> {
    if issuer.upstream.is_empty() {
        let all: Vec<_> = config.integrations.iter().filter(|one| signs_in(one)).filter_map(id_of).collect();
        return match all.as_slice() {
            // An application with pages of its own says itself who signed in.
            _ if issuer.interaction_url.is_some() => Ok(Vec::new()),
            _ if !needed => Ok(Vec::new()),
            [] => Ok(Vec::new()),
            [only] => Ok(vec![Upstream::Integration(IntegrationId::new(only)?)]),
            several => bail!(
                "there are several integrations ({}): say with [[issuer.upstream]] provider = \"..\" where people sign in",
                several.join(", ")
            ),
        };
    }
    let mut upstreams = Vec::new();
    for named in &issuer.upstream {
        let name = required("provider", named.provider.as_ref()).context("[[issuer.upstream]]")?;
        let upstream = upstream(config, issuer, public_url, name).context("[[issuer.upstream]]")?;
        if upstreams.contains(&upstream) {
            bail!("[[issuer.upstream]]: {name} is there twice");
        }
        upstreams.push(upstream);
    }
    Ok(upstreams)
}

/// Where people sign in that `provider` names.
fn upstream(config: &Config, issuer: &Issuer, public_url: &Url, provider: &str) -> Result<Upstream> {
    let configured = config.integrations.iter().find(|integration| id_of(integration) == Some(provider));
    match (provider, configured) {
        (LOCAL, Some(_)) => bail!("`local` is no id for an integration where people sign in"),
        (LOCAL, None) => {
            check_local(issuer, public_url)?;
            Ok(Upstream::LocalAdministrator)
        }
        (_, Some(integration)) if !signs_in(integration) => bail!(
            "nobody can sign in at {provider}: it must have the grant authorization_code, and no tenant of its own"
        ),
        _ => Ok(Upstream::Integration(IntegrationId::new(provider).context("`provider`")?)),
    }
}

fn id_of(integration: &Integration) -> Option<&str> {
    integration.id.as_deref().or(integration.provider.as_deref())
}

fn signs_in(integration: &Integration) -> bool {
    integration.grant.as_deref().is_none_or(|grant| grant == "authorization_code") && integration.tenant.is_none()
}

fn check_local(issuer: &Issuer, public_url: &Url) -> Result<()> {
    if issuer.allow_local_sign_in || is_loopback(public_url) {
        return Ok(());
    }
    bail!(
        "`local` is for development: others reach this server at {}. Name an integration, or say \
         `allow_local_sign_in = true`",
        public_url.origin().ascii_serialization()
    )
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn resource(from: &IssuerResource, issuer: &Issuer) -> Result<ProtectedResource> {
    let signing_secret = secret("signing_secret", from.signing_secret.as_ref(), from.signing_secret_file.as_deref())?;
    let own = from.algorithm.as_deref().map(algorithm).transpose()?;
    let signs = own.map_or_else(|| algorithm(&issuer.algorithm).context("[issuer]"), Ok)?;
    match (signs, &signing_secret) {
        (Algorithm::Hs256, None) => {
            bail!("HS256 needs a `signing_secret` (or `signing_secret_file`) that the resource has, too")
        }
        (Algorithm::Hs256, Some(secret)) if shared_key(secret).is_none() => {
            bail!("`signing_secret` is shorter than 32 bytes; `tokenkeep secret random` makes one")
        }
        (Algorithm::Hs256, Some(_)) | (_, None) => {}
        (_, Some(_)) => bail!("`signing_secret` goes with `algorithm = \"HS256\"`"),
    }
    let resource = Resource::parse(required("url", from.url.as_ref())?).context("`url`")?;
    let ids = |from: &[String]| from.iter().map(|id| ClientId::new(id)).collect::<Result<BTreeSet<_>, _>>();
    Ok(ProtectedResource {
        resource,
        name: from.name.clone(),
        scopes: scopes(&from.scopes)?,
        algorithm: own,
        signing_secret,
        introspectors: ids(&from.introspectors).context("`introspectors`")?,
        exchangers: ids(&from.exchangers).context("`exchangers`")?,
        needs_upstream: from.needs_upstream,
        upstreams: Vec::new(),
    })
}

fn shared_key(secret: &Secret) -> Option<TokenKey> {
    TokenKey::from_stored(Algorithm::Hs256, secret.expose_secret().as_bytes()).ok()
}

fn check_resources(resources: &[ProtectedResource]) -> Result<()> {
    if resources.is_empty() {
        bail!("there is no [[issuer.resource]] and no [[protect]]: say what the tokens are for");
    }
    let mut known = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for ProtectedResource { resource, signing_secret, .. } in resources {
        if !known.insert(resource) {
            bail!("the resource {resource} is there twice");
        }
        // A key's name is a hash of it: who has the same name is the same.
        if let Some(key) = signing_secret.as_ref().and_then(shared_key)
            && !keys.insert(key.kid().to_owned())
        {
            bail!(
                "{resource} has the `signing_secret` of another resource: either could then forge the other's tokens"
            );
        }
    }
    Ok(())
}

fn client(from: &OAuthClient, resources: &[ProtectedResource]) -> Result<ConfigClient> {
    let id = ClientId::new(required("client_id", from.client_id.as_ref())?)?;
    if check_document_url(id.as_str()).is_some() {
        bail!("`client_id` is the address of a document: such clients describe themselves and need no entry");
    }
    if is_session_client(id.as_str()) {
        bail!("`client_id` is that of backend sessions; choose another");
    }
    let secret = secret("client_secret", from.client_secret.as_ref(), from.client_secret_file.as_deref())?;
    secret.iter().try_for_each(|secret| check_given("client_secret", secret))?;
    let metadata = metadata(from, secret.is_some())?;
    match (metadata.token_endpoint_auth_method, &secret) {
        (method, None) if method.has_secret() => bail!("`client_secret` (or `client_secret_file`) is missing"),
        (method, Some(_)) if !method.has_secret() => {
            bail!("a client that proves itself with `{}` has no `client_secret`", method.as_str())
        }
        _ => {}
    }
    let reaches = from.resources.as_ref().map(|all| all.iter().map(|url| Resource::parse(url)).collect());
    let reaches: Option<BTreeSet<Resource>> = reaches.transpose().context("`resources`")?;
    let unknown = reaches.iter().flatten().find(|named| resources.iter().all(|known| known.resource != **named));
    if let Some(unknown) = unknown {
        bail!("`resources`: there is no [[issuer.resource]] {unknown}");
    }
    Ok(ConfigClient { id, metadata, secret, resources: reaches })
}

fn metadata(from: &OAuthClient, has_secret: bool) -> Result<ClientMetadata> {
    let has_keys = from.jwks_file.is_some() || from.jwks_uri.is_some();
    let method = match from.auth_method.as_deref() {
        Some(word) => AuthMethod::parse(word).ok_or_else(|| {
            anyhow!("`auth_method` must be one of {}", listed(AuthMethod::ALL.iter().map(|method| method.as_str())))
        })?,
        None if has_secret => AuthMethod::ClientSecretBasic,
        None if has_keys => AuthMethod::PrivateKeyJwt,
        None => AuthMethod::None,
    };
    let grants: BTreeSet<GrantType> = match &from.grant_types {
        Some(words) => words.iter().map(|word| grant_type(word)).collect::<Result<_>>()?,
        None if from.redirect_uris.is_empty() => [GrantType::ClientCredentials].into(),
        None => [GrantType::AuthorizationCode, GrantType::RefreshToken].into(),
    };
    let redirect_uris = from.redirect_uris.iter().map(|uri| RedirectUri::register(uri));
    let jwks = match &from.jwks_file {
        None => None,
        Some(path) => {
            let body =
                std::fs::read(path).with_context(|| format!("`jwks_file`: {} cannot be read", path.display()))?;
            Some(parse_jwks(&body).context("`jwks_file`")?)
        }
    };
    let jwks_uri = from.jwks_uri.as_deref().map(tokenkeep_oauth::endpoint::parse).transpose();
    let scope = from.scope.as_deref().map(ScopeSet::parse).transpose().context("`scope`")?;
    let metadata = ClientMetadata {
        redirect_uris: redirect_uris.collect::<Result<_, _>>().context("`redirect_uris`")?,
        client_name: from.name.clone(),
        scope,
        jwks,
        jwks_uri: jwks_uri.map_err(|problem| anyhow!("`jwks_uri` cannot be used: {problem}"))?,
        ..ClientMetadata::new(method, grants)
    };
    metadata.check().map_err(|error| anyhow!("{}", error.description))?;
    Ok(metadata)
}

fn grant_type(word: &str) -> Result<GrantType> {
    GrantType::parse(word).ok_or_else(|| {
        anyhow!("`grant_types` must be some of {}", listed(GrantType::ALL.iter().map(|grant| grant.as_str())))
    })
}

fn check_clients(clients: &[ConfigClient], resources: &[ProtectedResource]) -> Result<()> {
    let mut known = BTreeSet::new();
    for client in clients {
        if !known.insert(&client.id) {
            bail!("the client {} is there twice", client.id);
        }
        let introspects = resources.iter().any(|resource| resource.introspectors.contains(&client.id));
        let exchanges = resources.iter().any(|resource| resource.exchangers.contains(&client.id));
        if exchanges && !client.metadata.allows(GrantType::TokenExchange) {
            let word = GrantType::TokenExchange.as_str();
            bail!("{} is to exchange tokens and may not: `{word}` must be one of its `grant_types`", client.id);
        }
        if introspects && client.metadata.token_endpoint_auth_method == AuthMethod::None {
            bail!("{} is to introspect tokens and proves nothing: it needs a secret or a key", client.id);
        }
    }
    Ok(())
}

/// Says what the operator may not have meant.
pub(super) async fn look_around(settings: &IssuerSettings, public_url: &Url, engine: &Engine) {
    if public_url.scheme() == "https" && settings.trusted_proxies.is_empty() {
        tracing::warn!(
            "clients come through a proxy, since this server speaks no TLS, and it is not named in `[issuer] \
             trusted_proxies`: they all count as one, and one who guesses secrets locks out the others"
        );
    }
    let Admitted { users, email_domains, organizations } = &settings.admitted;
    let anybody = users.is_none() && email_domains.is_none() && organizations.is_none();
    let own = settings.resources.iter().flat_map(|resource| &resource.upstreams);
    let mut asked = BTreeSet::new();
    for upstream in settings.upstreams.iter().chain(own) {
        let Upstream::Integration(id) = upstream else { continue };
        if !asked.insert(id) {
            continue;
        }
        match engine.integrations().get(&Caller::Local, id).await {
            Ok(_) if anybody => tracing::warn!(
                "whoever has an account at {id} may sign in: `[issuer] allowed_users`, `allowed_email_domains` and \
                 `allowed_organizations` say who may"
            ),
            Err(Error::NotFound { .. }) => tracing::warn!(
                "people are to sign in at {id}, and there is no such integration yet: nobody can. \
                 `tokenkeep integrations set {id} ...` makes it"
            ),
            // The store does not answer; whoever signs in is told so.
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "issuer_tests.rs"]
mod tests;
