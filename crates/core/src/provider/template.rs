//! Templates, and what a parameter may hold by the place it stands in.
//!
//! Two times of checking: when a provider is read, its templates must be such that no parameter *could* choose a
//! foreign domain unless the provider says which; when an integration fills them in, each value must fit its place.

use std::{collections::BTreeMap, fmt::Write as _};

use url::{Host, Url};

use super::Param;

/// Names that every template may use without declaring them: they are the integration's own.
pub(super) const IMPLICIT: [&str; 2] = ["client_id", "redirect_uri"];

/// Names that a login's templates may use as well: what is secret in it.
pub(super) const CREDENTIALS: [&str; 4] = ["username", "password", "api_key", "client_secret"];

/// What is wrong with a template, told to whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner, or something else than a name between them.
    #[error("`{template}` has a stray brace or a placeholder that is no name of a-z, 0-9 and `_`")]
    Malformed {
        /// The template.
        template: String,
    },
    /// A placeholder that no parameter fills.
    #[error("`{template}` uses {{{name}}}, which `params` does not declare")]
    Undeclared {
        /// The template.
        template: String,
        /// The placeholder's name.
        name: String,
    },
    /// A placeholder that could make the host anything.
    #[error(
        "`{template}`: {{{name}}} decides the domain; let it be the whole host, let `.` and a domain of two labels \
         follow it, or list its values in `one_of`"
    )]
    DecidesDomain {
        /// The template.
        template: String,
        /// The placeholder's name.
        name: String,
    },
    /// No URL that a token may be sent to.
    #[error("`{template}` {problem}")]
    Url {
        /// The template.
        template: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Checks a URL template: https (http to a loopback host), no credentials, no fragment, no parameter that could
/// choose the domain unnoticed.
pub fn check_url(template: &str, params: &BTreeMap<String, Param>) -> Result<(), TemplateError> {
    let (scheme, host, rest) = split(template)
        .ok_or(TemplateError::Url { template: template.to_owned(), problem: "is no https URL with a host" })?;
    check_host(host, params).map_err(|e| e.within(template))?;
    check_text(rest, params).map_err(|e| e.within(template))?;
    let whole = host.starts_with('{') && host.find('}') == Some(host.len() - 1);
    let problem = if !host.contains('{') {
        // Placeholders in the rest are replaced by something harmless, so that the rest is looked at as well.
        parse(&format!("{scheme}{host}{}", rest.replace(['{', '}'], "x"))).err()
    } else if scheme == "http://" && !whole {
        Some(NOT_HTTPS)
    } else {
        None
    };
    problem.map_or(Ok(()), |problem| Err(TemplateError::Url { template: template.to_owned(), problem }))
}

/// Checks a template of an API host: a host template, or a whole host without TLS (`http://localhost:3000`).
pub fn check_api_host(template: &str, params: &BTreeMap<String, Param>) -> Result<(), TemplateError> {
    match template.strip_prefix("http://") {
        Some(host) if host.contains('{') => {
            Err(TemplateError::Url { template: template.to_owned(), problem: NOT_HTTPS })
        }
        Some(host) => {
            check_host(host, params).map_err(|e| e.within(template))?;
            let bad = |problem| TemplateError::Url { template: template.to_owned(), problem };
            parse(&format!("{template}/")).map(drop).map_err(bad)
        }
        None => check_host(template, params),
    }
}

/// Checks a host template (`host` or `host:port`).
pub fn check_host(template: &str, params: &BTreeMap<String, Param>) -> Result<(), TemplateError> {
    let pieces = pieces(template, params)?;
    for (at, piece) in pieces.iter().enumerate() {
        let &Piece::Hole(name) = piece else { continue };
        let free = params.get(name).is_none_or(|p| p.one_of.is_empty());
        let safe = pieces.len() == 1
            || match pieces.get(at + 1) {
                Some(Piece::Text(text)) => is_domain_suffix(pieces.last(), text),
                Some(Piece::Hole(_)) | None => false,
            };
        if free && !safe {
            return Err(TemplateError::DecidesDomain { template: template.to_owned(), name: name.to_owned() });
        }
    }
    if !template.contains('{') {
        let bad = |problem| TemplateError::Url { template: template.to_owned(), problem };
        parse_host(template).map_err(bad)?;
    }
    Ok(())
}

/// Checks any other template.
pub fn check_text(template: &str, params: &BTreeMap<String, Param>) -> Result<(), TemplateError> {
    pieces(template, params).map(|_| ())
}

/// Checks a template of a login: credentials may stand in it.
pub fn check_login_text(template: &str, params: &BTreeMap<String, Param>) -> Result<(), TemplateError> {
    pieces_with(template, params, &CREDENTIALS).map(|_| ())
}

/// Whether every brace of `text` belongs to a hole with a name.
pub fn is_template(text: &str) -> bool {
    cut(text).is_some()
}

impl TemplateError {
    /// The same of the whole template that the culprit is a part of.
    fn within(mut self, whole: &str) -> Self {
        let (Self::Malformed { template }
        | Self::Undeclared { template, .. }
        | Self::DecidesDomain { template, .. }
        | Self::Url { template, .. }) = &mut self;
        whole.clone_into(template);
        self
    }
}

/// After a free parameter must come `.`, and the host must end in two labels that nobody chooses.
fn is_domain_suffix(last: Option<&Piece<'_>>, next: &str) -> bool {
    let Some(Piece::Text(last)) = last else { return false };
    let mut labels = last.split(':').next().unwrap_or_default().rsplit('.');
    let two = labels.next().is_some_and(|l| !l.is_empty()) && labels.next().is_some_and(|l| !l.is_empty());
    next.starts_with('.') && two && last.matches('.').count() >= 2
}

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Hole(&'a str),
}

/// Cuts a template into text and holes; every hole is declared.
fn pieces<'a>(template: &'a str, params: &BTreeMap<String, Param>) -> Result<Vec<Piece<'a>>, TemplateError> {
    pieces_with(template, params, &[])
}

