//! `[server]`

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use url::Url;

use super::section::section;

section! {
    /// Where tokenkeep listens and where it keeps its files.
    ONE "server" Server {
        /// The address and port to listen on. Anything else than loopback belongs behind a TLS proxy.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7420)), Text "\"127.0.0.1:7420\"";
        /// Where browsers reach this server; providers send them back to `{public_url}/oauth/callback`.
        public_url: Option<String> = None, Text "\"http://localhost:7420\"";
        /// The database, the journal, the sealing key and the local socket are kept here. Must be on a local disk.
        /// By default `tokenkeep` in the user's data directory ($XDG_DATA_HOME, or ~/.local/share).
        data_dir: Option<PathBuf> = None, Text "\"/var/lib/tokenkeep\"";
        /// Whether `/metrics` needs no key. By default only while listening on loopback.
        open_metrics: Option<bool> = None, Flag "false";
        /// How many connections clients may hold at once; more wait.
        max_connections: usize = 10_000, Number "10000";
        /// At SIGTERM: seconds during which `/readyz` already answers 503 while requests are still taken, for load
        /// balancers that need to notice.
        shutdown_delay: u64 = 0, Number "0";
        /// At SIGTERM: seconds that answers and refreshes under way may take to finish.
        shutdown_patience: u64 = 30, Number "30";
    }
}

impl Server {
    /// Where browsers reach us, when we listen on `listen`.
    pub(crate) fn public_url(&self, listen: SocketAddr) -> Result<Url> {
        let Some(text) = &self.public_url else {
            return Url::parse(&format!("http://localhost:{}", listen.port())).context("a port makes a URL");
        };
        let url = Url::parse(text).context("`server.public_url` is not a URL")?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            bail!("`server.public_url` must begin with https:// (or http:// on a trusted machine)");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            bail!("`server.public_url` must be an origin, without a path: tokenkeep serves at the root");
        }
        if !url.username().is_empty() || url.password().is_some() {
            bail!("`server.public_url` must not hold a user or password");
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_sent_to_an_origin() {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 9000));
        let url = |text: Option<&str>| {
            Server { public_url: text.map(str::to_owned), ..Server::default() }.public_url(listen).map(String::from)
        };
        assert_eq!(url(None).unwrap(), "http://localhost:9000/");
        assert_eq!(url(Some("https://tokens.example.com")).unwrap(), "https://tokens.example.com/");
        for bad in [
            "tokens.example.com",
            "https://a.example/path",
            "ftp://a.example",
            "https://u:p@a.example",
            "https://a.example/?x",
        ] {
            assert!(url(Some(bad)).is_err(), "{bad}");
        }
    }
}
