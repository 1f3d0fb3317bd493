//! What a token is for (RFC 8707).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::endpoint;

/// A protected resource's identifier, in one form only: `https://h` and `https://h/` are the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resource(String);

/// Why a text is no resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a resource is an absolute https URL (or http on this machine): {0}")]
pub struct InvalidResource(&'static str);

const MAX_LEN: usize = 1024;

impl Resource {
    /// Reads an absolute URL without fragment and credentials (RFC 8707 2).
    ///
    /// ```
    /// use tokenkeep_oauth::issuer::resource::Resource;
    /// let root = Resource::parse("https://MCP.example.com:443/").unwrap();
    /// assert_eq!(root.as_str(), "https://mcp.example.com");
    /// assert_ne!(Resource::parse("https://mcp.example.com/mcp").unwrap(), root);
    /// ```
    pub fn parse(text: &str) -> Result<Self, InvalidResource> {
        if text.len() > MAX_LEN {
            return Err(InvalidResource("it is too long"));
        }
        if text.contains('#') {
            return Err(InvalidResource("it has a fragment"));
        }
        let url = endpoint::parse(text).map_err(InvalidResource)?;
        let text = String::from(url);
        // Only the root has two spellings: any other path names what it names.
        let is_root = text.ends_with('/') && text.matches('/').count() == 3 && !text.contains('?');
        Ok(Self(if is_root { text[..text.len() - 1].to_owned() } else { text }))
    }

    /// The identifier: what stands in `aud`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a URL.
    pub fn url(&self) -> Url {
        Url::parse(&self.0).expect("it was made from a URL")
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Resource {
    type Err = InvalidResource;

    fn from_str(text: &str) -> Result<Self, InvalidResource> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Resource {
    type Error = InvalidResource;

    fn try_from(text: String) -> Result<Self, InvalidResource> {
        Self::parse(&text)
    }
}

impl From<Resource> for String {
    fn from(resource: Resource) -> String {
        resource.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_has_one_form() {
        let same = |a: &str, b: &str| Resource::parse(a).unwrap() == Resource::parse(b).unwrap();
        assert!(same("https://h.example", "https://H.example/"));
        assert!(same("http://localhost:3000", "http://localhost:3000/"));
        assert!(!same("https://h.example/mcp", "https://h.example/mcp/"));
        assert!(!same("https://h.example", "https://h.example:8443"));
        assert!(!same("https://h.example/?a", "https://h.example/"));
    }

    #[test]
    fn what_is_no_resource_is_refused() {
        for bad in [
            "",
            "/mcp",
            "h.example",
            "http://h.example/",
            "https://h.example/#",
            "https://h.example/#f",
            "https://u:p@h.example/",
            "urn:x:y",
            "javascript:alert(1)",
            &format!("https://h.example/{}", "x".repeat(1024)),
        ] {
            assert!(Resource::parse(bad).is_err(), "{bad}");
        }
    }
}