/// The same, with names beside those that every template may use.
fn pieces_with<'a>(
    template: &'a str,
    params: &BTreeMap<String, Param>,
    also: &[&str],
) -> Result<Vec<Piece<'a>>, TemplateError> {
    let pieces = cut(template).ok_or_else(|| TemplateError::Malformed { template: template.to_owned() })?;
    for piece in &pieces {
        if let Piece::Hole(name) = piece
            && !params.contains_key(*name)
            && !IMPLICIT.contains(name)
            && !also.contains(name)
        {
            return Err(TemplateError::Undeclared { template: template.to_owned(), name: (*name).to_owned() });
        }
    }
    Ok(pieces)
}

/// Cuts a template into text and holes; `None` if a brace has no partner or holds no name.
pub(super) fn cut(template: &str) -> Option<Vec<Piece<'_>>> {
    let is_name =
        |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let (mut pieces, mut rest) = (Vec::new(), template);
    while let Some(open) = rest.find(['{', '}']) {
        let (text, after) = rest.split_at(open);
        let (name, after) = after.strip_prefix('{')?.split_once('}')?;
        if !is_name(name) {
            return None;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        pieces.push(Piece::Hole(name));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Some(pieces)
}

/// Scheme, host with port, and the rest of a URL template.
pub(super) fn split(template: &str) -> Option<(&str, &str, &str)> {
    let scheme = ["https://", "http://"].into_iter().find(|s| template.starts_with(s))?;
    let after = &template[scheme.len()..];
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (host, rest) = after.split_at(end);
    (!host.is_empty()).then_some((scheme, host, rest))
}

const NOT_HTTPS: &str = "is not https (http is for loopback hosts only)";

/// Parses a URL that tokens may be sent to.
pub(super) fn parse(url: &str) -> Result<Url, &'static str> {
    let url = Url::parse(url).map_err(|_| "is no URL")?;
    let loopback = match url.host() {
        None => return Err("has no host"),
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Err(NOT_HTTPS),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds credentials");
    }
    if url.fragment().is_some() {
        return Err("has a fragment");
    }
    Ok(url)
}

/// Checks that `host` is a host with or without port, and nothing else.
pub(super) fn parse_host(host: &str) -> Result<(), &'static str> {
    let url = parse(&format!("https://{host}/")).map_err(|_| "is no host")?;
    let mut canonical = url.host_str().unwrap_or_default().to_owned();
    if let Some(port) = url.port() {
        let _ = write!(canonical, ":{port}");
    }
    if canonical.eq_ignore_ascii_case(host.strip_suffix(":443").unwrap_or(host)) {
        Ok(())
    } else {
        Err("is no host in its plain form")
    }
}

/// Whether `value` is one or more host labels (RFC 1123), joined by dots.
pub(super) fn is_labels(value: &str) -> bool {
    value.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// Whether `value` is a host name with or without a port.
pub(super) fn is_host(value: &str) -> bool {
    let (name, port) = value.split_once(':').map_or((value, None), |(name, port)| (name, Some(port)));
    is_labels(name) && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0)) && parse_host(value).is_ok()
}

/// Whether `value` is one path segment of unreserved characters (RFC 3986 2.3).
pub(super) fn is_segment(value: &str) -> bool {
    !matches!(value, "." | "..")
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}

/// Whether `value` can stand in a form field or a header, and will not be taken for a template.
pub(super) fn is_text(value: &str) -> bool {
    value.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && !matches!(b, b'{' | b'}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(names: &[&str]) -> BTreeMap<String, Param> {
        names.iter().map(|n| ((*n).to_owned(), Param::default())).collect()
    }

    #[test]
    fn a_free_parameter_cannot_decide_the_domain() {
        let p = params(&["a", "b"]);
        for good in [
            "https://{a}.example.com/x",
            "https://{a}.{b}.example.com/x",
            "https://eu.{a}.example.com:8443/x",
            "https://{a}/x",
            "https://example.com/{a}/{b}?x={a}",
            "https://example.com",
            "http://127.0.0.1:9/x",
            "http://localhost/x",
            "http://{a}/x",
        ] {
            assert_eq!(check_url(good, &p), Ok(()), "{good}");
        }
        for bad in [
            "https://{a}example.com/x",
            "https://{a}.com/x",
            "https://example.{a}/x",
            "https://{a}.{b}/x",
            "https://{a}{b}.example.com/x",
            "https://x.{a}.com/x",
            "https://{a}:{b}/x",
            "https://{a}.com:443/x",
        ] {
            assert!(matches!(check_url(bad, &p), Err(TemplateError::DecidesDomain { .. })), "{bad}");
        }
    }

    #[test]
    fn a_list_of_values_may_decide_the_domain() {
        let p = BTreeMap::from([("a".to_owned(), Param { one_of: vec!["com".into()], ..Param::default() })]);
        assert_eq!(check_url("https://example.{a}/x", &p), Ok(()));
    }

    #[test]
    fn only_https_urls_of_plain_hosts() {
        let p = params(&["a"]);
        for bad in [
            "http://example.com/x",
            "http://{a}.example.com/x",
            "ftp://example.com",
            "{a}",
            "https:///x",
            "https://u:p@example.com/",
            "https://example.com/#f",
            "https://exa mple.com/",
            "https://example.com/{a",
            "https://example.com/}",
            "https://example.com/{A}",
            "https://example.com/{c}",
        ] {
            assert!(check_url(bad, &p).is_err(), "{bad}");
        }
    }
}
