//! One request, one answer, and what it means.
//!
//! Plain HTTP rather than a client library (docs/adr/0011): what matters here is which failures come before the request
//! was sent, and which of several kinds of 404 one is looking at.

use std::time::Duration;

use reqwest::{
    Method, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;
use tokenkeep_core::ports::StoreError;

use super::{
    error::{Failure, OpenError},
    options::VaultServer,
};

/// A server, without a token.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    /// Without the slash at its end.
    pub(super) address: String,
    namespace: Option<HeaderValue>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Below `/v1/`.
    pub(super) path: &'a str,
    pub(super) body: Option<&'a Value>,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None }
    }

    pub(super) fn post(path: &'a str, body: &'a Value) -> Self {
        Self { method: Method::POST, path, body: Some(body) }
    }

    pub(super) fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, path, body: None }
    }

    /// Vault's own verb.
    pub(super) fn list(path: &'a str) -> Self {
        let method = Method::from_bytes(b"LIST").expect("LIST is a valid method");
        Self { method, path, body: None }
    }
}

/// What came back, as it came.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Body,
    retry_after: Option<Duration>,
}

/// What a reply holds.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Json(Value),
    /// Nothing that Vault would say.
    Foreign,
}

/// What a reply means, if it is not a failure.
#[derive(Debug)]
pub(super) enum Answer {
    /// Done, with what it gave.
    Done(Value),
    /// There is no such key (not: no such mount). Of a deleted version, the body tells the number.
    Absent(Value),
    /// Something else was there; nothing changed.
    Mismatch,
}

