//! How a server asks for credentials (RFC 9110 11.6.1): `WWW-Authenticate`.

use http::HeaderValue;
use url::Url;

use super::{error::OAuthError, scope::ScopeSet};

/// What a resource server says to whoever comes with no token, a bad one, or one that does not go far enough
/// (RFC 6750 3, RFC 9728 5.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct BearerChallenge<'a> {
    /// Where the resource is described: from there a client finds out whom to ask for a token.
    pub resource_metadata: Option<&'a Url>,
    /// Every scope that the call needs, those included that the token has.
    pub scope: Option<&'a ScopeSet>,
    /// What was wrong with the token; nothing if none was brought (RFC 6750 3.1).
    pub error: Option<&'a OAuthError>,
}

/// For clients that need a parameter, and for people whom a browser asks.
const REALM: &str = "tokenkeep";

impl BearerChallenge<'_> {
    /// The header's value.
    pub fn to_header(self) -> HeaderValue {
        let mut challenge = Challenge::new("Bearer");
        if let Some(error) = self.error {
            challenge.put("error", error.code.as_str());
            // RFC 6750 3: neither quotes nor backslashes, not even escaped.
            challenge.put("error_description", &error.description.replace(['"', '\\'], "'"));
        }
        if let Some(scope) = self.scope.filter(|scope| !scope.is_empty()) {
            challenge.put("scope", &scope.to_string());
        }
        match self.resource_metadata {
            Some(url) => challenge.put("resource_metadata", url.as_str()),
            // RFC 6750 3: at least one parameter there must be.
            None => challenge.put("realm", REALM),
        }
        challenge.finish()
    }
}

/// What goes with a client's failure to prove itself in the header (RFC 6749 5.2).
pub fn basic_challenge() -> HeaderValue {
    let mut challenge = Challenge::new("Basic");
    challenge.put("realm", REALM);
    challenge.put("charset", "UTF-8");
    challenge.finish()
}

struct Challenge(String);

impl Challenge {
    fn new(scheme: &str) -> Self {
        Self(scheme.to_owned())
    }

    /// Appends a quoted string (RFC 9110 5.6.4). What is no printable ASCII becomes a `?`: it could end the header.
    fn put(&mut self, name: &'static str, value: &str) {
        let separator = if self.0.contains('=') { ", " } else { " " };
        self.0.extend([separator, name, "=\""]);
        for c in value.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                ' '..='~' => self.0.push(c),
                _ => self.0.push('?'),
            }
        }
        self.0.push('"');
    }

    fn finish(self) -> HeaderValue {
        HeaderValue::try_from(self.0).expect("only printable ASCII was put in")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads quoted parameters as a client would; `None` if they are not well-formed.
    fn read(header: &HeaderValue, scheme: &str) -> Option<Vec<(String, String)>> {
        let mut rest = header.to_str().ok()?.strip_prefix(scheme)?.strip_prefix(' ')?;
        let mut found = Vec::new();
        loop {
            let (name, quoted) = rest.split_once("=\"")?;
            let (mut value, mut chars) = (String::new(), quoted.char_indices());
            let end = loop {
                match chars.next()? {
                    (_, '\\') => value.push(chars.next()?.1),
                    (at, '"') => break at,
                    (_, c) => value.push(c),
                }
            };
            found.push((name.to_owned(), value));
            rest = &quoted[end + 1..];
            if rest.is_empty() {
                return Some(found);
            }
            rest = rest.strip_prefix(", ")?;
        }
    }

    #[test]
    fn a_challenge_says_what_is_needed() {
        let url = Url::parse("https://h.example/.well-known/oauth-protected-resource/mcp").unwrap();
        let scope = ScopeSet::parse("write read").unwrap();
        let bare = BearerChallenge { resource_metadata: Some(&url), scope: Some(&scope), error: None };
        assert_eq!(
            bare.to_header(),
            "Bearer scope=\"read write\", \
             resource_metadata=\"https://h.example/.well-known/oauth-protected-resource/mcp\""
        );
        let error = OAuthError::insufficient_scope("the token lacks a scope");
        let refused = BearerChallenge { error: Some(&error), ..bare };
        assert_eq!(
            refused.to_header(),
            "Bearer error=\"insufficient_scope\", error_description=\"the token lacks a scope\", \
             scope=\"read write\", resource_metadata=\"https://h.example/.well-known/oauth-protected-resource/mcp\""
        );
        let empty = ScopeSet::default();
        let least = BearerChallenge { scope: Some(&empty), ..BearerChallenge::default() };
        assert_eq!(least.to_header(), "Bearer realm=\"tokenkeep\"");
        assert_eq!(basic_challenge(), "Basic realm=\"tokenkeep\", charset=\"UTF-8\"");
    }

    proptest! {
        #[test]
        fn nothing_breaks_out_of_its_quotes(description in any::<String>(), path in "[ -~]{0,40}") {
            let error = OAuthError::invalid_token(description.clone());
            let mut url = Url::parse("https://h.example").unwrap();
            url.set_query(Some(&path));
            let challenge = BearerChallenge { resource_metadata: Some(&url), scope: None, error: Some(&error) };
            let read = read(&challenge.to_header(), "Bearer").unwrap();
            prop_assert_eq!(read.len(), 3);
            prop_assert_eq!(&read[1].0, "error_description");
            prop_assert_eq!(read[1].1.chars().count(), description.chars().count());
            prop_assert!(read[1].1.bytes().all(|b| (0x20..0x7f).contains(&b) && !matches!(b, b'"' | b'\\')));
            prop_assert_eq!(&read[2].1, url.as_str());
        }

        #[test]
        fn what_is_quoted_is_read_back(value in "[ -~]{0,60}") {
            let mut challenge = Challenge::new("Bearer");
            challenge.put("x", &value);
            prop_assert_eq!(read(&challenge.finish(), "Bearer"), Some(vec![("x".to_owned(), value)]));
        }
    }
}
