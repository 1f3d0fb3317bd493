//! Providers without OAuth: a username and a password, or an API key, are exchanged for a token, or are the token.
//!
//! How a provider wants to be logged in to is data, a [`LoginDialect`]: which request, and where in the reply the token
//! and its life stand (JSON pointers, RFC 6901).
//!
//! ```
//! use http::{HeaderMap, StatusCode};
//! use tokenkeep_oauth::{Client, Credentials, Secret, login::*};
//!
//! let dialect = LoginDialect {
//!     body: LoginBody::Json,
//!     token: "/Authorization".into(),
//!     token_prefix: "Bearer ".into(),
//!     ..LoginDialect::default()
//! };
//! let url = "https://api.example.com/login".parse().unwrap();
//! let credentials = Credentials::Password { username: "alice".into(), password: Secret::from("s3cret") };
//! let request = build_login_request(&dialect, &url, &Client::public(""), &credentials).unwrap();
//! assert_eq!(request.body.as_slice(), br#"{"password":"s3cret","username":"alice"}"#);
//!
//! let now = "2026-01-01T00:00:00Z".parse().unwrap();
//! let body = br#"{"Authorization": "Bearer a1"}"#;
//! let life = Life { ttl: None, default: Some(std::time::Duration::from_secs(3600)) };
//! let reply = parse_login_response(&dialect, StatusCode::OK, &HeaderMap::new(), body, now, life).unwrap();
//! assert_eq!(reply.expires_at, Some("2026-01-01T01:00:00Z".parse().unwrap()));
//! ```

use std::{collections::BTreeMap, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    BuildError, Client, CredentialKind, Credentials, Secret,
    params::{Params, fill_with},
    quiet::parse_retry_after,
    reply::{Document, number},
    token::{NoOutcome, TokenRequest, is_token, within_reason},
};

/// How a provider wants to be logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginDialect {
    /// Mostly POST.
    pub method: LoginMethod,
    /// How `params` are encoded.
    pub body: LoginBody,
    /// The members of the body. `{username}` and `{password}`, or `{api_key}`, are filled in, and `{client_id}` and
    /// `{client_secret}`; what comes out empty is not sent.
    pub params: BTreeMap<String, String>,
    /// Headers, templates like `params`.
    pub headers: BTreeMap<String, String>,
    /// Whether username and password go as HTTP Basic (RFC 7617).
    pub basic: bool,
    /// Where in the reply the token stands: a JSON pointer.
    pub token: String,
    /// Taken off the token if it stands before it.
    pub token_prefix: String,
    /// Where the reply says how many seconds the token lives: a JSON pointer.
    pub expires_in: Option<String>,
    /// Where it says when the token dies: a JSON pointer to an RFC 3339 time or to seconds since 1970.
    pub expires_at: Option<String>,
    /// The statuses by which it says that the credentials are wrong.
    pub refused: Vec<u16>,
}

impl Default for LoginDialect {
    fn default() -> Self {
        let params = [("username", "{username}"), ("password", "{password}")];
        Self {
            method: LoginMethod::default(),
            body: LoginBody::default(),
            params: params.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            headers: BTreeMap::new(),
            basic: false,
            token: "/access_token".to_owned(),
            token_prefix: String::new(),
            expires_in: None,
            expires_at: None,
            refused: vec![400, 401, 403],
        }
    }
}

impl LoginDialect {
    /// What has to be known to log in: a key where a template names one, else username and password.
    pub fn takes(&self) -> CredentialKind {
        let named = self.params.values().chain(self.headers.values()).any(|template| template.contains("{api_key}"));
        if named { CredentialKind::ApiKey } else { CredentialKind::Password }
    }

    /// Whether a login sends what is secret in them: without it, anybody could log in.
    pub fn sends_the_secret(&self) -> bool {
        let named = |hole: &str| self.params.values().chain(self.headers.values()).any(|t| t.contains(hole));
        match self.takes() {
            CredentialKind::ApiKey => true,
            CredentialKind::Password => self.basic || named("{password}"),
        }
    }
}

/// The method of a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LoginMethod {
    /// `POST`.
    #[default]
    Post,
    /// `PUT`.
    Put,
    /// `GET`, without a body.
    Get,
}

/// How the members of a login's body are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginBody {
    /// `application/x-www-form-urlencoded`.
    #[default]
    Form,
    /// A JSON object of strings.
    Json,
    /// There is none: the credentials go in headers.
    None,
}

