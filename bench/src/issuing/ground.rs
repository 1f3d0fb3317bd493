//! The servers: ours, and those that do the same. All of them on one core; the Redis that one of them needs is not.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tokenkeep_services::{REDIS_PASSWORD, Redis};

use super::{
    Arguments,
    side::{Right, Side, issued},
    signing::Algorithm,
};
use crate::{
    load,
    peer::Peer,
    service::{Service, binary, pinned},
};

const CLIENT: &str = "bench";
const SECRET: &str = "a-secret-of-the-harness-0123456789";
const RESOURCE: &str = "https://mcp.example.com/mcp";

/// tokenkeep, with one algorithm.
pub struct Ours {
    service: Service,
    algorithm: Algorithm,
}

impl Ours {
    pub fn start(tokenkeep: Option<&PathBuf>, algorithm: Algorithm, core: usize) -> anyhow::Result<Self> {
        let config = format!(
            "[server]\npublic_url = \"http://localhost:7420\"\n[log]\nlevel = \"warn\"\n\
             [issuer]\nurl = \"http://localhost:7420\"\nregistration = \"off\"\nalgorithm = \"{}\"\n\
             [[issuer.resource]]\nurl = \"{RESOURCE}\"\nscopes = [\"read\"]\n\
             [[client]]\nclient_id = \"{CLIENT}\"\nclient_secret = \"{SECRET}\"\n\
             grant_types = [\"client_credentials\"]\n",
            algorithm.name()
        );
        Ok(Self { service: Service::start(&binary(tokenkeep)?, &config, Some(core))?, algorithm })
    }

    pub fn token(&self) -> Side {
        let (request, answer) = (client_credentials(RESOURCE), Right::Signed(self.algorithm));
        Side::Server { addr: self.service.addr, request, answer }
    }

    pub fn introspect(&self) -> anyhow::Result<Side> {
        let form = form(&[("token", &self.access_token()?)]);
        let request = load::post("/introspect", Some((CLIENT, SECRET)), &form);
        Ok(Side::Server { addr: self.service.addr, request, answer: Right::Active })
    }

    pub fn verify(&self) -> anyhow::Result<Side> {
        let request = load::request("/verify", Some(&self.access_token()?));
        Ok(Side::Server { addr: self.service.addr, request, answer: Right::LetThrough })
    }

    fn access_token(&self) -> anyhow::Result<String> {
        issued(load::ask(self.service.addr, &client_credentials(RESOURCE))?.body())
    }
}

/// node-oidc-provider.
pub struct OidcProvider(Peer);

impl OidcProvider {
    /// `None` = where its package is was not said.
    pub fn start(arguments: &Arguments) -> anyhow::Result<Option<Self>> {
        let Some(folder) = &arguments.folder else { return Ok(None) };
        let mut command = pinned(&arguments.node, Some(arguments.core));
        command.arg(script(folder, "oidc-provider.mjs")?).env("NODE_ENV", "production");
        command.env("CLIENT_ID", CLIENT).env("CLIENT_SECRET", SECRET);
        Peer::start(&mut command).map(|peer| Some(Self(peer)))
    }

    pub fn token(&self, algorithm: Algorithm) -> anyhow::Result<Side> {
        let request = client_credentials(&format!("urn:measured:{}", algorithm.name()));
        Ok(Side::Server { addr: address(&self.0)?, request, answer: Right::Signed(algorithm) })
    }

    pub fn introspect(&self) -> anyhow::Result<Side> {
        let form = form(&[("token", self.0.said("token")?)]);
        let request = load::post("/token/introspection", Some((CLIENT, SECRET)), &form);
        Ok(Side::Server { addr: address(&self.0)?, request, answer: Right::Active })
    }
}

/// @cloudflare/workers-oauth-provider.
pub struct WorkersOauthProvider(Peer);

impl WorkersOauthProvider {
    /// `None` = where its package is was not said.
    pub fn start(arguments: &Arguments) -> anyhow::Result<Option<Self>> {
        let Some(folder) = &arguments.folder else { return Ok(None) };
        let mut command = pinned(&arguments.node, Some(arguments.core));
        command.arg(script(folder, "workers-oauth-provider.mjs")?).env("NODE_ENV", "production");
        Peer::start(&mut command).map(|peer| Some(Self(peer)))
    }

    pub fn bearer_check(&self) -> anyhow::Result<Side> {
        let request = load::request("/resource", Some(self.0.said("token")?));
        Ok(Side::Server { addr: address(&self.0)?, request, answer: Right::LetThrough })
    }
}

/// mcp-oauth-dynamicclient, and the Redis that it needs.
pub struct Gateway {
    peer: Peer,
    _redis: Redis,
}

impl Gateway {
    /// `None` = where its package is was not said.
    pub fn start(arguments: &Arguments) -> anyhow::Result<Option<Self>> {
        let (Some(folder), Some(python)) = (&arguments.folder, &arguments.python) else { return Ok(None) };
        let redis = Redis::options().set("appendonly", "no").start()?;
        let mut command = pinned(python, Some(arguments.core));
        command.arg(script(folder, "gateway.py")?);
        command.env("REDIS_URL", format!("redis://{}/0", redis.address())).env("REDIS_PASSWORD", REDIS_PASSWORD);
        Ok(Some(Self { peer: Peer::start(&mut command)?, _redis: redis }))
    }

    pub fn introspect(&self) -> anyhow::Result<Side> {
        let said = |name| self.peer.said(name);
        let (id, secret) = (said("client_id")?, said("client_secret")?);
        let form = form(&[("token", said("token")?), ("client_id", id), ("client_secret", secret)]);
        let request = load::post("/introspect", None, &form);
        Ok(Side::Server { addr: address(&self.peer)?, request, answer: Right::Active })
    }

    pub fn verify(&self) -> anyhow::Result<Side> {
        let request = load::request("/verify", Some(self.peer.said("token")?));
        Ok(Side::Server { addr: address(&self.peer)?, request, answer: Right::LetThrough })
    }
}

fn script(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    std::fs::canonicalize(folder.join(name)).with_context(|| format!("{name} is not in {}", folder.display()))
}

fn address(peer: &Peer) -> anyhow::Result<SocketAddr> {
    Ok(peer.said("address")?.parse()?)
}

fn client_credentials(resource: &str) -> Vec<u8> {
    let form = form(&[("grant_type", "client_credentials"), ("scope", "read"), ("resource", resource)]);
    load::post("/token", Some((CLIENT, SECRET)), &form)
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
