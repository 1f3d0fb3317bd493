//! The stores under test, each with servers of its own.

use std::path::Path;

use clap::ValueEnum;

use super::{
    fleet::{Plan, SEALING_KEY},
    upstream::Upstream,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One file, several processes.
    Sqlite,
}

/// A store that runs.
pub struct Backend {
    pub kind: Kind,
    store_url: String,
    /// A Redis in front of it, as cache and bus.
    cache_url: Option<String>,
}

impl Backend {
    pub fn start(kind: Kind, ground: &Path) -> anyhow::Result<Self> {
        match kind {
            Kind::Sqlite => {
                let file = ground.join("shared.db");
                Ok(Self { kind, store_url: format!("sqlite:{}", file.display()), cache_url: None })
            }
        }
    }

    /// How many connections a storm has where nobody says.
    pub fn usual_connections(&self) -> usize {
        match self.kind {
            Kind::Sqlite => 1_000,
        }
    }

    /// An instance on this store, with its cache in front.
    pub fn plan(&self, binary: &Path, upstream: &Upstream, preload_seconds: u64) -> Plan {
        let cache = self.cache_url.as_ref().map(|url| format!("[cache]\nredis_url = \"{url}\"\n\n")).unwrap_or_default();
        self.plan_with(binary, upstream, preload_seconds, &cache)
    }

    /// An instance that sees nothing but the store.
    pub fn bare_plan(&self, binary: &Path, upstream: &Upstream) -> Plan {
        self.plan_with(binary, upstream, NEVER, "")
    }

    fn plan_with(&self, binary: &Path, upstream: &Upstream, preload_seconds: u64, more: &str) -> Plan {
        let config = format!(
            "[store]\nurl = \"{}\"\n\n[sealing]\nkey = \"{SEALING_KEY}\"\n\n[refresh]\ninterval = {preload_seconds}\n\n\
             {more}{}",
            self.store_url,
            upstream.config()
        );
        Plan { binary: binary.to_owned(), config }
    }
}

/// A preloader that looks once at start and never again.
pub const NEVER: u64 = 86_400;
