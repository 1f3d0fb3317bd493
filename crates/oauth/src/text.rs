//! Text that somebody else wrote, made fit to be shown.

/// The longest text kept, in characters.
pub const MAX_TEXT: usize = 200;

/// Makes provider-supplied text fit for a log line or a person: the charset of `error_description` (RFC 6749
/// appendix A.8: printable ASCII without `"` and `\`), everything else a `?`, cut after [`MAX_TEXT`] characters.
///
/// It is still the provider's text: it may say anything, and it may repeat what was sent. Show it to the person
/// who caused it; do not store it.
///
/// ```
/// assert_eq!(tokenkeep_oauth::text::sanitise("no\r\nX-Evil: 1 \"é\""), "no??X-Evil: 1 ???");
/// ```
pub fn sanitise(text: &str) -> String {
    let allowed = |c: char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
    text.chars().take(MAX_TEXT).map(|c| if allowed(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_the_allowed_characters_remain(text in any::<String>()) {
            let clean = sanitise(&text);
            prop_assert!(clean.len() <= MAX_TEXT);
            prop_assert!(clean.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'));
        }
    }
}
