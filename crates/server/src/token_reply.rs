//! The one reply that both lanes give: a token, ready to be sent.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use tokenkeep_engine::Ready;

use crate::{extract, problem::Problem};

/// How long a token must still live when the reader does not say.
pub(crate) const DEFAULT_MIN_TTL: Duration = Duration::from_mins(1);

/// The longest `min_ttl`, in seconds.
pub(crate) const MAX_MIN_TTL: u64 = 86_400;

pub(crate) const NOSNIFF: (http::HeaderName, HeaderValue) =
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Puts the headers of the reply into `headers`. A 304 has no content, and so no type.
pub(crate) fn put_headers(headers: &mut HeaderMap, ready: &Ready, not_modified: bool) {
    if !not_modified {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::ETAG, ready.etag.clone());
}

/// Whether the reader has this generation already (RFC 9110 13.1.2: a weak comparison with each of a list).
pub(crate) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value == "*"
            || value.as_bytes().split(|b| *b == b',').any(|one| {
                let one = one.trim_ascii();
                one.strip_prefix(b"W/").unwrap_or(one) == etag.as_bytes()
            })
    })
}

/// The `min_ttl` of a query. Other parameters are not ours: proxies and clients add some to defeat caches.
pub(crate) fn min_ttl(params: &extract::Params) -> Result<Duration, Problem> {
    let expected = "a number of seconds from 0 to 86400";
    match params.parse::<u64>("min_ttl", expected)? {
        None => Ok(DEFAULT_MIN_TTL),
        Some(seconds) if seconds <= MAX_MIN_TTL => Ok(Duration::from_secs(seconds)),
        Some(_) => Err(extract::not("min_ttl", expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_generation_is_recognised_in_any_spelling() {
        let etag = HeaderValue::from_static("\"7\"");
        let known = |value: &'static str| {
            is_known(&HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]), &etag)
        };
        for value in ["\"7\"", "W/\"7\"", "\"6\" ,  \"7\"", "*"] {
            assert!(known(value), "{value}");
        }
        for value in ["\"70\"", "7", "\"6\"", ""] {
            assert!(!known(value), "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), &etag));
    }
}