/// Builds the login of `credentials` at `url`. `client_id` is the integration's own, where a template names it.
pub fn build_login_request(
    dialect: &LoginDialect,
    url: &Url,
    client: &Client,
    credentials: &Credentials,
) -> Result<TokenRequest, BuildError> {
    let fill = |template: &str| {
        let filled = fill_with(template, |name| match (name, credentials) {
            ("username", Credentials::Password { username, .. }) => Some(username.as_str()),
            ("password", Credentials::Password { password, .. }) => Some(password.expose_secret()),
            ("api_key", Credentials::ApiKey(key)) => Some(key.expose_secret()),
            ("client_id", _) => Some(client.id.as_str()),
            ("client_secret", _) => client.secret.as_ref().map(ExposeSecret::expose_secret),
            _ => None,
        })?;
        Ok(Zeroizing::new(filled.into_owned()))
    };
    let mut params = Params::new();
    for (name, template) in &dialect.params {
        params.set(name.clone(), &fill(template)?);
    }
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut secret = |name: HeaderName, value: &str| {
        let invalid = |_| BuildError::InvalidHeader { name: name.to_string() };
        let mut value = HeaderValue::from_str(value).map_err(invalid)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    };
    for (name, template) in &dialect.headers {
        let key = HeaderName::from_bytes(name.as_bytes());
        let key = key.map_err(|_| BuildError::InvalidHeader { name: name.clone() })?;
        let value = fill(template)?;
        if !value.is_empty() {
            secret(key, &value)?;
        }
    }
    if dialect.basic {
        let (pair, _) = credentials
            .as_token()
            .filter(|(_, token_type)| *token_type == "Basic")
            .ok_or_else(|| BuildError::MissingParam { name: "username".to_owned() })?;
        secret(AUTHORIZATION, &Zeroizing::new(format!("Basic {}", pair.expose_secret())))?;
    }
    let (content_type, body) = match dialect.body {
        LoginBody::Form => (Some("application/x-www-form-urlencoded"), params.to_form()),
        LoginBody::Json => (Some("application/json"), params.to_json()),
        LoginBody::None => (None, Zeroizing::default()),
    };
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    let method = match dialect.method {
        LoginMethod::Post => Method::POST,
        LoginMethod::Put => Method::PUT,
        LoginMethod::Get => Method::GET,
    };
    Ok(TokenRequest { method, url: url.clone(), headers, body })
}

/// What a login brought.
#[derive(Clone, Debug)]
pub struct LoginReply {
    /// The token.
    pub access_token: Secret,
    /// `Bearer`, or the word that stood before it.
    pub token_type: String,
    /// When it dies, by our clock; `None` = never, or nobody knows.
    pub expires_at: Option<Timestamp>,
}

/// How long a token lives, as far as others than the reply say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// What whoever stored the credentials says: it holds where the reply says nothing, or more.
    pub ttl: Option<Duration>,
    /// What is known of the provider: it holds where nobody says anything.
    pub default: Option<Duration>,
}

/// What a login that brought no token means. It never holds text of the reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginFailure {
    /// Definitive: the credentials are wrong. Trying them again may lock the account.
    #[error("the provider refused the credentials (status {status})")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
    },
    /// Too many requests (429).
    #[error("the provider asks for fewer requests")]
    Throttled {
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The provider answered, and neither took nor refused the credentials: the template may be wrong.
    #[error("the provider's answer to the login was unexpected (status {status})")]
    Rejected {
        /// The HTTP status.
        status: StatusCode,
    },
    /// An outage: nothing is known of the credentials.
    #[error("the provider gave no outcome (status {status}: {why})")]
    NoOutcome {
        /// The HTTP status.
        status: StatusCode,
        /// Why the reply settles nothing.
        why: NoOutcome,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
}

/// Reads the reply to a login, received at `now`.
///
/// | reply | is |
/// |---|---|
/// | 429 | [`LoginFailure::Throttled`] |
/// | a status in [`LoginDialect::refused`] | [`LoginFailure::Refused`] |
/// | 2xx with a token where it should stand | success |
/// | 2xx with JSON and no token; any other 4xx | [`LoginFailure::Rejected`] |
/// | 1xx, 3xx, 5xx, 408, 425, 499; 2xx that is no JSON | [`LoginFailure::NoOutcome`] |
pub fn parse_login_response(
    dialect: &LoginDialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    life: Life,
) -> Result<LoginReply, LoginFailure> {
    let retry_after = parse_retry_after(headers, now);
    let no_outcome = |why| Err(LoginFailure::NoOutcome { status, why, retry_after });
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(LoginFailure::Throttled { retry_after });
    }
    if dialect.refused.contains(&status.as_u16()) {
        return Err(LoginFailure::Refused { status });
    }
    match status.as_u16() {
        200..=299 => {}
        500.. => return no_outcome(NoOutcome::ServerError),
        408 | 425 | 499 => return no_outcome(NoOutcome::UnexpectedStatus),
        400..=499 => return Err(LoginFailure::Rejected { status }),
        _ => return no_outcome(NoOutcome::UnexpectedStatus),
    }
    let Some(document) = Document::json(body) else { return no_outcome(NoOutcome::Unreadable) };
    let top = document.value();
    let token = top.pointer(&dialect.token).and_then(Value::as_str).map(str::trim);
    let token = token.map(|t| t.strip_prefix(dialect.token_prefix.as_str()).unwrap_or(t).trim());
    let Some(token) = token.filter(|t| !t.is_empty() && is_token(t)) else {
        return Err(LoginFailure::Rejected { status });
    };
    Ok(LoginReply {
        access_token: Secret::from(token),
        token_type: token_type(&dialect.token_prefix),
        expires_at: expires_at(dialect, top, now, life),
    })
}

