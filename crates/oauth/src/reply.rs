//! Reading a provider's reply: JSON or a form, wiped afterwards; and how long it asks us to wait.

use std::time::Duration;

use http::{HeaderMap, header::RETRY_AFTER};
use jiff::Timestamp;
use serde_json::{Map, Value};
use zeroize::Zeroize;

/// The longest `Retry-After` believed.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// A reply's members. Its strings may be secrets: they are wiped when it is dropped, and it cannot be printed.
pub(crate) struct Document(Value);

impl Document {
    /// Reads a JSON object, or a form that holds a name we know (GitHub's default). Content types lie,
    /// so the first byte decides.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if body.first() == Some(&b'{') {
            return serde_json::from_slice(body).ok().map(Self);
        }
        if body.iter().any(|b| b.is_ascii_whitespace() || b"<>{}\"".contains(b)) {
            return None;
        }
        let members: Map<String, Value> =
            form_urlencoded::parse(body).map(|(k, v)| (k.into_owned(), Value::String(v.into_owned()))).collect();
        let document = Self(Value::Object(members));
        let known = ["access_token", "error", "device_code"].iter().any(|name| document.0.get(name).is_some());
        known.then_some(document)
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(s) => s.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A non-empty string member.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str().filter(|s| !s.is_empty())
}

/// A number, or a string that is one; whole seconds, clamped to `i64`.
pub(crate) fn number(value: &Value) -> Option<i64> {
    let float = |f: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "`as` clamps, which is what is wanted")]
        f.is_finite().then_some(f as i64)
    };
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(float)),
        Value::String(s) => {
            let s = s.trim();
            s.parse().ok().or_else(|| s.parse().ok().and_then(float))
        }
        _ => None,
    }
}

/// Reads `Retry-After` (RFC 9110 10.2.3): seconds, or an HTTP date taken relative to `now`. A date that has passed
/// is no wait at all; nothing above [`MAX_RETRY_AFTER`] is believed.
pub fn parse_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}
