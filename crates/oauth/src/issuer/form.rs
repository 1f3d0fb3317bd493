//! Parameters in a query or a body (RFC 6749 appendix B).

use secrecy::ExposeSecret;

use super::error::OAuthError;
use crate::Secret;

/// The parameters of a request. Each stands in it once (RFC 6749 3.1, 3.2), `resource` excepted (RFC 8707 2); an empty
/// one is absent.
#[derive(Debug, Default)]
pub struct Form(Vec<(String, Secret)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(encoded: &[u8]) -> Result<Self, OAuthError> {
        let mut pairs: Vec<(String, Secret)> = Vec::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            if value.is_empty() {
                continue;
            }
            if name != "resource" && pairs.iter().any(|(other, _)| *other == name) {
                return Err(OAuthError::invalid_request("a parameter is there twice"));
            }
            pairs.push((name.into_owned(), value.into_owned().into()));
        }
        Ok(Self(pairs))
    }

    /// The value of `name`, which is no secret.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.secret(name).map(ExposeSecret::expose_secret)
    }

    /// The value of `name`.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.expose_secret())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_is_once_too_often() {
        assert!(Form::parse(b"a=1&a=1").is_err());
        assert!(Form::parse(b"a=1&a=").is_ok());
        let form = Form::parse(b"resource=x&resource=y&b=%C3%A9+1&c=").unwrap();
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((form.get("b"), form.get("c")), (Some("é 1"), None));
        assert!(!format!("{form:?}").contains("é"));
    }
}