impl Http {
    pub(super) fn new(server: &VaultServer) -> Result<Self, OpenError> {
        let setting = |setting, problem: &str| OpenError::Setting { setting, problem: problem.to_owned() };
        let address = server.address.trim_end_matches('/');
        let url = reqwest::Url::parse(address).map_err(|e| setting("address", &e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(setting("address", "it must begin with http:// or https:// and name a host"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.path() != "/" {
            return Err(setting("address", "it must hold nothing but the scheme, the host and the port"));
        }
        let namespace = server.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let namespace =
            namespace.map_err(|_| setting("namespace", "it holds characters that no namespace can have"))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(server)?)
            .redirect(Policy::custom(|attempt| {
                // A standby names the active node so. The token goes along, but never from TLS into the clear.
                let downgraded =
                    attempt.previous().iter().any(|u| u.scheme() == "https") && attempt.url().scheme() != "https";
                if downgraded || attempt.previous().len() > 2 { attempt.stop() } else { attempt.follow() }
            }))
            .connect_timeout(server.connect_timeout)
            .timeout(server.timeout)
            .build()
            .map_err(|e| setting("address", &e.to_string()))?;
        Ok(Self { client, address: address.to_owned(), namespace })
    }

    /// Sends `call`, in the namespace unless there is no token: what needs none is the whole server's.
    pub(super) async fn send(&self, call: Call<'_>, token: Option<&HeaderValue>) -> Result<Reply, Failure> {
        self.exchange(call, token, token.is_some()).await
    }

    /// Sends a login, which needs no token and yet is the namespace's.
    pub(super) async fn send_login(&self, call: Call<'_>) -> Result<Reply, Failure> {
        self.exchange(call, None, true).await
    }

    async fn exchange(&self, call: Call<'_>, token: Option<&HeaderValue>, namespaced: bool) -> Result<Reply, Failure> {
        let mut request = self.client.request(call.method, format!("{}/v1/{}", self.address, call.path));
        request = request.header("X-Vault-Request", "true");
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(namespace) = self.namespace.as_ref().filter(|_| namespaced) {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(body) = call.body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|e| transport_failure(&e))?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let bytes = response.bytes().await.map_err(|e| transport_failure(&e))?;
        let body = match serde_json::from_slice(&bytes) {
            _ if bytes.is_empty() => Body::Empty,
            Ok(json) => Body::Json(json),
            Err(_) => Body::Foreign,
        };
        Ok(Reply { status, body, retry_after })
    }
}

fn tls(server: &VaultServer) -> Result<ClientConfig, OpenError> {
    let problem = |problem: String| match &server.ca_file {
        Some(path) => OpenError::Certificates { path: path.clone(), problem },
        None => OpenError::Setting { setting: "address", problem },
    };
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|e| problem(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    if let Some(path) = &server.ca_file {
        let pem = std::fs::read(path).map_err(|e| problem(e.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
            added.map_err(problem)?;
        }
        if roots.is_empty() {
            return Err(problem("it holds no certificate in PEM".into()));
        }
    }
    // In the clear nothing is verified, and the system's certificates may even be missing.
    if server.ca_file.is_some() || server.address.starts_with("http://") {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    Ok(builder.with_platform_verifier().map_err(|e| problem(e.to_string()))?.with_no_client_auth())
}

/// Only a connection that never came to be is sure to have carried nothing.
fn transport_failure(error: &reqwest::Error) -> Failure {
    let reason = if error.is_connect() {
        // TLS failures come without words of the server's; the innermost cause says which it is.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        return Failure::nothing_done(format!("no connection to Vault: {cause}"));
    } else if error.is_timeout() {
        "Vault did not answer in time"
    } else {
        "the connection to Vault was cut"
    };
    Failure::in_doubt(reason)
}

impl Reply {
    /// What it means. `terse` servers (rusty_vault) say of an absent key nothing but 404.
    pub(super) fn judge(self, terse: bool) -> Result<Answer, Failure> {
        let Self { status, body, retry_after } = self;
        let messages = body.messages();
        match (status.as_u16(), body) {
            (200..=299, Body::Json(value)) => Ok(Answer::Done(value)),
            (200..=299, Body::Empty) => Ok(Answer::Done(Value::Null)),
            (200..=299, Body::Foreign) => Err(Failure::in_doubt("what answers is not Vault")),
            (404, Body::Json(value)) if is_absence(&value) => Ok(Answer::Absent(value)),
            (404, Body::Empty) if terse => Ok(Answer::Absent(Value::Null)),
            (404, _) => Err(Failure::nothing_done(format!("Vault has no such mount, or of another kind: {messages}"))),
            (400, _) if messages.contains("did not match the current version") => Ok(Answer::Mismatch),
            (403, _) => {
                Err(Failure::nothing_done("Vault denies it: the token has expired, or its policies do not allow it"))
            }
            (429, _) => {
                let reason = "Vault is limiting the rate of requests".into();
                Err(Failure::NothingDone(StoreError::Unavailable { reason, retry_after }))
            }
            (503, _) if messages.contains("sealed") => Err(Failure::nothing_done("Vault is sealed")),
            (500..=599, _) if messages.contains("not active") || messages.contains("standby") => {
                Err(Failure::nothing_done("Vault is in standby and knows no active node"))
            }
            (500..=599, _) => Err(Failure::in_doubt(format!("Vault failed with {}: {messages}", status.as_u16()))),
            (300..=399, _) => Err(Failure::nothing_done("Vault names another node, which is not followed")),
            (code, _) => Err(Failure::nothing_done(format!("Vault refuses with {code}: {messages}"))),
        }
    }
}

impl Body {
    /// What Vault says went wrong, escaped and not too long.
    pub(super) fn messages(&self) -> String {
        let Body::Json(value) = self else { return "no message".into() };
        let texts = match (&value["errors"], &value["error"], &value["warnings"]) {
            (Value::Array(errors), ..) if !errors.is_empty() => errors.iter().filter_map(Value::as_str).collect(),
            (_, Value::String(error), _) => vec![error.as_str()],
            (.., Value::Array(warnings)) => warnings.iter().filter_map(Value::as_str).collect(),
            _ => return "no message".into(),
        };
        texts.join("; ").chars().take(200).flat_map(char::escape_debug).collect()
    }
}

/// Vault says `{"errors":[]}` of a key that is not there, and gives the metadata of a version that was deleted. With
/// messages or warnings it is something else that is not there: the mount, or the engine that was.
fn is_absence(body: &Value) -> bool {
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let deleted_version = body["data"]["metadata"]["version"].is_u64();
    is_empty(&body["errors"]) && is_empty(&body["warnings"]) && (deleted_version || body["errors"].is_array())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judge(status: u16, body: Body) -> Result<Answer, Failure> {
        Reply { status: StatusCode::from_u16(status).unwrap(), body, retry_after: None }.judge(false)
    }

    #[test]
    fn only_an_absent_key_is_absent() {
        let deleted = json!({"data": {"data": null, "metadata": {"deletion_time": "x", "version": 3}}});
        for absent in [json!({"errors": []}), deleted] {
            assert!(matches!(judge(404, Body::Json(absent)), Ok(Answer::Absent(_))));
        }
        let no_mount = json!({"errors": ["no handler for route \"x/y\". route entry not found."]});
        let other_engine = json!({"errors": [], "warnings": ["Invalid path for a versioned K/V secrets engine."]});
        for body in [Body::Json(no_mount), Body::Json(other_engine), Body::Json(json!({})), Body::Empty, Body::Foreign]
        {
            let judged = judge(404, body);
            assert!(matches!(judged, Err(Failure::NothingDone(_))), "{judged:?}");
        }
    }

    #[test]
    fn what_may_have_been_done_is_in_doubt() {
        let says = |message: &str| Body::Json(json!({"errors": [message]}));
        for (status, body) in [(200, Body::Foreign), (500, says("internal")), (502, Body::Foreign), (504, Body::Empty)]
        {
            let judged = judge(status, body);
            assert!(matches!(judged, Err(Failure::InDoubt(_))), "{status}: {judged:?}");
        }
        for (status, message) in [
            (503, "Vault is sealed"),
            (500, "local node not active but active cluster node not found"),
            (403, "permission denied"),
            (429, "request path \"x\": rate limit quota exceeded"),
            (412, "required index state not present"),
            (413, "request body too large"),
            (400, "missing data"),
            (307, ""),
        ] {
            let judged = judge(status, says(message));
            assert!(matches!(judged, Err(Failure::NothingDone(_))), "{status}: {judged:?}");
        }
    }

    #[test]
    fn messages_are_escaped_and_cut() {
        let body = Body::Json(json!({"errors": ["a\nb\u{1b}[31m", "x".repeat(500)]}));
        assert!(!body.messages().contains(['\n', '\u{1b}']));
        assert!(body.messages().len() < 250);
    }
}
