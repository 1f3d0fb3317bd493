use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize, de};
use tokenkeep_core::{Rotation, provider::Successor};

/// How a [`FakeProvider`](crate::FakeProvider) behaves while nothing goes wrong. As JSON every member is optional,
/// durations are seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a quirk of its own")]
pub struct Config {
    /// What happens to a spent refresh token. In JSON: `none`, `overlap`, `predecessor`, `grace_same:30`,
    /// `grace_new:30` (seconds), `strict`.
    #[serde(with = "rotation")]
    pub rotation: Rotation,
    /// The one client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// How it must prove itself at the token endpoint.
    pub client_auth: RequiredAuth,
    /// The client's public key (PEM; RSA, P-256 or Ed25519), for `private_key_jwt` and the JWT bearer grant.
    pub assertion_key_pem: Option<String>,
    /// Where the browser may be sent back to; empty = anywhere.
    pub redirect_uris: Vec<String>,
    /// Whether a request without an S256 challenge is refused (RFC 7636).
    pub require_pkce: bool,
    /// Whether the callback carries `iss` (RFC 9207).
    pub iss_parameter: bool,
    /// Who is signed in, as a `sub`. Approves everything at once.
    pub user: String,
    /// The signed-in user says no to everything instead.
    pub user_denies: bool,
    /// The organisations that the user belongs to, at `/user/orgs`.
    pub organizations: Vec<String>,
    /// How many of them are on one page.
    pub organizations_per_page: usize,
    /// Whether `/userinfo` says that nobody has checked the user's address.
    pub email_unverified: bool,
    /// Whether everything that describes the user answers 503.
    pub userinfo_down: bool,
    /// How long access tokens live.
    #[serde(with = "seconds")]
    pub token_life: Duration,
    /// Whether replies do not say so.
    pub omit_expires_in: bool,
    /// Whether the code and device grants bring no refresh token.
    pub omit_refresh_token: bool,
    /// Under [`Rotation::None`]: whether a refresh repeats the refresh token instead of leaving it out.
    pub repeat_refresh_token: bool,
    /// Passwords by username, for `/login`.
    pub accounts: BTreeMap<String, String>,
    /// Further members of every successful token reply.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rotation: Rotation::Strict,
            client_id: "fake-client".into(),
            client_secret: "fake-client-secret".into(),
            client_auth: RequiredAuth::Any,
            assertion_key_pem: None,
            redirect_uris: Vec::new(),
            require_pkce: true,
            iss_parameter: true,
            user: "fake-user".into(),
            user_denies: false,
            organizations: Vec::new(),
            organizations_per_page: 100,
            email_unverified: false,
            userinfo_down: false,
            token_life: Duration::from_hours(1),
            omit_expires_in: false,
            omit_refresh_token: false,
            repeat_refresh_token: false,
            accounts: BTreeMap::new(),
            extra: serde_json::Map::new(),
        }
    }
}

impl Config {
    /// The default with another rotation policy.
    pub fn rotating(rotation: Rotation) -> Self {
        Self { rotation, ..Self::default() }
    }
}

/// How a client must prove itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequiredAuth {
    /// By Basic, in the body or by assertion.
    #[default]
    Any,
    /// By HTTP Basic.
    Basic,
    /// By `client_secret` in the body.
    Post,
    /// By a signed assertion (RFC 7523 2.2).
    PrivateKeyJwt,
    /// Not at all: a public client, which must not send a secret.
    None,
}

mod seconds {
    use super::{Deserialize, Duration, de};

    pub(super) fn serialize<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(de::Error::custom)
    }
}

mod rotation {
    use super::{Deserialize, Policy, Rotation, de};

    pub(super) fn serialize<S: serde::Serializer>(rotation: &Rotation, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Policy(*rotation))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Rotation, D::Error> {
        String::deserialize(from)?.parse().map(|Policy(rotation)| rotation).map_err(de::Error::custom)
    }
}

/// A rotation policy as one word, for JSON.
struct Policy(Rotation);

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rotation::None => f.write_str("none"),
            Rotation::Overlap => f.write_str("overlap"),
            Rotation::Predecessor => f.write_str("predecessor"),
            Rotation::Grace { window, successor: Successor::Same } => write!(f, "grace_same:{}", window.as_secs_f64()),
            Rotation::Grace { window, successor: Successor::New } => write!(f, "grace_new:{}", window.as_secs_f64()),
            Rotation::Strict => f.write_str("strict"),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let grace = |seconds: &str, successor| {
            let seconds = seconds.parse().map_err(|_| format!("`{word}` names no seconds"))?;
            let window = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
            Ok(Self(Rotation::Grace { window, successor }))
        };
        match word.split_once(':') {
            None if word == "none" => Ok(Self(Rotation::None)),
            None if word == "overlap" => Ok(Self(Rotation::Overlap)),
            None if word == "predecessor" => Ok(Self(Rotation::Predecessor)),
            None if word == "strict" => Ok(Self(Rotation::Strict)),
            Some(("grace_same", seconds)) => grace(seconds, Successor::Same),
            Some(("grace_new", seconds)) => grace(seconds, Successor::New),
            _ => Err(format!("`{word}` is no rotation policy")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_json() {
        for rotation in [
            Rotation::None,
            Rotation::Predecessor,
            Rotation::Grace { window: Duration::from_secs(30), successor: Successor::New },
        ] {
            let config = Config { token_life: Duration::from_millis(1500), ..Config::rotating(rotation) };
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config, "{json}");
        }
        assert!(serde_json::from_str::<Config>(r#"{"rotation": "grace_same"}"#).is_err());
        assert!(serde_json::from_str::<Config>(r#"{"rotations": "none"}"#).is_err());
    }
}
