//! Which URLs secrets may be sent to.

use url::{Host, Url};

/// Checks that `url` is `https`, or `http` to this very machine (development, tests), and carries no credentials and
/// no fragment (RFC 6749 3.1, 3.2).
pub fn check(url: &Url) -> Result<(), &'static str> {
    let loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err("it names no host"),
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Err("it is neither https nor http on loopback"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it carries credentials");
    }
    if url.fragment().is_some() {
        return Err("it has a fragment");
    }
    Ok(())
}

/// Parses and [`check`]s.
pub fn parse(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is no absolute URL")?;
    check(&url).map(|()| url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_this_machine() {
        for good in ["https://a.example/x?y=1", "http://127.0.0.1:9/x", "http://[::1]/", "http://localhost:80/"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example/",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "https://u:p@a.example/",
            "https://a.example/#f",
            "javascript:alert(1)",
            "ftp://localhost/",
            "/relative",
            "",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
