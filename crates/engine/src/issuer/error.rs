//! Why the authorization server says no.

use std::time::Duration;

use tokenkeep_oauth::{Secret, issuer::error::OAuthError};

use crate::Error;

/// Why a client, or a user, does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// In the words of the RFCs: it is told to whoever asked.
    #[error(transparent)]
    Protocol(#[from] OAuthError),
    /// Only the user can help, at the provider (OpenID Connect Core 3.1.2.6).
    #[error("the user must connect the account again")]
    InteractionRequired {
        /// The link that begins it: whoever holds it can use it once. `None` = whoever connected the account must ask.
        connect_url: Option<Secret>,
    },
    /// Something else is in the way, ours or the operator's. Never said as if the token or the client were wrong.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Refused {
    /// What is told to whoever asked.
    pub fn told(&self) -> OAuthError {
        match self {
            Self::Protocol(error) => error.clone(),
            Self::InteractionRequired { .. } => {
                OAuthError::interaction_required("the account is not connected any more: its user must do so again")
            }
            Self::Failed(error @ Error::ClientDocument(_)) => OAuthError::invalid_client(error.to_string()),
            Self::Failed(error) if error.retry_after().is_some() => {
                OAuthError::temporarily_unavailable("this server cannot say at present; try again")
            }
            Self::Failed(_) => OAuthError::server_error("this server failed"),
        }
    }

    /// When it makes sense to ask again; `None` = not by itself.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Protocol(_) | Self::InteractionRequired { .. } => None,
            Self::Failed(error) => error.retry_after(),
        }
    }
}
