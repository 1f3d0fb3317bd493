//! The cookies of the connect pages.
//!
//! All are `HttpOnly`, `SameSite=Lax`, for the whole host and short-lived. Over https their names begin with `__Host-`,
//! so that no sibling domain can plant one; over plain http (loopback only) browsers would refuse that.

use std::fmt::Write;

use http::{HeaderMap, HeaderValue, header};
use secrecy::ExposeSecret;
use tokenkeep_oauth::Secret;
use url::Url;

/// How long a cookie lives, in seconds: as long as a connect.
const MAX_AGE: u32 = 600;

/// The longest value that is read or set. Browsers keep 4096 bytes of name, value and attributes.
const MAX_VALUE: usize = 3500;

/// What a cookie is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cookie {
    /// Binds a connect to the browser that opened its link.
    Browser,
    /// Shows that a form came from our own page.
    Csrf,
    /// Carries a `form_post` callback over to a same-site request.
    Returned,
}

impl Cookie {
    fn name(self, secure: bool) -> &'static str {
        match (self, secure) {
            (Cookie::Browser, true) => "__Host-tokenkeep-connect",
            (Cookie::Browser, false) => "tokenkeep-connect",
            (Cookie::Csrf, true) => "__Host-tokenkeep-csrf",
            (Cookie::Csrf, false) => "tokenkeep-csrf",
            (Cookie::Returned, true) => "__Host-tokenkeep-returned",
            (Cookie::Returned, false) => "tokenkeep-returned",
        }
    }

    /// The cookie's value in a request to `public_url`. One that is there twice counts as none: somebody planted the
    /// other.
    pub(crate) fn read(self, headers: &HeaderMap, public_url: &Url) -> Option<Secret> {
        let name = self.name(is_secure(public_url));
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut found = pairs.filter(|(n, _)| *n == name).map(|(_, value)| value);
        let value = found.next().filter(|value| is_sane(value))?;
        found.next().is_none().then(|| Secret::from(value))
    }

    /// The header that sets the cookie; `None` if `value` cannot stand in one.
    pub(crate) fn set(self, value: &Secret, public_url: &Url) -> Option<HeaderValue> {
        let value = value.expose_secret();
        is_sane(value).then(|| self.header(value, MAX_AGE, public_url)).flatten()
    }

    /// The header that takes the cookie away.
    pub(crate) fn clear(self, public_url: &Url) -> Option<HeaderValue> {
        self.header("", 0, public_url)
    }

    fn header(self, value: &str, max_age: u32, public_url: &Url) -> Option<HeaderValue> {
        let secure = is_secure(public_url);
        let mut text = format!("{}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax", self.name(secure));
        if secure {
            // Writing to a string cannot fail.
            let _ = write!(text, "; Secure");
        }
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

fn is_secure(public_url: &Url) -> bool {
    public_url.scheme() == "https"
}

/// RFC 6265 4.1.1: what needs no quotes, and not too much of it.
fn is_sane(value: &str) -> bool {
    (1..=MAX_VALUE).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn a_cookie_comes_back_as_it_was_set() {
        for (public, expected) in [
            ("https://t.example", "__Host-tokenkeep-connect=abc; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"),
            ("http://localhost:7420", "tokenkeep-connect=abc; Path=/; Max-Age=600; HttpOnly; SameSite=Lax"),
        ] {
            let set = Cookie::Browser.set(&Secret::from("abc"), &url(public)).unwrap();
            assert_eq!(set.to_str().unwrap(), expected);
            assert!(set.is_sensitive());
            let pair = expected.split(';').next().unwrap();
            let headers = HeaderMap::from_iter([(header::COOKIE, format!("x=1; {pair}; y=2").parse().unwrap())]);
            assert_eq!(Cookie::Browser.read(&headers, &url(public)).unwrap().expose_secret(), "abc");
            assert!(Cookie::Csrf.read(&headers, &url(public)).is_none());
        }
    }

    #[test]
    fn a_planted_or_broken_cookie_is_none() {
        let read = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))]);
            Cookie::Browser.read(&headers, &url("https://t.example"))
        };
        assert!(read("__Host-tokenkeep-connect=a; __Host-tokenkeep-connect=b").is_none());
        assert!(read("__Host-tokenkeep-connect=").is_none());
        assert!(read("tokenkeep-connect=a").is_none());
        assert!(Cookie::Browser.set(&Secret::from("a;b"), &url("https://t.example")).is_none());
    }
}
