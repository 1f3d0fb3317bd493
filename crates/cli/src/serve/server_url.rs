//! The URL of a server, with the password it may hold: shown without it, and checked before anything is sent there.

use std::{fmt, net::IpAddr};

use anyhow::{Result, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret as _;
use tokenkeep_oauth::Secret;

/// `scheme://user:password@host:port,host:port/path?query`. Read as text, because several hosts are no URL.
#[derive(Clone)]
pub(crate) struct ServerUrl(Secret);

impl ServerUrl {
    pub(crate) fn new(url: Secret) -> Self {
        Self(url)
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }

    pub(crate) fn scheme(&self) -> &str {
        self.0.expose_secret().split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// All that follows `scheme:` or `scheme://`.
    pub(super) fn after_scheme(&self) -> &str {
        let rest = self.0.expose_secret().split_once(':').map_or("", |(_, rest)| rest);
        rest.strip_prefix("//").unwrap_or(rest)
    }

    /// `user:password`, and what stands after it.
    fn parts(&self) -> (Option<&str>, &str) {
        let rest = self.after_scheme();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        match rest[..end].rfind('@') {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        }
    }

    fn has_password(&self) -> bool {
        self.parts().0.is_some_and(|user| user.contains(':'))
    }

    /// The same with `password`, if it has none yet.
    #[must_use]
    pub(crate) fn with_password(self, password: Option<&Secret>) -> Self {
        let Some(password) = password.filter(|_| !self.has_password()) else { return self };
        let (user, place) = self.parts();
        let password = utf8_percent_encode(password.expose_secret(), NON_ALPHANUMERIC);
        Self(Secret::from(format!("{}://{}:{password}@{place}", self.scheme(), user.unwrap_or_default())))
    }

    /// The same with a parameter, if it does not have that one.
    #[must_use]
    pub(crate) fn with_parameter(self, name: &str, value: &str) -> Self {
        let text = self.0.expose_secret();
        let query = text.split_once('?').map(|(_, query)| query);
        if query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some(name))) {
            return self;
        }
        let separator = if query.is_some() { '&' } else { '?' };
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        Self(Secret::from(format!("{text}{separator}{name}={value}")))
    }

    /// A Redis that anybody on the network can read and write must be wanted.
    pub(crate) fn refuse_open_redis(&self, chosen_by: &str, allowed: bool) -> Result<()> {
        if self.has_password() || allowed || self.is_loopback() {
            return Ok(());
        }
        bail!(
            "{chosen_by} names a Redis on another machine and no password. Set one there and put it into REDIS_PASSWORD, or \
             say `[cache] redis_allow_no_password = true`"
        )
    }

    fn is_loopback(&self) -> bool {
        let (_, place) = self.parts();
        let hosts = place.split(['/', '?']).next().unwrap_or_default();
        hosts.split(',').all(|host| {
            let name = match host.strip_prefix('[') {
                Some(v6) => v6.split(']').next(),
                None => host.split(':').next(),
            };
            let name = name.unwrap_or_default();
            name.is_empty() || name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        })
    }
}

impl fmt::Display for ServerUrl {
    /// Without user, password and query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, place) = self.parts();
        write!(f, "{}://{}", self.scheme(), place.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        ServerUrl::new(Secret::from(text))
    }

    #[test]
    fn what_is_shown_holds_no_password() {
        for (text, shown) in [
            ("postgres://me:p%40ss@db:5432/app?sslmode=require&password=x", "postgres://db:5432/app"),
            ("redis://:pw@a:1,b:2/main", "redis://a:1,b:2/main"),
            ("redis://h", "redis://h"),
            ("postgres:///app?host=/run/postgresql", "postgres:///app"),
        ] {
            assert_eq!(url(text).to_string(), shown);
            assert_eq!(format!("{:?}", url(text)), shown);
        }
    }

    #[test]
    fn a_password_fills_a_url_without_one() {
        let fill =
            |text: &str| url(text).with_password(Some(&Secret::from("p@:/"))).secret().expose_secret().to_owned();
        assert_eq!(fill("redis://h:1/0"), "redis://:p%40%3A%2F@h:1/0");
        assert_eq!(fill("postgres://me@db/app"), "postgres://me:p%40%3A%2F@db/app");
        assert_eq!(fill("redis://:own@h"), "redis://:own@h");
    }

    #[test]
    fn a_parameter_is_added_once() {
        let with = |text: &str| url(text).with_parameter("sslrootcert", "/a b").secret().expose_secret().to_owned();
        assert_eq!(with("postgres://db/x"), "postgres://db/x?sslrootcert=%2Fa%20b");
        assert_eq!(with("postgres://db/x?sslmode=require"), "postgres://db/x?sslmode=require&sslrootcert=%2Fa%20b");
        assert_eq!(with("postgres://db/x?sslrootcert=y"), "postgres://db/x?sslrootcert=y");
    }

    #[test]
    fn only_a_redis_nearby_may_be_open() {
        let refused = |text: &str| url(text).refuse_open_redis("REDIS_URL", false).is_err();
        for near in ["redis://localhost:6379", "redis://127.0.0.1", "redis://[::1]:6379/1", "redis://:x@10.0.0.1"] {
            assert!(!refused(near), "{near}");
        }
        for far in [
            "redis://10.0.0.1",
            "redis+cluster://127.0.0.1:1,cache:2",
            "redis://127.evil.example",
            "redis://127.0.0.1@cache",
        ] {
            assert!(refused(far), "{far}");
        }
        assert!(url("redis://10.0.0.1").refuse_open_redis("REDIS_URL", true).is_ok());
    }
}
