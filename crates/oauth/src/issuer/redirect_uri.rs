//! Where answers are sent (RFC 6749 3.1.2, RFC 8252 7, RFC 9700 4.1).

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A redirect URI that a client registered. Kept byte for byte: that is how it is compared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RedirectUri {
    text: String,
    kind: RedirectKind,
}

/// Where a redirect URI leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RedirectKind {
    /// To a web server.
    Web,
    /// To a program on the user's own machine, at whatever port it got (RFC 8252 7.3).
    Loopback,
    /// To a program that claimed the scheme (RFC 8252 7.1).
    PrivateUse,
}

/// Why a text is no redirect URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the redirect URI cannot be used: {0}")]
pub struct InvalidRedirectUri(&'static str);

const MAX_LEN: usize = 2048;

impl RedirectUri {
    /// Takes one for registration.
    pub fn register(text: &str) -> Result<Self, InvalidRedirectUri> {
        let refuse = |problem| Err(InvalidRedirectUri(problem));
        if text.len() > MAX_LEN {
            return refuse("it is too long");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse("it holds something else than printable ASCII without spaces");
        }
        // What browsers read otherwise than programs do.
        if text.contains(['\\', '"', '<', '>', '^', '`', '{', '|', '}']) {
            return refuse("it holds a character that must be percent-encoded");
        }
        if text.contains('#') {
            return refuse("it has a fragment");
        }
        let Ok(url) = Url::parse(text) else { return refuse("it is no absolute URL") };
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return refuse("it carries credentials");
        }
        let kind = match url.scheme() {
            "https" => RedirectKind::Web,
            "http" if is_loopback(&url) => RedirectKind::Loopback,
            "http" => return refuse("plain http leads to this machine only"),
            // RFC 8252 7.1: a domain name in reverse. The dot keeps `javascript:` and its like out as well.
            scheme if scheme.contains('.') => RedirectKind::PrivateUse,
            _ => return refuse("its scheme is neither https, nor http on loopback, nor a domain name in reverse"),
        };
        let kind = if kind == RedirectKind::Web && is_loopback(&url) { RedirectKind::Loopback } else { kind };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// Whether an answer may be sent to `presented`: exactly this, or, on loopback, this at another port.
    pub fn admits(&self, presented: &str) -> bool {
        if self.kind != RedirectKind::Loopback {
            return self.text == presented;
        }
        match (without_port(&self.text), without_port(presented)) {
            (Some(own), Some(other)) => own == other && Self::register(presented).is_ok(),
            _ => false,
        }
    }

    /// The one that stands for all that differ in nothing but a port that does not count: on loopback, without it.
    #[must_use]
    pub fn portless(&self) -> Self {
        match without_port(&self.text) {
            Some((before, after)) if self.kind == RedirectKind::Loopback => {
                Self { text: format!("{before}{after}"), kind: self.kind }
            }
            _ => self.clone(),
        }
    }

    /// Where it leads.
    pub fn kind(&self) -> RedirectKind {
        self.kind
    }

    /// As it was registered.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What to tell a user of where `uri`, which was admitted, leads: its host, or its scheme.
pub fn shown_host(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(url) => match url.host_str().filter(|host| !host.is_empty() && matches!(url.scheme(), "https" | "http")) {
            Some(host) => host.to_owned(),
            None => format!("{}:", url.scheme()),
        },
        Err(_) => String::new(),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The text between `//` and the next `/`, `?` or the end.
fn authority(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    &rest[..rest.find(['/', '?']).unwrap_or(rest.len())]
}

/// What stands before and after the port of an authority, the port left out.
fn without_port(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // In `[::1]:80` the port follows the bracket.
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    let host = match authority[host_end..].find(':') {
        None => authority,
        Some(colon) => {
            let (host, port) = authority.split_at(host_end + colon);
            if !port[1..].bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            host
        }
    };
    Some((&text[..scheme.len() + 3 + host.len()], tail))
}

impl fmt::Debug for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl TryFrom<String> for RedirectUri {
    type Error = InvalidRedirectUri;

    fn try_from(text: String) -> Result<Self, InvalidRedirectUri> {
        Self::register(&text)
    }
}

impl From<RedirectUri> for String {
    fn from(uri: RedirectUri) -> String {
        uri.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(registered: &str, presented: &str) -> bool {
        RedirectUri::register(registered).unwrap().admits(presented)
    }

    #[test]
    fn what_leads_nowhere_good_is_refused() {
        for bad in [
            "",
            "/cb",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "about:blank",
            "myapp:/cb",
            "http://app.example/cb",
            "http://localhost.evil.com/cb",
            "http://127.0.0.1.evil.com/cb",
            "http://localhost@evil.com/cb",
            "https://app.example/cb#f",
            "https://app.example/cb#",
            "https://u:p@app.example/cb",
            "https://@app.example/cb",
            "https://app.example/c b",
            "https://app.example\\@evil.com/",
            "https://app.example/é",
            "https:",
            &format!("https://app.example/{}", "x".repeat(2048)),
        ] {
            assert!(RedirectUri::register(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn web_addresses_match_exactly() {
        let cb = "https://app.example/cb";
        assert!(admits(cb, cb));
        for other in [
            "https://app.example/cb/",
            "https://app.example/cb?x=1",
            "https://app.example:443/cb",
            "https://APP.example/cb",
            "https://app.example/cb2",
            "https://app.example/cb/../evil",
            "https://app.example.evil.com/cb",
            "http://app.example/cb",
        ] {
            assert!(!admits(cb, other), "{other}");
        }
        assert!(admits("com.example.app:/cb", "com.example.app:/cb"));
        assert!(!admits("com.example.app:/cb", "com.example.app:/cb2"));
    }

    #[test]
    fn on_loopback_any_port_matches_and_nothing_else_does() {
        for (registered, presented) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:54321/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:54321/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb"),
            ("http://[::1]/cb?a=b", "http://[::1]:54321/cb?a=b"),
            ("http://localhost:3000", "http://localhost:3001"),
        ] {
            assert!(admits(registered, presented), "{registered} {presented}");
        }
        for (registered, presented) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:54321/other"),
            ("http://127.0.0.1/cb", "http://localhost:54321/cb"),
            ("http://127.0.0.1/cb", "https://127.0.0.1/cb"),
            ("http://localhost/cb", "http://localhost:1@evil.com/cb"),
            ("http://localhost/cb", "http://localhost:x/cb"),
            ("http://localhost/cb", "http://localhost.evil.com/cb"),
            ("http://localhost/cb", "http://localhost:99999/cb"),
            ("http://[::1]/cb", "http://[::1].evil.com/cb"),
            ("http://localhost/cb", "http://localhost:80/cb#f"),
        ] {
            assert!(!admits(registered, presented), "{registered} {presented}");
        }
    }

    #[test]
    fn a_port_that_does_not_count_can_be_left_out() {
        for (with, without) in [
            ("http://127.0.0.1:54321/cb", "http://127.0.0.1/cb"),
            ("http://localhost:3000", "http://localhost"),
            ("http://[::1]:1?a", "http://[::1]?a"),
            ("http://[::1]/cb", "http://[::1]/cb"),
            ("https://app.example:8443/cb", "https://app.example:8443/cb"),
            ("com.example.app:/cb", "com.example.app:/cb"),
        ] {
            let portless = RedirectUri::register(with).unwrap().portless();
            assert_eq!(portless, RedirectUri::register(without).unwrap());
            assert!(portless.admits(with), "{with}");
        }
    }

    #[test]
    fn people_see_where_it_leads() {
        assert_eq!(shown_host("https://app.example/cb?x"), "app.example");
        assert_eq!(shown_host("http://127.0.0.1:3/cb"), "127.0.0.1");
        assert_eq!(shown_host("com.example.app:/cb"), "com.example.app:");
    }
}
