//! Where a record stands: `{path}/{kind}/{tenant}/{id}`.
//!
//! What a path cannot hold is written as `=` and two hexadecimal digits per byte. What would be longer than a file name
//! may be (Vault can keep its secrets in files, and lengthens names when it encrypts them) is cut, and ends in `~` and a
//! digest of the whole, which nothing else contains.

use std::fmt::Write as _;

use tokenkeep_core::ports::{Kind, RecordKey};

/// The longest segment that is written out.
const LONGEST: usize = 128;
/// How much of a longer one is.
const HEAD: usize = 60;

/// Where the tenants of a kind stand.
pub(super) fn of_kind(root: &str, kind: Kind) -> String {
    format!("{root}/{}", kind.as_str())
}

/// Where a record stands.
pub(super) fn of_record(root: &str, key: &RecordKey) -> String {
    format!("{root}/{}/{}/{}", key.kind.as_str(), segment(key.tenant.as_str()), segment(&key.id))
}

/// `text` as one segment of a path: the same for the same text, another for another. Without underscores: servers that
/// keep their secrets in files mark them with a leading one, and some then list such a folder under another name.
pub(super) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => segment.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(segment, "={byte:02X}");
            }
        }
    }
    if segment.len() > LONGEST {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        segment.truncate(HEAD);
        segment.push('~');
        for byte in digest.as_ref() {
            let _ = write!(segment, "{byte:02x}");
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_short_plain_and_its_texts_own() {
        let texts = ["a", "A", "a/b", "a=2Fb", "..", "é", "~", &"x".repeat(128), &"x".repeat(129), &"/".repeat(512)];
        let segments: Vec<_> = texts.iter().map(|text| segment(text)).collect();
        for (n, segment) in segments.iter().enumerate() {
            assert!(!segment.is_empty() && segment.len() <= LONGEST, "{segment}");
            assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-=~".contains(&b)), "{segment}");
            assert!(!segments[..n].contains(segment), "{segment} stands for two texts");
        }
        assert_eq!(segment("google/alice@x"), "google=2Falice=40x");
        assert_eq!(segment("_default"), "=5Fdefault");
    }
}
