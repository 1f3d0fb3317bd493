//! JSON for the barrier: the only place where secrets meet serde.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

use super::DecodeError;

/// The form that is written. Unknown fields are refused, so that an older instance does not drop on rewriting what a
/// newer one added; whoever adds one gives it a default, and whoever changes one counts this up.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    v: u32,
    value: T,
}

pub(super) fn encode<T: Serialize>(value: &T) -> Zeroizing<Vec<u8>> {
    let mut buffer = WipingBuffer(Zeroizing::new(Vec::with_capacity(4096)));
    serde_json::to_writer(&mut buffer, &Versioned { v: FORM, value })
        .expect("stored values have string keys, and a buffer takes every byte");
    buffer.0
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    #[derive(Deserialize)]
    struct Form {
        v: u32,
    }
    match serde_json::from_slice::<Versioned<T>>(bytes) {
        Ok(Versioned { v: FORM, value }) => Ok(value),
        Ok(_) => Err(malformed(0)),
        Err(error) => match serde_json::from_slice::<Form>(bytes) {
            Ok(Form { v }) if v > FORM => Err(DecodeError::FutureForm { found: v, known: FORM }),
            // The error's own text may quote a value.
            _ => Err(malformed(error.column())),
        },
    }
}

pub(super) fn malformed(at: usize) -> DecodeError {
    DecodeError::Malformed { at }
}

/// A secret on its way through serde. Borrowed from the opened bytes where it can be, so that no copy is left behind.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Exposed<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> From<&'a str> for Exposed<'a> {
    fn from(secret: &'a str) -> Self {
        Self(Cow::Borrowed(secret))
    }
}

impl Exposed<'_> {
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a Secret> for Exposed<'a> {
    fn from(secret: &'a Secret) -> Self {
        Self(Cow::Borrowed(secret.expose_secret()))
    }
}

impl From<Exposed<'_>> for Secret {
    fn from(exposed: Exposed<'_>) -> Self {
        match exposed.0 {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

/// A buffer that wipes what it outgrows.
struct WipingBuffer(Zeroizing<Vec<u8>>);

impl Write for WipingBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Zeroizing::new(Vec::with_capacity((self.0.len() + bytes.len()) * 2));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_grow_the_buffer() {
        let long = "x".repeat(100_000);
        let bytes = encode(&long);
        assert_eq!(decode::<String>(&bytes).as_deref(), Ok(long.as_str()));
    }

    #[test]
    fn a_later_form_is_told_apart_from_damage_and_nothing_is_quoted() {
        let later = br#"{"v":2,"value":{"new":1}}"#;
        assert_eq!(decode::<String>(later), Err(DecodeError::FutureForm { found: 2, known: 1 }));
        let error = decode::<u32>(br#"{"v":1,"value":"CANARY"}"#).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }) && !error.to_string().contains("CANARY"));
    }
}
