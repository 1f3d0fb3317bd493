//! Parameters in a query or a body (RFC 6749 appendix B).

use secrecy::ExposeSecret;

use super::error::OAuthError;
use crate::Secret;

/// The parameters of a request. Each stands in it once (RFC 6749 3.1, 3.2), `resource` excepted (RFC 8707 2); an empty
/// one is absent.
#[derive(Debug, Default)]
pub struct Form(Vec<(String, Secret)>);

/// So many parameters are read: each is compared with all others, before anybody knows who asks.
const MOST: usize = 64;

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(encoded: &[u8]) -> Result<Self, OAuthError> {
        let form = Self::read(encoded)?;
        form.check_once()?;
        Ok(form)
    }

    /// The same, where what is there twice is somebody else's to judge.
    pub(super) fn read(encoded: &[u8]) -> Result<Self, OAuthError> {
        let present = form_urlencoded::parse(encoded).filter(|(_, value)| !value.is_empty());
        let pairs: Vec<(String, Secret)> =
            present.take(MOST + 1).map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
        if pairs.len() > MOST {
            return Err(OAuthError::invalid_request("there are more than 64 parameters"));
        }
        Ok(Self(pairs))
    }

    /// Whether each parameter is there as often as it may be.
    pub(super) fn check_once(&self) -> Result<(), OAuthError> {
        let all = self.0.iter().all(|(name, _)| self.is_once(name));
        if all { Ok(()) } else { Err(OAuthError::invalid_request("a parameter is there twice")) }
    }

    /// Whether `name` is there as often as it may be.
    pub(super) fn is_once(&self, name: &str) -> bool {
        name == "resource" || self.all(name).nth(1).is_none()
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

    #[test]
    fn no_more_is_read_than_anybody_needs() {
        let many = |count: usize| (0..count).fold(String::new(), |form, n| form + &format!("p{n}=x&q=&"));
        assert!(Form::parse(many(64).as_bytes()).is_ok());
        assert!(Form::parse(many(65).as_bytes()).is_err());
        assert!(Form::parse("resource=x&".repeat(65).as_bytes()).is_err());
    }
}