fn token_type(prefix: &str) -> String {
    let word = prefix.trim();
    let is_word = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if is_word { word.to_owned() } else { "Bearer".to_owned() }
}

/// An expiry that is not in the future says nothing useful, as with tokens of OAuth.
fn expires_at(dialect: &LoginDialect, top: &Value, now: Timestamp, life: Life) -> Option<Timestamp> {
    let at = |pointer: &Option<String>| top.pointer(pointer.as_deref()?);
    let dies = at(&dialect.expires_at).and_then(|value| match value {
        Value::String(text) if number(value).is_none() => text.parse::<Timestamp>().ok(),
        _ => Timestamp::from_second(number(value)?).ok(),
    });
    let stated = dies.or_else(|| {
        let seconds = u64::try_from(number(at(&dialect.expires_in)?)?).ok()?;
        Some(within_reason(now, Duration::from_secs(seconds)))
    });
    let stated = stated.filter(|at| *at > now);
    let at_most = life.ttl.map(|life| within_reason(now, life));
    match (stated, at_most) {
        (Some(stated), Some(at_most)) => Some(stated.min(at_most)),
        (stated, at_most) => stated.or(at_most).or_else(|| life.default.map(|life| within_reason(now, life))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn after(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn alice() -> Credentials {
        Credentials::Password { username: "al&ice".into(), password: Secret::from("p\"=s") }
    }

    fn url() -> Url {
        "https://api.example.com/login".parse().unwrap()
    }

    fn ours() -> Client {
        Client::with_secret("ours", Secret::from("our-secret"))
    }

    fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn built(dialect: &LoginDialect, credentials: &Credentials) -> TokenRequest {
        build_login_request(dialect, &url(), &ours(), credentials).unwrap()
    }

    fn read(dialect: &LoginDialect, status: u16, body: &str) -> Result<LoginReply, LoginFailure> {
        let life = Life { ttl: None, default: Some(Duration::from_hours(1)) };
        parse_login_response(
            dialect,
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            body.as_bytes(),
            now(),
            life,
        )
    }

    #[test]
    fn credentials_go_where_the_template_has_them() {
        let form = built(&LoginDialect::default(), &alice());
        assert_eq!(form.body.as_slice(), b"password=p%22%3Ds&username=al%26ice");
        assert_eq!(form.headers[CONTENT_TYPE], "application/x-www-form-urlencoded");

        let params = map([
            ("grant_type", "password"),
            ("login", "{username}"),
            ("pw", "{password}"),
            ("c", "{client_id}"),
            ("s", "{client_secret}"),
        ]);
        let json = built(&LoginDialect { body: LoginBody::Json, params, ..LoginDialect::default() }, &alice());
        let body: Value = serde_json::from_slice(&json.body).unwrap();
        let expected = serde_json::json!({"grant_type": "password", "login": "al&ice", "pw": "p\"=s", "c": "ours", "s": "our-secret"});
        assert_eq!(body, expected);

        let headers = map([("x-api-key", "{api_key}")]);
        let get = LoginDialect {
            method: LoginMethod::Get,
            body: LoginBody::None,
            params: BTreeMap::new(),
            headers,
            ..LoginDialect::default()
        };
        let sent = built(&get, &Credentials::ApiKey(Secret::from("k1")));
        assert_eq!((sent.method, sent.body.len()), (Method::GET, 0));
        assert_eq!(sent.headers["x-api-key"], "k1");
        assert!(sent.headers["x-api-key"].is_sensitive());
        assert!(!sent.headers.contains_key(CONTENT_TYPE));
    }

    #[test]
    fn basic_is_rfc_7617s() {
        let dialect = LoginDialect { basic: true, params: BTreeMap::new(), ..LoginDialect::default() };
        let credentials = Credentials::Password { username: "Aladdin".into(), password: Secret::from("open sesame") };
        let sent = built(&dialect, &credentials);
        assert_eq!(sent.headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(sent.headers[AUTHORIZATION].is_sensitive());
        let colon = Credentials::Password { username: "a:b".into(), password: Secret::from("c") };
        assert!(build_login_request(&dialect, &url(), &ours(), &colon).is_err());
    }

    #[test]
    fn what_is_not_there_is_not_sent_half() {
        let key = Credentials::ApiKey(Secret::from("k"));
        let error = build_login_request(&LoginDialect::default(), &url(), &ours(), &key).unwrap_err();
        assert_eq!(error, BuildError::MissingParam { name: "password".into() });
    }

    #[test]
    fn the_token_is_where_the_pointer_says_with_or_without_its_prefix() {
        let dialect =
            LoginDialect { token: "/data/0/jwt".into(), token_prefix: "JWT ".into(), ..LoginDialect::default() };
        for body in [r#"{"data":[{"jwt":"JWT abc"}]}"#, r#"{"data":[{"jwt":"abc"}]}"#] {
            let reply = read(&dialect, 200, body).unwrap();
            assert_eq!((reply.access_token.expose_secret(), reply.token_type.as_str()), ("abc", "JWT"));
        }
        let whole = LoginDialect { token: String::new(), ..LoginDialect::default() };
        assert_eq!(read(&whole, 201, "\"abc\"").unwrap().access_token.expose_secret(), "abc");
    }

    #[test]
    fn a_life_is_the_replys_then_the_operators_then_the_providers() {
        let dialect = LoginDialect {
            expires_in: Some("/ttl".into()),
            expires_at: Some("/until".into()),
            ..LoginDialect::default()
        };
        let dies = |body: &str, ttl: Option<u64>| {
            let life = Life { ttl: ttl.map(Duration::from_secs), default: Some(Duration::from_secs(3600)) };
            let reply = parse_login_response(&dialect, StatusCode::OK, &HeaderMap::new(), body.as_bytes(), now(), life);
            reply.unwrap().expires_at
        };
        assert_eq!(dies(r#"{"access_token":"a"}"#, None), Some(after(3600)));
        assert_eq!(dies(r#"{"access_token":"a"}"#, Some(7200)), Some(after(7200)));
        assert_eq!(dies(r#"{"access_token":"a","ttl":60}"#, Some(7200)), Some(after(60)));
        assert_eq!(dies(r#"{"access_token":"a","ttl":"600"}"#, Some(60)), Some(after(60)));
        assert_eq!(dies(r#"{"access_token":"a","until":1000090}"#, None), Some(after(90)));
        assert_eq!(dies(r#"{"access_token":"a","until":"1970-01-12T13:48:00Z"}"#, None), Some(after(80)));
        assert_eq!(dies(r#"{"access_token":"a","until":5,"ttl":0}"#, None), Some(after(3600)));
    }

    #[test]
    fn refusals_outages_and_the_rest_are_three_things() {
        let dialect = LoginDialect::default();
        let token = r#"{"access_token":"a"}"#;
        assert!(read(&dialect, 200, token).is_ok());
        for status in [400, 401, 403] {
            assert!(matches!(read(&dialect, status, token), Err(LoginFailure::Refused { .. })), "{status}");
        }
        for (status, body) in [
            (404, ""),
            (422, "{}"),
            (200, "{}"),
            (200, r#"{"access_token":""}"#),
            (200, "{\"access_token\":\"a\\nb\"}"),
        ] {
            assert!(matches!(read(&dialect, status, body), Err(LoginFailure::Rejected { .. })), "{status} {body}");
        }
        for (status, body) in [(500, token), (503, ""), (302, ""), (408, ""), (200, "<html>"), (200, "")] {
            assert!(matches!(read(&dialect, status, body), Err(LoginFailure::NoOutcome { .. })), "{status} {body}");
        }
        assert!(matches!(read(&dialect, 429, token), Err(LoginFailure::Throttled { .. })));
        let own = LoginDialect { refused: vec![422], ..dialect };
        assert!(matches!(read(&own, 422, ""), Err(LoginFailure::Refused { .. })));
        assert!(matches!(read(&own, 401, ""), Err(LoginFailure::Rejected { .. })));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let shown = format!("{:?} {:?}", alice(), built(&LoginDialect::default(), &alice()));
        assert!(!shown.contains("p\"=s") && !shown.contains("p%22"), "{shown}");
    }
}
