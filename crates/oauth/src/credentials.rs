//! What somebody has at a provider that knows no OAuth.

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::Secret;

/// What somebody has at a provider that knows no OAuth.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// Whose.
        username: String,
        /// Theirs.
        password: Secret,
    },
    /// A key that the provider made.
    ApiKey(Secret),
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// [`Credentials::Password`].
    Password,
    /// [`Credentials::ApiKey`].
    ApiKey,
}

/// What is wrong with credentials that cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// A part is missing, or longer than anybody's.
    #[error("`{part}` must have 1 to {MAX_CREDENTIAL} bytes")]
    Length {
        /// `username`, `password` or `api_key`.
        part: &'static str,
    },
    /// A part holds what cannot be sent.
    #[error("`{part}` holds characters that cannot be sent")]
    Characters {
        /// Which.
        part: &'static str,
    },
}

/// The longest username, password or key, in bytes.
pub const MAX_CREDENTIAL: usize = 8192;

impl Credentials {
    /// Which of the two they are.
    pub fn kind(&self) -> CredentialKind {
        match self {
            Credentials::Password { .. } => CredentialKind::Password,
            Credentials::ApiKey(_) => CredentialKind::ApiKey,
        }
    }

    /// Whether they can be sent at all: no control characters; a key is printable ASCII, since it may become a header.
    pub fn check(&self) -> Result<(), InvalidCredentials> {
        let length = |part, text: &str| match text.len() {
            1..=MAX_CREDENTIAL => Ok(()),
            _ => Err(InvalidCredentials::Length { part }),
        };
        let characters = |part, fine: bool| if fine { Ok(()) } else { Err(InvalidCredentials::Characters { part }) };
        match self {
            Credentials::Password { username, password } => {
                let password = password.expose_secret();
                length("username", username)?;
                length("password", password)?;
                characters("username", !username.chars().any(char::is_control))?;
                characters("password", !password.chars().any(char::is_control))
            }
            Credentials::ApiKey(key) => {
                let key = key.expose_secret();
                length("api_key", key)?;
                characters("api_key", key.bytes().all(|b| b.is_ascii_graphic()))
            }
        }
    }

    /// What an API takes in place of a token, and its type: the key, or both halves as RFC 7617 joins them. `None` where
    /// that cannot be: a username with a colon in it.
    pub fn as_token(&self) -> Option<(Secret, &'static str)> {
        match self {
            Credentials::ApiKey(key) => Some((key.clone(), "Bearer")),
            Credentials::Password { username, .. } if username.contains(':') => None,
            Credentials::Password { username, password } => {
                let pair = Zeroizing::new(format!("{username}:{}", password.expose_secret()));
                Some((Secret::from(BASE64_STANDARD.encode(pair.as_bytes())), "Basic"))
            }
        }
    }

    /// Everything that tells them apart from others, in one text: for a keyed hash.
    pub fn fingerprinted(&self) -> Secret {
        match self {
            Credentials::Password { username, password } => {
                Secret::from(format!("password/{}/{username}/{}", username.len(), password.expose_secret()))
            }
            Credentials::ApiKey(key) => Secret::from(format!("api_key/{}", key.expose_secret())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_cannot_be_sent_are_named() {
        let password = |username: &str, password: &str| {
            Credentials::Password { username: username.into(), password: Secret::from(password) }.check()
        };
        assert_eq!(password("a", "b"), Ok(()));
        assert_eq!(password("J\u{f6}rg", "p\u{e4}ss w\u{f6}rd"), Ok(()));
        assert_eq!(password("", "b"), Err(InvalidCredentials::Length { part: "username" }));
        assert_eq!(password("a", ""), Err(InvalidCredentials::Length { part: "password" }));
        assert_eq!(password("a\n", "b"), Err(InvalidCredentials::Characters { part: "username" }));
        assert_eq!(password("a", "b\r"), Err(InvalidCredentials::Characters { part: "password" }));
        let key = |key: &str| Credentials::ApiKey(Secret::from(key)).check();
        assert_eq!(key("sk-1"), Ok(()));
        assert_eq!(key("sk 1"), Err(InvalidCredentials::Characters { part: "api_key" }));
        assert!(key(&"x".repeat(MAX_CREDENTIAL + 1)).is_err());
    }

    #[test]
    fn no_two_credentials_hash_alike() {
        let fingerprinted = |username: &str, password: &str| {
            let credentials = Credentials::Password { username: username.into(), password: Secret::from(password) };
            credentials.fingerprinted().expose_secret().to_owned()
        };
        assert_ne!(fingerprinted("a/b", "c"), fingerprinted("a", "b/c"));
        assert_ne!(fingerprinted("a", "c"), fingerprinted("a", "d"));
    }
}
