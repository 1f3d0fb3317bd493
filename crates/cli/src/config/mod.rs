//! The configuration: one TOML file, `TOKENKEEP__SECTION__KEY` over it, command-line flags over both.
//!
//! Each section is one file here, declared once (`section`). `layers` reads file and environment, `check` says what is
//! wrong with their keys, and figment merges them; nothing else in the program knows figment.

mod cache;
mod check;
mod clients;
mod compat;
mod connect;
mod connections;
mod example;
mod integrations;
mod issuer;
mod keys;
mod layers;
mod log;
mod nearest;
mod protect;
mod providers;
mod proxy;
mod refresh;
mod sealing;
mod secrets;
mod section;
mod server;
mod sessions;
mod store;
mod transport;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use figment::Figment;
use serde::{Deserialize, de::IgnoredAny};
use tokenkeep_engine::catalogue::Catalogue;
use url::Url;

pub(crate) use self::{
    cache::Cache,
    clients::OAuthClient,
    compat::Compat,
    connect::Connect,
    connections::SeededConnection,
    example::example_toml,
    integrations::Integration,
    issuer::{Issuer, IssuerResource, IssuerUpstream},
    keys::ApiKey,
    log::{Format, Log},
    nearest::nearest,
    protect::Protect,
    proxy::Proxy,
    refresh::Refresh,
    sealing::Sealing,
    secrets::{read_secret_file, secret, secret_of_command},
    server::Server,
    sessions::Sessions,
    store::Store,
    transport::Transport,
};
use self::{
    layers::{TomlFile, Variable},
    section::Section,
};
use crate::environment::Environment;

/// The file that is read where none is named.
pub(crate) const DEFAULT_FILE: &str = "tokenkeep.toml";

/// Every section, in the order of the example file.
const SECTIONS: [Section; 20] = [
    Server::SECTION,
    Store::SECTION,
    Sealing::SECTION,
    Integration::SECTION,
    providers::SECTION,
    SeededConnection::SECTION,
    ApiKey::SECTION,
    Connect::SECTION,
    Issuer::SECTION,
    IssuerUpstream::SECTION,
    IssuerResource::SECTION,
    OAuthClient::SECTION,
    Protect::SECTION,
    Compat::SECTION,
    Sessions::SECTION,
    Cache::SECTION,
    Refresh::SECTION,
    Proxy::SECTION,
    Transport::SECTION,
    Log::SECTION,
];

/// What an installation says.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) store: Store,
    pub(crate) sealing: Sealing,
    pub(crate) keys: Vec<ApiKey>,
    pub(crate) integrations: Vec<Integration>,
    pub(crate) connections: Vec<SeededConnection>,
    pub(crate) connect: Connect,
    /// `None` = nothing is said of it: nothing is issued.
    pub(crate) issuer: Option<Issuer>,
    pub(crate) clients: Vec<OAuthClient>,
    pub(crate) protect: Vec<Protect>,
    pub(crate) compat: Compat,
    /// `None` = nothing is said of them: there are none.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) cache: Cache,
    pub(crate) refresh: Refresh,
    pub(crate) proxy: Proxy,
    pub(crate) transport: Transport,
    pub(crate) log: Log,
    /// The built-in catalogue with the installation's own providers.
    pub(crate) catalogue: Catalogue,
    /// The file that was read, if any.
    pub(crate) file: Option<PathBuf>,
    /// Who named the store: a file or a variable; `None` = nobody.
    pub(crate) store_named_by: Option<String>,
}

/// The sections as figment brings them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    #[serde(default)]
    server: Server,
    #[serde(default)]
    store: Store,
    #[serde(default)]
    sealing: Sealing,
    #[serde(default)]
    key: Vec<ApiKey>,
    #[serde(default)]
    integration: Vec<Integration>,
    #[serde(default)]
    connection: Vec<SeededConnection>,
    #[serde(default)]
    connect: Connect,
    #[serde(default)]
    issuer: Issuer,
    #[serde(default)]
    client: Vec<OAuthClient>,
    #[serde(default)]
    protect: Vec<Protect>,
    #[serde(default)]
    compat: Compat,
    #[serde(default)]
    sessions: Sessions,
    #[serde(default)]
    cache: Cache,
    #[serde(default)]
    refresh: Refresh,
    #[serde(default)]
    proxy: Proxy,
    #[serde(default)]
    transport: Transport,
    #[serde(default)]
    log: Log,
    /// Read apart, as the catalogue reads them.
    #[serde(default, rename = "provider")]
    _provider: IgnoredAny,
}

