//! Where the server is and how it is spoken to.

use std::{fmt, time::Duration};

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, TlsCertificates,
};

use super::open::OpenError;

/// How a [`Redis`](super::Redis) is reached, and what is demanded of it. Times are upper bounds.
///
/// | URL | what |
/// |---|---|
/// | `redis://[user:password@]host[:port][/database]` | one server; if it says that it is of a cluster, the cluster |
/// | `redis://[user:password@]host:port,host:port` | a cluster, of which one of these must be there to begin with |
/// | `redis+sentinel://[user:password@]host:port,host:port/primary[/database]` | the primary of that name, as the sentinels tell; they take the same user and password, or none |
///
/// With `rediss` in place of `redis`, TLS is spoken (with sentinels, too). `valkey` and `valkeys` are the same.
#[derive(Clone)]
pub struct RedisOptions {
    /// What every key begins with; `oauth:` unless said otherwise.
    pub prefix: String,
    /// How many connections to one server at most; 50.
    pub connections: usize,
    /// How long a connection may take to be made; 1 s.
    pub connect_timeout: Duration,
    /// How long a read may take, the making of a connection included; 1 s.
    pub read_timeout: Duration,
    /// How long the answer to a write may take; 2 s. Then the write is in doubt.
    pub write_timeout: Duration,
    /// How long a write waits until a replica has it, where there is one; 250 ms. Zero waits for none.
    pub replica_wait: Duration,
    /// Whether a write also waits until it is on the server's disk (and on a replica's, where there is one), if the
    /// server can tell (7.2). With `appendfsync everysec` that takes up to a second.
    pub disk_wait: bool,
    /// Takes a server that throws keys away when it is full.
    pub allow_eviction: bool,
    /// Takes a server that keeps no append-only file, and so loses what it holds when it ends.
    pub allow_without_aof: bool,
    /// Into how many parts a new cluster is divided; 16. What a used one is divided into stays.
    pub shards: usize,
    /// The certificate of the authority that signed the server's, in PEM; without it, those the system trusts.
    pub ca_certificate: Option<Vec<u8>>,
    /// Where it is, and who asks.
    pub url: RedisUrl,
}

/// What a URL names: see [`RedisOptions`]. It holds the password, and does not show it.
#[derive(Clone)]
pub struct RedisUrl {
    pub(super) seeds: Vec<ConnectionAddr>,
    /// The name of the primary, if `seeds` are sentinels.
    pub(super) sentinel: Option<String>,
    pub(super) settings: RedisConnectionInfo,
}

impl RedisOptions {
    /// With everything else as it is by default.
    pub fn new(url: &str) -> Result<Self, OpenError> {
        Ok(Self {
            prefix: "oauth:".into(),
            connections: 50,
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(2),
            replica_wait: Duration::from_millis(250),
            disk_wait: false,
            allow_eviction: false,
            allow_without_aof: false,
            shards: 16,
            ca_certificate: None,
            url: RedisUrl::new(url)?,
        })
    }

    /// Where that is, without user and password.
    pub(super) fn location(&self) -> String {
        let seeds: Vec<_> = self.url.seeds.iter().map(ToString::to_string).collect();
        match &self.url.sentinel {
            None => seeds.join(","),
            Some(primary) => format!("{primary} at {}", seeds.join(",")),
        }
    }

    /// How to connect to the server at `address`.
    pub(super) fn client(&self, address: &ConnectionAddr) -> Result<redis::Client, redis::RedisError> {
        let info = address.clone().into_connection_info()?.set_redis_settings(self.url.settings.clone());
        self.client_of(info)
    }

    /// How to connect to a sentinel, with user and password or without.
    pub(super) fn sentinel_client(
        &self,
        address: &ConnectionAddr,
        authenticated: bool,
    ) -> Result<redis::Client, redis::RedisError> {
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if authenticated {
            settings = self.url.settings.clone().set_db(0);
        }
        self.client_of(address.clone().into_connection_info()?.set_redis_settings(settings))
    }

    fn client_of(&self, info: ConnectionInfo) -> Result<redis::Client, redis::RedisError> {
        match (&self.ca_certificate, info.addr()) {
            (Some(root), ConnectionAddr::TcpTls { .. }) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(root.clone()) };
                redis::Client::build_with_tls(info, certificates)
            }
            _ => redis::Client::open(info),
        }
    }

    /// The address of another server that is spoken to in the same way.
    pub(super) fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        match self.url.seeds.first() {
            Some(ConnectionAddr::TcpTls { insecure, tls_params, .. }) => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<_> = self.seeds.iter().map(ToString::to_string).collect();
        f.debug_struct("RedisUrl").field("seeds", &seeds).field("sentinel", &self.sentinel).finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("location", &self.location())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl RedisUrl {
    /// Understands `url`, or refuses it without repeating it.
    pub fn new(url: &str) -> Result<Self, OpenError> {
        Self::parse(url).ok_or(OpenError::Url)
    }

    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (scheme, sentinel) = match scheme.split_once('+') {
            None => (scheme, false),
            Some((scheme, "sentinel")) => (scheme, true),
            Some((scheme, "cluster")) => (scheme, false),
            Some(_) => return None,
        };
        if !["redis", "rediss", "valkey", "valkeys"].contains(&scheme) || rest.contains(['#', '?']) {
            return None;
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an @ that nobody escaped; a host has none.
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let (primary, database) = if sentinel {
            let (primary, database) = path.split_once('/').unwrap_or((path, ""));
            (Some(Some(primary.to_owned()).filter(|name| !name.is_empty())?), database)
        } else {
            (None, path)
        };
        let mut settings = None;
        let mut seeds = Vec::new();
        for host in hosts.split(',') {
            // Its own rules for hosts, escapes and database numbers are the client's.
            let info = format!("{scheme}://{user}{host}/{database}").into_connection_info().ok()?;
            seeds.push(info.addr().clone());
            settings.get_or_insert_with(|| info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3));
        }
        Some(Self { seeds, sentinel: primary, settings: settings? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_server_several_or_sentinels() {
        let one = RedisOptions::new("redis://alice:p%40ss@example.org:6380/3").unwrap();
        assert_eq!(one.location(), "example.org:6380");
        assert_eq!(one.url.settings.username(), Some("alice"));
        assert_eq!(one.url.settings.password(), Some("p@ss"));
        assert_eq!(one.url.settings.db(), 3);
        let cluster = RedisOptions::new("rediss://:pw@a:1,b:2").unwrap();
        assert_eq!(cluster.location(), "a:1,b:2");
        assert!(cluster.url.seeds.iter().all(|seed| matches!(seed, ConnectionAddr::TcpTls { insecure: false, .. })));
        let sentinel = RedisOptions::new("redis+sentinel://:pw@a:1,b:2/main/4").unwrap();
        assert_eq!(sentinel.location(), "main at a:1,b:2");
        assert_eq!((sentinel.url.sentinel.as_deref(), sentinel.url.settings.db()), (Some("main"), 4));
    }

    #[test]
    fn other_urls_are_refused_without_being_repeated() {
        for url in [
            "",
            "example.org",
            "http://a",
            "redis+other://a",
            "redis+sentinel://a:1",
            "redis://a/x",
            "rediss://u:secret@a#insecure",
            "redis://u:secret@a:99999",
        ] {
            let error = RedisOptions::new(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let options = RedisOptions::new("redis://alice:secret@a").unwrap();
        let shown = format!("{options:?} {:?} {}", options.url, options.location());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
