//! What the configuration file says of backend sessions, brought into the engine's words.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use secrecy::ExposeSecret;
use tokenkeep_core::ClientId;
use tokenkeep_engine::{
    Caller, Engine,
    issuer::{IssuerSettings, ProtectedResource},
    sessions::{MAX_TTL, SessionSettings},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        jws::{Algorithm, TokenKey},
        metadata::Issuer as IssuerUrl,
        resource::Resource,
        scope::ScopeSet,
    },
};
use url::Url;

use crate::config::{Config, Sessions, secret};

const TTL: RangeInclusive<u64> = 60..=MAX_TTL.as_secs();
const GRACE: RangeInclusive<u64> = 0..=600;
const WEBSOCKET_TTL: RangeInclusive<u64> = 10..=3600;
const REFRESH_TOKEN_TTL: RangeInclusive<u64> = 300..=365 * 24 * 60 * 60;

/// What sessions are to be, checked; `None` = there are none.
pub(crate) fn settings(
    config: &Config,
    issuer: Option<&IssuerSettings>,
    public_url: &Url,
) -> Result<Option<SessionSettings>> {
    let Some(sessions) = config.sessions.as_ref().filter(|sessions| sessions.enabled) else { return Ok(None) };
    let place = config.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
    read(config, sessions, issuer, public_url).map(Some).with_context(|| format!("{place}: [sessions]"))
}

fn read(
    config: &Config,
    sessions: &Sessions,
    issuer: Option<&IssuerSettings>,
    public_url: &Url,
) -> Result<SessionSettings> {
    let base = public_url.as_str().trim_end_matches('/');
    let audience = sessions.audience.clone().unwrap_or_else(|| format!("{base}/v1/sessions"));
    let audience = Resource::parse(&audience).context("`audience`, or `server.public_url` where that is not said")?;
    if issuer.is_some_and(|issuer| issuer.resource(&audience).is_some()) {
        bail!("`audience` is that of an [[issuer.resource]]: its clients' tokens would be taken for sessions");
    }
    let url = match (issuer, &sessions.issuer) {
        (Some(_), Some(_)) => bail!("`issuer` goes without an [issuer], which says who issues tokens here"),
        (Some(issuer), None) => issuer.url.clone(),
        (None, Some(text)) => IssuerUrl::parse(text).context("`issuer`")?,
        (None, None) => IssuerUrl::parse(base)
            .context("`server.public_url` is no name for who issues tokens; set `issuer` to one that is")?,
    };
    let algorithm = algorithm(&sessions.alg)?;
    let signing_secret = signing_secret(sessions, algorithm)?;
    if let Some(secret) = &signing_secret {
        check_unique(secret, config, issuer)?;
    }
    let ttl = within("ttl", sessions.ttl, &TTL)?;
    let refresh_token_ttl = match sessions.refresh_token_ttl {
        0 => None,
        seconds => Some(within("refresh_token_ttl", seconds, &REFRESH_TOKEN_TTL)?),
    };
    if issuer.is_none() && !sessions.exchangers.is_empty() {
        bail!("`exchangers` needs an [issuer]: they exchange at its /token");
    }
    let exchangers = sessions.exchangers.iter().map(|id| ClientId::new(id));
    Ok(SessionSettings {
        issuer: url,
        resource: ProtectedResource {
            resource: audience,
            name: None,
            scopes: ScopeSet::default(),
            algorithm: Some(algorithm),
            signing_secret,
            introspectors: BTreeSet::new(),
            exchangers: exchangers.collect::<Result<_, _>>().context("`exchangers`")?,
            needs_upstream: false,
            upstreams: Vec::new(),
        },
        ttl,
        grace: within("grace", sessions.grace, &GRACE)?,
        websocket_ttl: within("websocket_ttl", sessions.websocket_ttl, &WEBSOCKET_TTL)?,
        refresh_token_ttl,
        allowed_origins: sessions.allowed_origins.iter().map(|text| origin(text)).collect::<Result<_>>()?,
    })
}

fn within(name: &str, seconds: u64, range: &RangeInclusive<u64>) -> Result<Duration> {
    if range.contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    bail!("`{name}` must be from {} to {} seconds", range.start(), range.end())
}

fn algorithm(word: &str) -> Result<Algorithm> {
    Algorithm::parse(word).ok_or_else(|| {
        let words = Algorithm::ALL.map(|algorithm| format!("`{}`", algorithm.as_str())).join(", ");
        anyhow!("`alg` must be one of {words}")
    })
}