impl Config {
    /// Reads `file`, or `tokenkeep.toml` in the working directory where none is named, and the environment over it.
    pub(crate) fn load(file: Option<&Path>, environment: &Environment) -> Result<Self> {
        let path = match file {
            Some(named) => Some(named),
            None => Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        let file = path.map(TomlFile::read).transpose()?;
        let mut figment = file.iter().fold(Figment::new(), Figment::merge);
        for variable in Variable::all(environment)? {
            figment = figment.merge(variable);
        }
        check::keys(&figment)?;
        let sections: Sections = figment.extract().map_err(|error| check::value_error(&error))?;
        let catalogue = providers::catalogue(file.as_ref())?;
        let store_named_by = match (&sections.store.url, &sections.store.url_file) {
            (Some(_), _) => Some(check::origin(&figment, "store.url")),
            (None, Some(_)) => Some(check::origin(&figment, "store.url_file")),
            (None, None) => None,
        };
        let is_said = |section: Section| {
            figment.find_value(section.name).is_ok_and(|said| said.as_dict().is_some_and(|said| !said.is_empty()))
        };
        let (issues, has_sessions) = (is_said(Issuer::SECTION), is_said(Sessions::SECTION));
        Ok(Self {
            server: sections.server,
            store: sections.store,
            sealing: sections.sealing,
            keys: sections.key,
            integrations: sections.integration,
            connections: sections.connection,
            connect: sections.connect,
            issuer: issues.then_some(sections.issuer),
            clients: sections.client,
            protect: sections.protect,
            compat: sections.compat,
            sessions: has_sessions.then_some(sections.sessions),
            cache: sections.cache,
            refresh: sections.refresh,
            proxy: sections.proxy,
            transport: sections.transport,
            log: sections.log,
            catalogue,
            file: file.map(|file| file.path().to_owned()),
            store_named_by,
        })
    }

    /// Where browsers reach us, when we listen on `listen`: where the authorization server is, if only that is said.
    pub(crate) fn public_url(&self, listen: SocketAddr) -> Result<Url> {
        let issuer = self.issuer.as_ref().and_then(|issuer| issuer.url.as_deref());
        match issuer.filter(|_| self.server.public_url.is_none()).map(Url::parse) {
            Some(Ok(mut url)) if matches!(url.scheme(), "http" | "https") => {
                url.set_path("/");
                url.set_query(None);
                url.set_fragment(None);
                Ok(url)
            }
            // What is wrong with the issuer's own URL is said where that is read.
            _ => self.server.public_url(listen),
        }
    }

    /// Where our files are.
    pub(crate) fn data_dir(&self, environment: &Environment) -> Result<PathBuf> {
        let dir = match &self.server.data_dir {
            Some(dir) => dir.clone(),
            None => default_data_dir(environment)?,
        };
        std::path::absolute(&dir).with_context(|| format!("the data directory {} cannot be used", dir.display()))
    }
}

fn default_data_dir(environment: &Environment) -> Result<PathBuf> {
    let base = match (environment.os("XDG_DATA_HOME"), environment.os("HOME")) {
        // Relative ones are to be ignored, says the XDG base directory specification.
        (Some(data), _) if Path::new(data).is_absolute() => PathBuf::from(data),
        (_, Some(home)) => Path::new(home).join(".local/share"),
        _ => anyhow::bail!("this user has no home directory: say where to keep data with `--data-dir DIR`"),
    };
    Ok(base.join("tokenkeep"))
}

#[cfg(test)]
mod tests;
