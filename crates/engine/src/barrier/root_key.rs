use std::fmt::{self, Write as _};

use aws_lc_rs::{hkdf, hmac};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use tokenkeep_core::ports::{Entropy, SealingKeyId};
use zeroize::Zeroizing;

/// How long a key is, in bytes.
pub(super) const KEY_LEN: usize = 32;

/// What names a root key in an envelope, without telling anything about it.
pub(super) type KeyTag = [u8; 8];

/// The one secret that everything else is sealed with. It cannot be printed, and is wiped when dropped.
pub struct RootKey(Zeroizing<[u8; KEY_LEN]>);

/// Why a text is no root key. Never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootKeyError {
    /// Nothing there.
    #[error("the sealing key is empty; make one with `tokenkeep secret sealing-key`")]
    Empty,
    /// Not base64.
    #[error("the sealing key is not base64; it must be 32 bytes in base64, as `tokenkeep secret sealing-key` makes it")]
    NotBase64,
    /// Too long or too short.
    #[error("the sealing key is {found} bytes long; it must be 32, as `tokenkeep secret sealing-key` makes it")]
    WrongLength {
        /// How many bytes there were.
        found: usize,
    },
}

impl RootKey {
    /// Reads 32 bytes of base64: either alphabet, padded or not, white space around it ignored.
    pub fn parse(text: &str) -> Result<Self, RootKeyError> {
        const INDIFFERENT: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let text = text.trim();
        if text.is_empty() {
            return Err(RootKeyError::Empty);
        }
        let alphabet = if text.contains(['-', '_']) { alphabet::URL_SAFE } else { alphabet::STANDARD };
        let bytes = GeneralPurpose::new(&alphabet, INDIFFERENT)
            .decode(text)
            .map(Zeroizing::new)
            .map_err(|_| RootKeyError::NotBase64)?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        if bytes.len() != KEY_LEN {
            return Err(RootKeyError::WrongLength { found: bytes.len() });
        }
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    /// Draws a fresh one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        entropy.fill(&mut *key);
        Self(key)
    }

    /// As [`RootKey::parse`] reads it: for the one time it is written to its file.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// Its public name, derived from it.
    pub fn id(&self) -> SealingKeyId {
        id_of_tag(self.tag())
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn tag(&self) -> KeyTag {
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0), b"tokenkeep key id");
        let mut tag = KeyTag::default();
        tag.copy_from_slice(&mac.as_ref()[..size_of::<KeyTag>()]);
        tag
    }

    /// HKDF-SHA256 of the root key for one purpose.
    pub(super) fn derive(&self, info: &[&[u8]]) -> Zeroizing<[u8; KEY_LEN]> {
        expand(&hkdf::Salt::new(hkdf::HKDF_SHA256, b"tokenkeep").extract(&*self.0), info)
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.id().0)
    }
}

/// HKDF-Expand to one key. The parts of `info` are joined as they are: only the last may vary in length.
pub(super) fn expand(prk: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; KEY_LEN]> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    prk.expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *key))
        .expect("HKDF-SHA256 yields up to 255 times 32 bytes");
    key
}

pub(super) fn id_of_tag(tag: KeyTag) -> SealingKeyId {
    SealingKeyId(hex(&tag))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn either_alphabet_padded_or_not() {
        let bytes: [u8; 32] = std::array::from_fn(|i| 0xfb_u8.wrapping_add(u8::try_from(i).unwrap() * 3));
        let id = RootKey::from_bytes(bytes).id();
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            let text = engine.encode(bytes);
            assert_eq!(RootKey::parse(&format!(" {text}\n")).unwrap().id(), id, "{text}");
        }
        assert_eq!(RootKey::parse(&RootKey::from_bytes(bytes).to_base64()).unwrap().id(), id);
    }

    #[test]
    fn what_is_no_key_says_why() {
        let why = |text: &str| RootKey::parse(text).unwrap_err();
        assert_eq!(why(" \n"), RootKeyError::Empty);
        assert_eq!(why("not base64!"), RootKeyError::NotBase64);
        assert_eq!(why("-+aaaa"), RootKeyError::NotBase64);
        assert_eq!(why(&STANDARD.encode([0; 16])), RootKeyError::WrongLength { found: 16 });
        assert_eq!(why(&STANDARD.encode([0; 33])), RootKeyError::WrongLength { found: 33 });
        assert!(why("AAAA").to_string().contains("3 bytes long"));
    }

    /// Computed with another HMAC implementation.
    #[test]
    fn the_id_never_changes() {
        assert_eq!(RootKey::from_bytes([7; 32]).id().0, "5904a4aa0245aaf2");
    }
}
