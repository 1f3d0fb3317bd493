//! Scopes as a set (RFC 6749 3.3).

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const MAX_SCOPES: usize = 64;
const MAX_LEN: usize = 128;

/// A set of scopes. Its text form is the words in order, separated by spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScopeSet(BTreeSet<String>);

/// Why a text is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is up to 64 words of printable ASCII without quotes and backslashes, 128 characters each")]
pub struct InvalidScope;

impl ScopeSet {
    /// Reads words that are separated by spaces; none at all is the empty set.
    ///
    /// ```
    /// use tokenkeep_oauth::issuer::scope::ScopeSet;
    /// let asked = ScopeSet::parse("write read read").unwrap();
    /// assert_eq!(asked.to_string(), "read write");
    /// assert!(asked.is_subset(&ScopeSet::parse("admin read write").unwrap()));
    /// ```
    pub fn parse(text: &str) -> Result<Self, InvalidScope> {
        let words: BTreeSet<String> = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let is_word = |word: &String| {
            word.len() <= MAX_LEN && word.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
        };
        if words.len() <= MAX_SCOPES && words.iter().all(is_word) { Ok(Self(words)) } else { Err(InvalidScope) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every one of these is one of those.
    pub fn is_subset(&self, of: &Self) -> bool {
        self.0.is_subset(&of.0)
    }

    /// Whether this one is among them.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// Those that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// Those that are in either.
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// One after the other, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

impl FromStr for ScopeSet {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ScopeSet {
    type Error = InvalidScope;

    fn try_from(text: String) -> Result<Self, InvalidScope> {
        Self::parse(&text)
    }
}

impl From<ScopeSet> for String {
    fn from(scope: ScopeSet) -> String {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_scope_is_refused() {
        for bad in ["a\"b", "a\\b", "é", "a\tb", "a\nb", &"x".repeat(129)] {
            assert_eq!(ScopeSet::parse(bad), Err(InvalidScope), "{bad}");
        }
        let many: Vec<_> = (0..65).map(|n| n.to_string()).collect();
        assert_eq!(ScopeSet::parse(&many.join(" ")), Err(InvalidScope));
        assert!(ScopeSet::parse("").unwrap().is_empty());
        assert!(ScopeSet::parse("https://www.googleapis.com/auth/drive files:read !#[]~").is_ok());
    }
}
