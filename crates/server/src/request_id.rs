//! Names for requests, so that a caller's report and our log can be brought together.

use http::{HeaderMap, HeaderName, HeaderValue};
use tokenkeep_core::ports::{Clock, Entropy};

/// Carries the name in both directions.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The name the caller gave the request, or a fresh ULID. A caller's is taken only if it cannot disturb a log.
pub(crate) fn of(headers: &HeaderMap, clock: &dyn Clock, entropy: &dyn Entropy) -> HeaderValue {
    if let Some(given) = headers.get(&X_REQUEST_ID)
        && is_sane(given)
    {
        return given.clone();
    }
    fresh(clock, entropy)
}

/// A fresh name.
pub(crate) fn fresh(clock: &dyn Clock, entropy: &dyn Entropy) -> HeaderValue {
    let fresh = entropy.ulid(clock.now()).to_string();
    HeaderValue::from_str(&fresh).expect("a ULID is made of letters and digits")
}

/// 1 to 128 characters of `A-Z a-z 0-9 . _ : / + = -`.
pub(crate) fn is_sane(id: &HeaderValue) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._:/+=-".contains(b);
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(plain)
}

#[cfg(test)]
mod tests {
    use tokenkeep_testkit::{ManualClock, SeededEntropy};

    use super::*;

    fn named(given: Option<&'static str>) -> String {
        let headers = given.map(|id| (X_REQUEST_ID, HeaderValue::from_static(id))).into_iter().collect();
        of(&headers, &ManualClock::default(), &SeededEntropy::new(1)).to_str().unwrap().to_owned()
    }

    #[test]
    fn a_sane_name_is_kept_and_any_other_replaced() {
        assert_eq!(named(Some("4bf92f35-77b3:1/a=")), "4bf92f35-77b3:1/a=");
        let fresh = named(None);
        assert_eq!(fresh.len(), 26);
        assert_eq!(named(Some("")), fresh);
        assert_eq!(named(Some("a b")), fresh);
        assert_eq!(named(Some("a\"b")), fresh);
    }
}
