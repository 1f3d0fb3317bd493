//! Redis alone, watched by Sentinels, and as a Cluster.

mod cluster;
mod node;
mod protocol;
mod sentinel;

use std::ops::Deref;

use serde::{Deserialize, Serialize};

pub use cluster::{Cluster, ClusterAt};
pub use sentinel::Sentinel;

use crate::{Error, server::Server};
use node::Node;

/// The password of every Redis here.
pub const REDIS_PASSWORD: &str = "redis";

/// Where a Redis listens and how to get in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedisAt {
    port: u16,
    tls: Option<Tls>,
}

/// The TLS side of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tls {
    pub(crate) port: u16,
    /// The authority that signed its certificate, as PEM.
    pub(crate) authority: String,
}

impl RedisAt {
    /// `redis://:redis@127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("redis://:{REDIS_PASSWORD}@{}/", self.address())
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `rediss://:redis@localhost:PORT/`, if it was started with [`RedisOptions::tls`].
    pub fn tls_url(&self) -> Option<String> {
        Some(format!("rediss://:{REDIS_PASSWORD}@localhost:{}/", self.tls.as_ref()?.port))
    }

    /// The authority that signed its certificate, as PEM, if it was started with [`RedisOptions::tls`].
    pub fn tls_authority(&self) -> Option<&str> {
        Some(&self.tls.as_ref()?.authority)
    }

    /// Runs one command, as `redis-cli` would, and answers what it says.
    pub fn command(&self, words: &[&str]) -> Result<String, Error> {
        let reply = protocol::ask(self.port, Some(REDIS_PASSWORD), words);
        reply.map(|reply| reply.to_string()).map_err(Error::because(words.join(" ")))
    }
}

/// How a Redis differs from the usual: append-only file on, `maxmemory-policy noeviction`, no memory limit, no TLS.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) tls: bool,
}

impl RedisOptions {
    /// Any directive of redis.conf, for example `("maxmemory", "4mb")`; it replaces the usual one.
    pub fn set(mut self, directive: &str, value: &str) -> Self {
        self.settings.push((directive.to_owned(), value.to_owned()));
        self
    }

    /// Listens on a second port with TLS, with a certificate of its own for `localhost` and 127.0.0.1.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Redis, Error> {
        Redis::with(&self)
    }
}

/// A Redis of one's own.
pub struct Redis(Node);

impl Redis {
    /// Starts one, with the usual settings.
    pub fn start() -> Result<Self, Error> {
        Self::with(&RedisOptions::default())
    }

    /// Settings of one's own: `Redis::options().set("maxmemory", "4mb").tls().start()`.
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    fn with(options: &RedisOptions) -> Result<Self, Error> {
        Node::start("redis", options).map(Self)
    }

    /// A replica of `primary`, which refuses writes; answers when it has caught up.
    pub fn replica_of(primary: &RedisAt) -> Result<Self, Error> {
        let replica = Self::options().set("replicaof", &format!("127.0.0.1 {}", primary.port)).start()?;
        replica.0.until_replicating()?;
        Ok(replica)
    }

    fn server(&self) -> &Server {
        self.0.server()
    }

    fn start_again(&self) -> Result<(), Error> {
        self.0.restart()
    }
}

crate::server::controls!(Redis);

impl Deref for Redis {
    type Target = RedisAt;

    fn deref(&self) -> &RedisAt {
        self.0.at()
    }
}
