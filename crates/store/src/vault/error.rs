//! What Vault's refusals, and its silence, mean.

use std::path::PathBuf;

use tokenkeep_core::ports::StoreError;

/// Why a request has not been done, as far as one can tell.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// It surely has not.
    NothingDone(StoreError),
    /// It may have.
    InDoubt(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NothingDone(error) | Failure::InDoubt(error) => error,
        }
    }
}

impl Failure {
    /// It surely has not been done, for this reason.
    pub(super) fn nothing_done(reason: impl Into<String>) -> Self {
        Failure::NothingDone(unavailable(reason))
    }

    pub(super) fn in_doubt(reason: impl Into<String>) -> Self {
        Failure::InDoubt(unavailable(reason))
    }
}

pub(super) fn unavailable(reason: impl Into<String>) -> StoreError {
    StoreError::Unavailable { reason: reason.into(), retry_after: None }
}

/// Why Vault cannot be used. Each is one sentence for an operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting cannot be.
    #[error("the Vault setting `{setting}` cannot be used: {problem}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// Why.
        problem: String,
    },
    /// The certificates cannot be read.
    #[error("the certificates for Vault in {} cannot be used: {problem}", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Nobody answers.
    #[error("Vault at {address} does not answer: {problem}; check the address, and that the server is up")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        problem: String,
    },
    /// Somebody answers who is not Vault.
    #[error("what answers at {address} is not Vault; check the address")]
    NotVault {
        /// Where.
        address: String,
    },
    /// It has no keys yet.
    #[error("Vault at {address} is not initialized; run `vault operator init` first")]
    NotInitialized {
        /// Where.
        address: String,
    },
    /// It is sealed.
    #[error("Vault at {address} is sealed; unseal it first")]
    Sealed {
        /// Where.
        address: String,
    },
    /// The token is not good, or no longer.
    #[error("Vault at {address} does not accept the token: it is wrong, expired or revoked, or of another namespace")]
    TokenRefused {
        /// Where.
        address: String,
    },
    /// The role or its secret is not good.
    #[error(
        "Vault at {address} refuses the AppRole login at `{mount}`: role or secret id are wrong, used up or expired, or the method is not there"
    )]
    LoginRefused {
        /// Where.
        address: String,
        /// The login method's mount.
        mount: String,
    },
    /// There is no such mount.
    #[error("Vault has no secrets engine mounted at `{mount}`, or the token may not see it")]
    NoMount {
        /// The mount that was asked for.
        mount: String,
    },
    /// There is, but of another kind.
    #[error("Vault's mount `{mount}` is not a KV engine but `{engine}`")]
    NotKv {
        /// The mount that was asked for.
        mount: String,
        /// What it is.
        engine: String,
    },
    /// It cannot be told which version the engine has.
    #[error("the token may not ask which KV version `{mount}` has; allow it, or name the version in the settings")]
    UnknownEngine {
        /// The mount that was asked for.
        mount: String,
    },
    /// The token may not do what a store must.
    #[error("the token's policies lack {missing} on `{path}` in Vault")]
    MissingCapability {
        /// Where.
        path: String,
        /// What, listed.
        missing: String,
    },
    /// Something else that may pass.
    #[error("Vault cannot be used at present: {0}")]
    Unavailable(String),
}
