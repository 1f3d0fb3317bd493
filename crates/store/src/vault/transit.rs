//! Vault's Transit engine as the keeper of the root key.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    error::{Failure, OpenError},
    http::{Answer, Call},
    login::{Session, reason},
    open::path_setting,
    options::VaultServer,
};

/// A key in Vault's Transit engine, which wraps ours. The key never leaves Vault.
#[derive(Debug)]
pub struct Transit {
    session: Session,
    mount: String,
    key: String,
}

/// Which key.
#[derive(Clone, Debug)]
pub struct TransitOptions {
    /// The server.
    pub server: VaultServer,
    /// Where the engine is mounted, by default `transit`.
    pub mount: String,
    /// The key's name.
    pub key: String,
}

impl TransitOptions {
    /// A key at the default mount.
    pub fn new(server: VaultServer, key: impl Into<String>) -> Self {
        Self { server, mount: "transit".into(), key: key.into() }
    }
}

/// Why a key could not be wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum TransitError {
    /// Vault did not answer, or will not. Try again later.
    #[error("Vault's Transit engine is unavailable: {0}")]
    Unavailable(String),
    /// The wrapped key is not one, or of another Transit key. Trying again will not help.
    #[error("Vault's Transit engine does not unwrap the key: {0}")]
    Refused(String),
}

impl Transit {
    /// Finds the server and lets itself in. Whether there is such a key shows when it is used.
    pub async fn connect(options: TransitOptions) -> Result<Self, OpenError> {
        let mount = path_setting("transit mount", &options.mount)?;
        let key = path_setting("transit key", &options.key)?;
        Ok(Self { session: Session::open(&options.server).await?, mount, key })
    }

    /// The wrapped form of `plain`: `vault:v1:...`.
    pub async fn wrap(&self, plain: &[u8]) -> Result<String, TransitError> {
        let body = json!({"plaintext": BASE64_STANDARD.encode(plain)});
        let path = format!("{}/encrypt/{}", self.mount, self.key);
        let reply = self.ask(&path, &body).await?;
        let wrapped = reply["data"]["ciphertext"].as_str().filter(|text| text.starts_with("vault:v"));
        wrapped.map(str::to_owned).ok_or_else(not_transit)
    }

    /// What was wrapped.
    pub async fn unwrap(&self, wrapped: &str) -> Result<Zeroizing<Vec<u8>>, TransitError> {
        let body = json!({"ciphertext": wrapped});
        let path = format!("{}/decrypt/{}", self.mount, self.key);
        let reply = self.ask(&path, &body).await?;
        let plain = reply["data"]["plaintext"].as_str().ok_or_else(not_transit)?;
        BASE64_STANDARD.decode(plain).map(Zeroizing::new).map_err(|_| not_transit())
    }

    async fn ask(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value, TransitError> {
        let reply = self.session.reply(Call::post(path, body)).await.map_err(unavailable)?;
        if reply.status.as_u16() == 400 {
            return Err(TransitError::Refused(reply.body.messages()));
        }
        match self.session.judge(reply).map_err(unavailable)? {
            Answer::Done(value) => Ok(value),
            Answer::Absent(_) | Answer::Mismatch => Err(not_transit()),
        }
    }
}

fn unavailable(failure: Failure) -> TransitError {
    TransitError::Unavailable(reason(failure))
}

fn not_transit() -> TransitError {
    TransitError::Unavailable("what answers is not the Transit engine".into())
}