fn signing_secret(sessions: &Sessions, algorithm: Algorithm) -> Result<Option<Secret>> {
    let given = secret("signing_secret", sessions.signing_secret.as_ref(), sessions.signing_secret_file.as_deref())?;
    match (algorithm, given) {
        (Algorithm::Hs256, None) => {
            bail!(
                "HS256 needs a `signing_secret` (or `signing_secret_file`) of its own; `tokenkeep secret random` makes one"
            )
        }
        (Algorithm::Hs256, Some(secret)) => {
            let text = secret.expose_secret();
            if TokenKey::from_stored(Algorithm::Hs256, text.as_bytes()).is_err() {
                bail!("`signing_secret` is shorter than 32 bytes; `tokenkeep secret random` makes one");
            }
            if is_published(text) {
                bail!(
                    "`signing_secret` looks like a provider's publishable key or a token: whoever has read it in a page \
                     could make sessions. `tokenkeep secret random` makes a key"
                );
            }
            Ok(Some(secret))
        }
        (_, Some(_)) => bail!("`signing_secret` goes with `alg = \"HS256\"`"),
        (_, None) => Ok(None),
    }
}

/// Whether it has the looks of what applications ship to browsers: Supabase's publishable and anon keys, any JWT.
fn is_published(text: &str) -> bool {
    let is_jwt = text.starts_with("eyJ") && text.matches('.').count() == 2;
    is_jwt || text.starts_with("sb_publishable_") || text.starts_with("pk_")
}

/// Who knows it for another purpose could make sessions.
fn check_unique(own: &Secret, config: &Config, issuer: Option<&IssuerSettings>) -> Result<()> {
    let is_it = |other: &str| same(own, other);
    let is_also = |other: Option<Secret>| other.is_some_and(|other| is_it(other.expose_secret()));
    for integration in &config.integrations {
        let mut public = integration.params.values().map(String::as_str).chain(integration.client_id.as_deref());
        let client_secret =
            secret("client_secret", integration.client_secret.as_ref(), integration.client_secret_file.as_deref())?;
        let signing_key =
            secret("signing_key", integration.signing_key.as_ref(), integration.signing_key_file.as_deref())?;
        if public.any(is_it) || is_also(client_secret) || is_also(signing_key) {
            bail!(
                "`signing_secret` stands in an [[integration]], too: whoever knows it from there could make sessions"
            );
        }
    }
    if config.catalogue.iter().any(|provider| provider.dialect.token_headers.values().any(|value| is_it(value))) {
        bail!("`signing_secret` stands in a [[provider]], too: whoever knows it from there could make sessions");
    }
    let resources = issuer.map_or(&[][..], |issuer| issuer.resources.as_slice()).iter();
    let clients = issuer.map_or(&[][..], |issuer| issuer.clients.as_slice()).iter();
    let keys = config.keys.iter().map(|key| secret("secret", key.secret.as_ref(), key.secret_file.as_deref()));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let mut others = resources
        .filter_map(|known| known.signing_secret.as_ref())
        .chain(clients.filter_map(|client| client.secret.as_ref()))
        .chain(keys.iter().flatten());
    if others.any(|other| is_it(other.expose_secret())) {
        bail!("`signing_secret` is the secret of a resource, a client or a key as well: either could make sessions");
    }
    Ok(())
}

/// A key's name is a hash of it: who has the same name is the same.
fn same(secret: &Secret, other: &str) -> bool {
    let name = |text: &str| {
        let key = TokenKey::from_stored(Algorithm::Hs256, text.as_bytes()).ok();
        key.map(|key| key.kid().to_owned())
    };
    name(other).is_some_and(|other| Some(other) == name(secret.expose_secret()))
}

/// The same for integrations that were made over the API: their params are shown to whoever may list them.
pub(super) async fn look_around(settings: &SessionSettings, engine: &Engine) -> Result<()> {
    let Some(secret) = &settings.resource.signing_secret else { return Ok(()) };
    let Ok(integrations) = engine.integrations().list(&Caller::Local).await else {
        // The store does not answer; what is configured was looked at.
        return Ok(());
    };
    for integration in integrations {
        let mut public = integration.params.values().chain(std::iter::once(&integration.client_id));
        if public.any(|other| same(secret, other)) {
            bail!("[sessions] `signing_secret` is a public value of the integration {}", integration.id);
        }
    }
    Ok(())
}

fn origin(text: &str) -> Result<String> {
    let url = Url::parse(text).map_err(|_| anyhow!("`allowed_origins` holds something else than an origin: {text}"))?;
    let origin = url.origin();
    if !origin.is_tuple() || origin.ascii_serialization() != text {
        bail!("`allowed_origins` holds something else than an origin: write `https://app.example.com`, and no more");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
