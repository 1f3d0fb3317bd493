//! The command line is a client of the server's API like any other: over HTTP with a key, or, on the server's own
//! machine, over the socket in its data directory, where the kernel says who asks and no key is copied about.

mod problem;
mod wire;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::{Serialize, de::DeserializeOwned};
use tokenkeep_oauth::Secret;
use url::Url;
use zeroize::Zeroizing;

pub(crate) use self::problem::Problem;
use self::wire::Wire;
use crate::{
    args::Global,
    config::{Config, read_secret_file},
    environment::Environment,
    serve::data_dir::DataDir,
};

/// How long one request may take: longer than the server itself waits for a provider.
const PATIENCE: Duration = Duration::from_secs(60);

/// Speaks to one server.
#[derive(Debug)]
pub(crate) struct Client {
    wire: Wire,
    key: Option<HeaderValue>,
}

/// What to ask.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Option<Zeroizing<Vec<u8>>>,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body: None }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        self.body = Some(Zeroizing::new(serde_json::to_vec(body)?));
        Ok(self.header(header::CONTENT_TYPE, "application/json"))
    }
}

/// An answer, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// What it says, as JSON.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|_| {
            anyhow!(
                "the server answered something that this command does not understand; is it tokenkeep, of this version?"
            )
        })
    }
}

impl Client {
    /// The server that `--url` or TOKENKEEP_URL names, else the one of this machine.
    pub(crate) fn find(global: &Global, environment: &Environment) -> Result<Self> {
        let key = key(environment)?;
        let url = match &global.url {
            Some(url) => Some(url.as_str()),
            None => environment.text("TOKENKEEP_URL")?,
        };
        let wire = match url {
            Some(url) => {
                let url = Url::parse(url).context("the server's URL (--url or TOKENKEEP_URL) is not a URL")?;
                Wire::http(url, environment)?
            }
            None => Wire::Socket(socket(global, environment)?),
        };
        let key = key.map(|key| bearer(&key)).transpose()?;
        Ok(Self { wire, key })
    }

    /// Asks, and takes nothing but success for an answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer> {
        let answer = self.ask(call).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let mut problem = Problem::of(&answer);
        if answer.status == StatusCode::UNAUTHORIZED && self.key.is_none() {
            problem.hint = Some("put an API key into TOKENKEEP_KEY, or its file's name into TOKENKEEP_KEY_FILE");
        }
        Err(problem.into())
    }

    /// Asks, and reads the answer.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        self.call(call).await?.read()
    }

    /// Asks; any answer will do.
    pub(crate) async fn ask(&self, call: Call) -> Result<Answer> {
        let Call { method, path, mut headers, body } = call;
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        let asked = self.wire.ask(method, &path, headers, body.unwrap_or_default());
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => bail!("{} did not answer within {} s", self.wire, PATIENCE.as_secs()),
        }
    }
}

fn key(environment: &Environment) -> Result<Option<Secret>> {
    match (environment.text("TOKENKEEP_KEY")?, environment.os("TOKENKEEP_KEY_FILE")) {
        (Some(_), Some(_)) => bail!("TOKENKEEP_KEY and TOKENKEEP_KEY_FILE are both set; keep one"),
        (Some(key), None) => Ok(Some(Secret::from(key.trim()))),
        (None, Some(file)) => {
            let key = read_secret_file(file.as_ref()).context("TOKENKEEP_KEY_FILE cannot be used")?;
            Ok(Some(Secret::from(key.expose_secret().trim())))
        }
        (None, None) => Ok(None),
    }
}

fn bearer(key: &Secret) -> Result<HeaderValue> {
    let text = Zeroizing::new(format!("Bearer {}", key.expose_secret()));
    let mut value =
        HeaderValue::from_str(&text).map_err(|_| anyhow!("the API key holds characters that no key has"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The socket of this machine's server: in the data directory that flag or configuration name, or the usual one.
fn socket(global: &Global, environment: &Environment) -> Result<PathBuf> {
    let dir = match &global.data_dir {
        Some(dir) => std::path::absolute(dir)?,
        None => Config::load(global.config.as_deref(), environment)?.data_dir(environment)?,
    };
    let socket = DataDir::at(dir).socket();
    if !socket.exists() {
        bail!(
            "no tokenkeep runs here: there is no {}. Start one with `tokenkeep serve`, name its data directory with \
             `--data-dir DIR`, or reach another machine's with TOKENKEEP_URL and TOKENKEEP_KEY",
            socket.display()
        );
    }
    Ok(socket)
}

/// A path segment of the API.
pub(crate) fn segment(text: &str) -> impl std::fmt::Display + '_ {
    /// Everything except RFC 3986's unreserved characters.
    const SET: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, &SET)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global { config: None, data_dir: Some("/nonexistent".into()), url: None }
    }

    #[test]
    fn without_a_server_it_says_how_to_reach_one() {
        let said = Client::find(&global(), &Environment::default()).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/tokenkeep.sock") && said.contains("tokenkeep serve"), "{said}");
    }

    #[test]
    fn a_key_does_not_travel_in_the_clear() {
        let of = |url: &str, pairs: [(&str, &str); 2]| {
            Client::find(&Global { url: Some(url.to_owned()), ..global() }, &Environment::from(pairs))
        };
        let none = ("X", "x");
        let key = ("TOKENKEEP_KEY", "tk_SECRETVALUE");
        let said = of("http://tokens.example.com", [key, none]).unwrap_err().to_string();
        assert!(said.contains("TOKENKEEP_ALLOW_PLAIN_HTTP") && !said.contains("SECRETVALUE"), "{said}");
        assert!(of("http://tokens.example.com", [key, ("TOKENKEEP_ALLOW_PLAIN_HTTP", "1")]).is_ok());
        assert!(of("http://127.0.0.1:7420", [key, none]).is_ok());
        let client = of("https://tokens.example.com", [key, none]).unwrap();
        assert!(!format!("{client:?}").contains("SECRETVALUE"));
    }

    #[test]
    fn names_become_path_segments() {
        assert_eq!(segment("github|42/a b@c~d").to_string(), "github%7C42%2Fa%20b%40c~d");
    }
}
