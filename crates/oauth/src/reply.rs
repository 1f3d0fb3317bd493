//! Reading a provider's reply: JSON or a form, wiped afterwards.

use serde_json::{Map, Value};
use zeroize::Zeroize;

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

    /// Reads any JSON.
    pub(crate) fn json(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).ok().map(Self)
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
