//! What it takes to reach Vault.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokenkeep_core::ports::{Clock, Entropy};

/// A Vault or OpenBao server, and how to be let in.
#[derive(Clone, Debug)]
pub struct VaultServer {
    /// `http://` or `https://`, a host and perhaps a port: that of the active node, or of what leads to it.
    pub address: String,
    /// How to be let in.
    pub auth: VaultAuth,
    /// The namespace (Vault Enterprise, OpenBao) that mounts and login are in.
    pub namespace: Option<String>,
    /// Certificates, in PEM, that alone are trusted to have issued the server's; without it, the system's are.
    pub ca_file: Option<PathBuf>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for an answer, the connection included.
    pub timeout: Duration,
    /// For the life of tokens.
    pub clock: Arc<dyn Clock>,
}

impl VaultServer {
    /// A server with the time-outs of 3 and 10 seconds.
    pub fn new(address: impl Into<String>, auth: VaultAuth, clock: Arc<dyn Clock>) -> Self {
        Self {
            address: address.into(),
            auth,
            namespace: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            clock,
        }
    }
}

/// How to be let in.
#[derive(Clone)]
pub enum VaultAuth {
    /// A token. It is renewed as long as it can be.
    Token(SecretString),
    /// AppRole: logs in anew whenever its token can no longer be renewed.
    AppRole {
        /// Where the method is mounted, by default `approle`.
        mount: String,
        /// Which role.
        role_id: String,
        /// Its secret.
        secret_id: SecretString,
    },
}

impl VaultAuth {
    /// AppRole at its default mount.
    pub fn app_role(role_id: impl Into<String>, secret_id: SecretString) -> Self {
        Self::AppRole { mount: "approle".into(), role_id: role_id.into(), secret_id }
    }
}

impl fmt::Debug for VaultAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::AppRole { mount, .. } => f.debug_struct("AppRole").field("mount", mount).finish_non_exhaustive(),
        }
    }
}

/// Where records go in a [`VaultServer`].
#[derive(Clone, Debug)]
pub struct VaultOptions {
    /// The server.
    pub server: VaultServer,
    /// Where the KV engine is mounted, by default `secret`.
    pub mount: String,
    /// Below which path the records stand, by default `tokenkeep`. It must be ours alone.
    pub path: String,
    /// The engine's version; without it, the server is asked.
    pub engine: Option<KvVersion>,
    /// For the versions of records.
    pub entropy: Arc<dyn Entropy>,
}

impl VaultOptions {
    /// Records in the default place.
    pub fn new(server: VaultServer, entropy: Arc<dyn Entropy>) -> Self {
        Self { server, mount: "secret".into(), path: "tokenkeep".into(), engine: None, entropy }
    }
}

/// Which of Vault's two KV engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvVersion {
    /// It overwrites whatever is there, so that only one instance may write.
    V1,
    /// It compares and swaps.
    V2,
}
