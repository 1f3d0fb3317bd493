//! Which URL a call goes to. Pure; refuses whatever could be read in two ways.
//!
//! The host is always one of the integration's own, as the integration writes it: what a caller says only picks among
//! them. The path goes out byte for byte as it came in, so nothing that was encoded means something else there than
//! here; what a decoder on the way might take for a step upwards, or for a host, is refused.

use std::borrow::Cow;

use http::{
    HeaderName, HeaderValue, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// Picks one of the API hosts for a URI that has none.
pub(crate) const X_TOKENKEEP_HOST: HeaderName = HeaderName::from_static("x-tokenkeep-host");

/// One of an integration's API hosts.
#[derive(Clone, Debug)]
pub(crate) struct ApiHost {
    scheme: Scheme,
    authority: Authority,
    /// What names it: host, and the port unless it is the scheme's own.
    name: String,
    /// What tells it from others, for people too: `https://api.example.com`.
    origin: String,
}

impl ApiHost {
    /// As it stands in `api_hosts`: `host` or `host:port`, by TLS unless `http://` stands before it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.strip_prefix("http://") {
            Some(rest) => (Scheme::HTTP, rest),
            None => (Scheme::HTTPS, text),
        };
        let authority: Authority = rest.parse().ok()?;
        let name = name_of(&scheme, &authority)?;
        Some(Self { origin: format!("{scheme}://{name}"), authority: name.parse().ok()?, scheme, name })
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

/// Host and port in their one plain form; `None` where there is more than that.
fn name_of(scheme: &Scheme, authority: &Authority) -> Option<String> {
    let text = authority.as_str();
    if text.contains('@') || authority.host().is_empty() {
        return None;
    }
    let own = if *scheme == Scheme::HTTPS { ":443" } else { ":80" };
    Some(text.strip_suffix(own).unwrap_or(text).to_ascii_lowercase())
}

/// Why a call goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The integration names no host.
    NoHost,
    /// It does not name this one.
    Host,
    /// The path, and what is wrong with it.
    Path(&'static str),
}

/// Where a call for `uri` goes: which of `hosts`, and the whole URL. `picked` are the values of [`X_TOKENKEEP_HOST`].
pub(crate) fn target<'a, 'h>(
    hosts: &'h [ApiHost],
    uri: &Uri,
    picked: impl IntoIterator<Item = &'a HeaderValue>,
) -> Result<(&'h ApiHost, Uri), Refusal> {
    let first = hosts.first().ok_or(Refusal::NoHost)?;
    let mut picked = picked.into_iter();
    let host = match (uri.authority(), picked.next(), picked.next()) {
        (None, None, _) => first,
        (None, Some(picked), None) => named(hosts, picked).ok_or(Refusal::Host)?,
        (Some(authority), None, _) => addressed(hosts, uri.scheme(), authority).ok_or(Refusal::Host)?,
        _ => return Err(Refusal::Host),
    };
    let path = uri.path_and_query().ok_or(Refusal::Path("is missing"))?;
    check(path.path()).map_err(Refusal::Path)?;
    let mut parts = http::uri::Parts::default();
    (parts.scheme, parts.authority) = (Some(host.scheme.clone()), Some(host.authority.clone()));
    parts.path_and_query = Some(path.clone());
    Ok((host, Uri::from_parts(parts).map_err(|_| Refusal::Path("cannot be sent"))?))
}

/// What follows the connection in the path of a request to us, as it came: `/v1/me?x=1`, or nothing at all.
pub fn path_and_query(raw: &str, query: Option<&str>) -> Option<PathAndQuery> {
    match (raw, query) {
        ("", None) => Some(PathAndQuery::from_static("/")),
        (raw, None) => raw.parse().ok(),
        (raw, Some(query)) => format!("{}?{query}", if raw.is_empty() { "/" } else { raw }).parse().ok(),
    }
}

fn named<'h>(hosts: &'h [ApiHost], picked: &HeaderValue) -> Option<&'h ApiHost> {
    let picked = picked.to_str().ok()?;
    hosts.iter().find(|host| host.name.eq_ignore_ascii_case(picked) || host.name_with_port_is(picked))
}

fn addressed<'h>(hosts: &'h [ApiHost], scheme: Option<&Scheme>, authority: &Authority) -> Option<&'h ApiHost> {
    let scheme = scheme?;
    let name = name_of(scheme, authority)?;
    hosts.iter().find(|host| host.scheme == *scheme && host.name == name)
}

impl ApiHost {
    /// Whether `text` is the name with the scheme's own port spelt out.
    fn name_with_port_is(&self, text: &str) -> bool {
        let own = if self.scheme == Scheme::HTTPS { ":443" } else { ":80" };
        text.strip_suffix(own).is_some_and(|text| text.eq_ignore_ascii_case(&self.name))
    }
}

/// How often over something may be percent-encoded. Twice is seen in the wild; whoever decodes more often has no business.
const DECODED_AT_MOST: usize = 4;

/// Refuses a path that somebody could read as another.
fn check(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("must begin with a slash");
    }
    if path.bytes().any(|b| b == b'\\' || !b.is_ascii_graphic()) {
        return Err("holds a character that must be percent-encoded");
    }
    let mut text = Cow::Borrowed(path);
    for depth in 0..DECODED_AT_MOST {
        is_plain(&text)?;
        match decode(&text, depth == 0)? {
            None => return Ok(()),
            Some(decoded) => text = Cow::Owned(decoded),
        }
    }
    Err("is percent-encoded too many times over")
}

/// Refuses what would lead elsewhere if it was read as it stands.
fn is_plain(path: &str) -> Result<(), &'static str> {
    if path.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    if path.chars().nth(1).is_some_and(is_slash) {
        return Err("begins with two slashes, as a host does");
    }
    if path.split(is_slash).any(is_dots) {
        return Err("holds a segment `.` or `..`");
    }
    Ok(())
}

/// Whether a segment is `.` or `..`, or turns into that where parameters, a query or blanks are cut off.
fn is_dots(segment: &str) -> bool {
    let name = segment.split([';', '?', '#']).next().unwrap_or_default().trim();
    (1..=2).contains(&name.chars().count()) && name.chars().all(is_dot)
}

/// A slash, a backslash, and what Unicode's compatibility forms make one (UTS 46, NFKC).
fn is_slash(c: char) -> bool {
    matches!(c, '/' | '\\' | '\u{ff0f}' | '\u{ff3c}' | '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{fe68}')
}

/// A full stop, and what becomes one or two.
fn is_dot(c: char) -> bool {
    matches!(c, '.' | '\u{ff0e}' | '\u{2024}' | '\u{2025}' | '\u{3002}' | '\u{ff61}' | '\u{fe52}')
}

/// Percent-decodes once; `None` = there was nothing to decode. What came in must be well-formed; a `%` that decoding
/// brought to light may be just that.
fn decode(text: &str, strict: bool) -> Result<Option<String>, &'static str> {
    if !text.contains('%') {
        return Ok(None);
    }
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let (mut decoded, mut at, mut changed) = (Vec::with_capacity(bytes.len()), 0, false);
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                (at, changed) = (at + 3, true);
            }
            (b'%', ..) if strict => return Err("holds a broken percent-encoding"),
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    // Overlong forms of `.` and `/` are no UTF-8, either.
    String::from_utf8(decoded).map(Some).map_err(|_| "holds a percent-encoding that is no UTF-8")
}

#[cfg(test)]
mod tests;
