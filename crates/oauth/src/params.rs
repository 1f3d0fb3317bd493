//! Request parameters: set once each, then encoded as a form or as JSON, in memory that is wiped.

use std::{borrow::Cow, collections::BTreeMap};

use zeroize::Zeroizing;

use crate::BuildError;

/// The values that `{name}` in a dialect's extra parameters and headers stands for.
pub type Vars = BTreeMap<String, String>;

/// Fills every `{name}` of `template` in with what `lookup` knows. Braces around anything but `a-z A-Z 0-9 _` are left
/// alone; the values are inserted as they are.
pub(crate) fn fill_with<'t, 'v>(
    template: &'t str,
    lookup: impl Fn(&str) -> Option<&'v str>,
) -> Result<Cow<'t, str>, BuildError> {
    if !template.contains('{') {
        return Ok(Cow::Borrowed(template));
    }
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, tail) = rest.split_at(open);
        filled.push_str(before);
        let name = tail[1..].split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
        if let Some(name) = name {
            let value = lookup(name).ok_or_else(|| BuildError::MissingParam { name: name.to_owned() })?;
            filled.push_str(value);
            rest = &tail[name.len() + 2..];
        } else {
            filled.push('{');
            rest = &tail[1..];
        }
    }
    filled.push_str(rest);
    Ok(Cow::Owned(filled))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Parameters in the order they were set, each name once (RFC 6749 3.2).
pub(crate) struct Params(Vec<(Cow<'static, str>, Zeroizing<String>)>);

impl Params {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets `name`, replacing an earlier value. An empty value takes the parameter away: RFC 6749 3.2 treats it as
    /// omitted anyway.
    pub(crate) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: &str) {
        let name = name.into();
        if value.is_empty() {
            self.0.retain(|(n, _)| *n != name);
            return;
        }
        let value = Zeroizing::new(value.to_owned());
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name, value)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// A buffer with room for the worst case, so that no half-written copy is left behind by a reallocation: every
    /// byte grows at most `factor`-fold, every pair needs `overhead` more, and the whole two.
    fn room(&self, factor: usize, overhead: usize) -> Zeroizing<Vec<u8>> {
        let pairs: usize = self.iter().map(|(n, v)| factor * (n.len() + v.len()) + overhead).sum();
        Zeroizing::new(Vec::with_capacity(pairs + 2))
    }

    /// `application/x-www-form-urlencoded`.
    pub(crate) fn to_form(&self) -> Zeroizing<Vec<u8>> {
        let mut out = self.room(3, 2);
        for (name, value) in self.iter() {
            if !out.is_empty() {
                out.push(b'&');
            }
            form_encode(name, &mut out);
            out.push(b'=');
            form_encode(value, &mut out);
        }
        out
    }

    /// A JSON object of strings.
    pub(crate) fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let mut out = self.room(6, 6);
        out.push(b'{');
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json_string(name, &mut out);
            out.push(b':');
            json_string(value, &mut out);
        }
        out.push(b'}');
        out
    }
}

/// Appends `text` percent-encoded as RFC 6749 appendix B says.
pub(crate) fn form_encode(text: &str, out: &mut Vec<u8>) {
    for chunk in form_urlencoded::byte_serialize(text.as_bytes()) {
        out.extend_from_slice(chunk.as_bytes());
    }
}

fn json_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is always JSON and a Vec always takes it");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(pairs: &BTreeMap<String, String>) -> Params {
        let mut params = Params::new();
        for (name, value) in pairs {
            params.set(name.clone(), value);
        }
        params
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(pairs in prop::collection::btree_map(any::<String>(), ".+", 0..6)) {
            let params = params(&pairs);
            let form: BTreeMap<String, String> = form_urlencoded::parse(&params.to_form()).into_owned().collect();
            prop_assert_eq!(&form, &pairs);
            let json: BTreeMap<String, String> = serde_json::from_slice(&params.to_json()).unwrap();
            prop_assert_eq!(&json, &pairs);
        }

        #[test]
        fn encoding_never_reallocates(pairs in prop::collection::btree_map(any::<String>(), any::<String>(), 0..6)) {
            let params = params(&pairs);
            prop_assert_eq!(params.to_form().capacity(), params.room(3, 2).capacity());
            prop_assert_eq!(params.to_json().capacity(), params.room(6, 6).capacity());
        }

        #[test]
        fn filling_never_panics(template in any::<String>()) {
            let _ = fill_with(&template, |_| Some("{a}"));
        }
    }

    #[test]
    fn a_name_is_sent_once_and_an_empty_value_not_at_all() {
        let mut params = Params::new();
        params.set("a", "1");
        params.set("b", "2");
        params.set("a", "3");
        params.set("b", "");
        assert_eq!(params.iter().collect::<Vec<_>>(), [("a", "3")]);
    }

    #[test]
    fn braces_that_name_nothing_stay() {
        let fill = |template| fill_with(template, |name| (name == "a").then_some("1"));
        assert_eq!(fill("{}{ {a}{\"x\":{a}}").unwrap(), "{}{ 1{\"x\":1}");
        assert_eq!(fill("{b}").unwrap_err().to_string(), "the parameter `b` is missing");
    }
}
