//! What the configuration file says of servers to stand in front of, brought into the words of the engine and the face.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use http::HeaderName;
use tokenkeep_core::ports::Peers;
use tokenkeep_engine::{
    Engine,
    issuer::{IssuerSettings, ProtectedResource, Upstream},
    transport::{empty_body, is_near},
};
use tokenkeep_oauth::issuer::resource::Resource;
use tokenkeep_server::{Forward, Protected, is_own_path};
use url::{Host, Url};

use super::said::{required, scopes};
use crate::{
    args,
    config::{Config, Protect},
};

/// Headers that say something else already.
const TAKEN: [&str; 6] = ["connection", "content-length", "cookie", "host", "te", "transfer-encoding"];
/// The same, by what they begin with.
const TAKEN_PREFIXES: [&str; 4] = ["mcp-", "x-auth-", "x-forwarded-", "x-user-"];

/// A server, as both see it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) server: Protected,
    /// `None` = where those of the issuer sign in.
    pub(super) provider: Option<String>,
    name: Option<String>,
    scopes: Vec<String>,
}

/// What `[[protect]]` says, checked by itself.
pub(super) fn read(config: &Config, public_url: &Url) -> Result<Vec<Told>> {
    let place = config.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
    let mut known = BTreeSet::new();
    let mut all = Vec::new();
    for (index, from) in config.protect.iter().enumerate() {
        let told = one(from, config, public_url)
            .and_then(|told| {
                if !known.insert(told.server.resource.clone()) {
                    bail!("`path`: another [[protect]] has it already");
                }
                Ok(told)
            })
            .with_context(|| format!("{place}: [[protect]] number {}", index + 1))?;
        all.push(told);
    }
    Ok(all)
}

/// What is wrong with the flags of `tokenkeep protect`, said of the flag: there is no `[[protect]]` to look at.
pub(crate) fn check_flags(flags: &args::Protect, config: &Config) -> Result<()> {
    let wrong = |flag: &str, error: anyhow::Error| args::wrong(format!("{flag} {error:#}"));
    upstream(&flags.upstream, config).map_err(|error| wrong("--upstream", error))?;
    path(&flags.path).map_err(|error| wrong("--path", error))?;
    for scope in &flags.scopes {
        scopes(std::slice::from_ref(scope))
            .map_err(|_| wrong("--scope", anyhow!("takes one scope; give it once for each")))?;
    }
    if let Some(word) = &flags.forward_token {
        forward(word).map_err(|error| wrong("--forward-token", error))?;
    }
    Ok(())
}

fn one(from: &Protect, config: &Config, public_url: &Url) -> Result<Told> {
    let path = path(required("path", from.path.as_ref())?).context("`path`")?;
    let upstream = upstream(required("upstream", from.upstream.as_ref())?, config).context("`upstream`")?;
    let public = public_url.join(path).context("`path`")?;
    if upstream.origin() == public.origin() {
        bail!("`upstream` is this server itself");
    }
    let resource = Resource::parse(public.as_str()).with_context(|| format!("{public} cannot be protected"))?;
    Ok(Told {
        server: Protected { resource, upstream, forward: forward(&from.forward_token).context("`forward_token`")? },
        provider: from.provider.clone(),
        name: from.name.clone(),
        scopes: from.scopes.clone(),
    })
}

/// A path of which no part means anything but itself.
fn path(text: &str) -> Result<&str> {
    let is_plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
    };
    if !text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain)) {
        bail!(
            "must begin with a slash, not end with one, and be made of letters, digits, and any of - . _ ~ in \
             between"
        );
    }
    if is_own_path(text) {
        bail!("{text} is a path of tokenkeep's own");
    }
    Ok(text)
}

fn upstream(text: &str, config: &Config) -> Result<Url> {
    let url = Url::parse(text).map_err(|_| anyhow!("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        bail!("must begin with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        bail!("must not hold a user or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        bail!("must not have a query or a fragment");
    }
    let is_far = match url.host() {
        Some(Host::Ipv4(ip)) => !is_near(ip.into()),
        Some(Host::Ipv6(ip)) => !is_near(ip.into()),
        // What a name leads to is looked at when it is connected to.
        Some(Host::Domain(_)) | None => false,
    };
    if url.scheme() == "http" && is_far && !config.transport.allow_plain_http {
        bail!(
            "is neither on this machine nor in a private network: use https, or say `[transport] allow_plain_http = true`"
        );
    }
    Ok(url)
}

fn forward(word: &str) -> Result<Forward> {
    match word {
        "none" => return Ok(Forward::Nothing),
        "authorization" => return Ok(Forward::Authorization),
        _ => {}
    }
    let is_free = |name: &&str| !TAKEN.contains(name) && !TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let lower = word.to_ascii_lowercase();
    let name = Some(lower.as_str()).filter(is_free).and_then(|name| name.parse::<HeaderName>().ok());
    name.map(Forward::Header)
        .ok_or_else(|| anyhow!("must be `none`, `authorization`, or the name of a header that says nothing else"))
}

impl Told {
    /// The resource that it is. `upstreams`: where its users sign in, if not where those of the issuer do.
    pub(super) fn resource(&self, upstreams: Vec<Upstream>) -> Result<ProtectedResource> {
        Ok(ProtectedResource {
            resource: self.server.resource.clone(),
            name: self.name.clone(),
            scopes: scopes(&self.scopes)?,
            algorithm: None,
            signing_secret: None,
            introspectors: BTreeSet::new(),
            exchangers: BTreeSet::new(),
            needs_upstream: self.server.forward != Forward::Nothing,
            upstreams,
        })
    }
}

/// How long a server may take to say anything at the start.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// Those that do not answer at present. They may be started later.
pub(super) async fn silent(servers: &[Protected], engine: &Engine) -> Vec<Url> {
    let Some(outbound) = engine.outbound() else { return Vec::new() };
    let mut silent = Vec::new();
    for Protected { upstream, .. } in servers {
        let question = http::Request::options(upstream.as_str()).body(empty_body());
        let Ok(question) = question else { continue };
        if let Err(error) = outbound.call(question, Peers::Near, FIRST_WORD).await {
            tracing::warn!(%upstream, %error, "a server to stand in front of does not answer yet");
            silent.push(upstream.clone());
        }
    }
    silent
}

/// That none of them takes a path of the issuer's from it, and that what is to be handed on can be had.
pub(super) fn check(all: &[Told], settings: &IssuerSettings) -> Result<()> {
    let issuer = settings.url.path();
    for told in all {
        let resource = &told.server.resource;
        let path = resource.url().path().to_owned();
        let is_below =
            |path: &str, other: &str| path.strip_prefix(other).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        if !issuer.is_empty() && (is_below(&path, issuer) || is_below(issuer, &path)) {
            bail!("[[protect]]: `path`: {path} and the path of `issuer.url` are one below the other");
        }
        let upstreams = settings.upstreams_of(resource);
        if told.server.forward != Forward::Nothing && upstreams.contains(&Upstream::LocalAdministrator) {
            bail!("[[protect]]: `forward_token`: who signs in with an admin key has no token at a provider");
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "protect_tests.rs"]
mod tests;
