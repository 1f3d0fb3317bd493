//! What can go wrong, said once for every face: HTTP, command line and library tell their callers the same.

use std::{borrow::Cow, time::Duration};

use tokenkeep_core::{
    ConnectionId, InstanceId, IntegrationId, InvalidIdentifier, change::StaleRefreshToken, ports::StoreError,
    refresh::INVALID_CREDENTIALS,
};

use crate::records::RecordError;

/// Why a use case failed. `Display` is what the caller may see; the source chain is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An identifier breaks the rules.
    #[error(transparent)]
    InvalidIdentifier(#[from] InvalidIdentifier),
    /// The request makes no sense as it is. The text says what to change.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// The key does not allow this.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// There is no such thing.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// `connection`, `integration`, `key`, `connect`, `provider`, `instance`, `client`, `grant`, `access token`.
        what: &'static str,
        /// Its id, as the caller gave it.
        id: String,
    },
    /// It is there already, and was only to be made where absent.
    #[error("the {what} is there already")]
    AlreadyThere {
        /// What.
        what: &'static str,
    },
    /// Somebody else changed it at the same moment.
    #[error("somebody else changed the {what} at the same moment; look again")]
    Conflict {
        /// What.
        what: &'static str,
    },
    /// It was seen at work a moment ago, so it is not to be given up.
    #[error("the instance {0} may be alive: its record moved in the last 30 s; force it if its disk never comes back")]
    InstanceAlive(InstanceId),
    /// The refresh token is known to be spent.
    #[error(transparent)]
    StaleRefreshToken(#[from] StaleRefreshToken),
    /// It comes from the configuration file and is changed there.
    #[error("the {what} `{id}` comes from the configuration file; change it there")]
    ManagedByConfig {
        /// What.
        what: &'static str,
        /// Which.
        id: String,
    },
    /// The user must consent again.
    #[error("{connection} needs its user's {} again ({reason})", needed(reason))]
    ReauthRequired {
        /// Whose.
        connection: ConnectionId,
        /// The stable word: `invalid_grant`, `no_refresh_token`, `refresh_token_spent`, `invalid_credentials`.
        reason: String,
    },
    /// The provider does not take the credentials that came with the request.
    #[error("the provider of `{integration}` does not take these credentials")]
    InvalidCredentials {
        /// Whose provider.
        integration: IntegrationId,
    },
    /// The connection's integration is not there, or not for its tenant, so its tokens are sent nowhere.
    #[error("there is no integration `{0}`; its client id and secret are needed to refresh")]
    IntegrationMissing(IntegrationId),
    /// The provider refuses our client.
    #[error("the provider refuses the client of integration `{integration}` ({code}); correct its id or secret")]
    IntegrationRejected {
        /// Which.
        integration: IntegrationId,
        /// The OAuth error code.
        code: String,
    },
    /// The provider refuses the request for a reason that is neither the user's nor the client's authorization.
    #[error("the provider of `{integration}` refused the request ({code})")]
    ProviderRejected {
        /// Whose.
        integration: IntegrationId,
        /// The OAuth error code.
        code: String,
    },
    /// It is not known where the API of this integration is.
    #[error("no API host of `{0}` is known; name them in its `api_hosts`")]
    NoApiHost(IntegrationId),
    /// The request is for another host than the integration's.
    #[error("this is no API host of `{0}`; a token goes to those only")]
    ApiHostNotAllowed(IntegrationId),
    /// The request's path may mean something else to whoever reads it next.
    #[error("the path {0}")]
    InvalidPath(&'static str),
    /// The provider does not answer, or not sensibly, and there is no other way to what was asked for.
    #[error("the provider of `{integration}` is unavailable at present: {detail}")]
    ProviderUnavailable {
        /// Whose.
        integration: IntegrationId,
        /// A sentence of ours.
        detail: String,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
    /// The request's own body did not come to its end.
    #[error("the request's body took too long to arrive")]
    BodyTimeout,
    /// A refresh token was spent and nobody knows yet what came of it; the access token is dead.
    #[error("a refresh of {connection} has no outcome yet: {detail}")]
    Unresolved {
        /// Whose.
        connection: ConnectionId,
        /// Why it is not asked for again; a sentence of ours.
        detail: &'static str,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
    /// The store does not answer, or is behind what we or the caller know.
    #[error("the store does not answer at present")]
    StoreUnavailable {
        /// When it makes sense to ask again.
        retry_after: Duration,
        /// Why, for the log.
        #[source]
        source: Option<StoreError>,
    },
    /// A session's token does not count, or what it led to is gone. Why is not said: it would help only whoever made it up.
    #[error("the session is over, or the token is not one of a session")]
    InvalidSession,
    /// What a client published of itself is of no use.
    #[error("the document of this client cannot be used: {0}")]
    ClientDocument(Cow<'static, str>),
    /// What a client published of itself is not to be had.
    #[error("what this client published cannot be fetched at present")]
    ClientDocumentUnavailable {
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
    /// Too much was asked.
    #[error("{what}; wait {} s", retry_after.as_secs().max(1))]
    TooMany {
        /// Of what.
        what: &'static str,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
    /// A record is there and cannot be read. Only an operator can help.
    #[error("the record of this {what} cannot be read")]
    Unreadable {
        /// What.
        what: &'static str,
        /// Why, for the log.
        #[source]
        source: RecordError,
    },
}

/// What a user who must come back has to bring.
fn needed(reason: &str) -> &'static str {
    if reason == INVALID_CREDENTIALS { "credentials" } else { "consent" }
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller's: asking again changes nothing.
    Caller,
    /// Nobody's who could be asked here: the person must consent.
    User,
    /// Whoever runs this installation.
    Operator,
    /// The provider's: it may pass.
    Provider,
    /// Ours: it may pass.
    Us,
}

/// After an outage of the store, callers are asked to come back after this.
pub(crate) const STORE_RETRY: Duration = Duration::from_secs(2);

impl Error {
    pub(crate) fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(text.into())
    }

    #[expect(clippy::needless_pass_by_value, reason = "ids come as references and as texts made for the purpose")]
    pub(crate) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    /// What a failed read of a record of `what` means.
    pub(crate) fn reading(what: &'static str) -> impl FnOnce(RecordError) -> Self {
        move |error| match error {
            RecordError::Store(source) => source.into(),
            unreadable @ RecordError::Unreadable { .. } => Self::Unreadable { what, source: unreadable },
        }
    }

    /// The stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidIdentifier(_) => "invalid_identifier",
            Error::Invalid(_) => "invalid_request",
            Error::Forbidden(_) => "forbidden",
            Error::NotFound { what: "connection", .. } => "connection_not_found",
            Error::NotFound { what: "integration", .. } => "integration_not_found",
            Error::NotFound { what: "provider", .. } => "provider_not_found",
            Error::NotFound { what: "connect", .. } => "connect_not_found",
            Error::NotFound { what: "key", .. } => "key_not_found",
            Error::NotFound { what: "instance", .. } => "instance_not_found",
            Error::NotFound { what: "client", .. } => "client_not_found",
            Error::NotFound { what: "grant", .. } => "grant_not_found",
            Error::NotFound { what: "interaction", .. } => "interaction_not_found",
            Error::NotFound { what: "access token", .. } => "access_token_not_found",
            Error::NotFound { .. } => "not_found",
            Error::AlreadyThere { .. } => "already_there",
            Error::Conflict { .. } => "conflict",
            Error::InstanceAlive(_) => "instance_alive",
            Error::StaleRefreshToken(_) => "stale_refresh_token",
            Error::ManagedByConfig { .. } => "managed_by_config",
            Error::ReauthRequired { .. } => "reauth_required",
            Error::InvalidCredentials { .. } => "invalid_credentials",
            Error::IntegrationMissing(_) => "integration_missing",
            Error::IntegrationRejected { .. } => "integration_rejected",
            Error::ProviderRejected { .. } => "provider_rejected",
            Error::NoApiHost(_) => "no_api_host",
            Error::ApiHostNotAllowed(_) => "api_host_not_allowed",
            Error::InvalidPath(_) => "invalid_path",
            Error::ProviderUnavailable { .. } => "provider_unavailable",
            Error::BodyTimeout => "request_timeout",
            Error::Unresolved { .. } => "unresolved",
            Error::StoreUnavailable { .. } => "store_unavailable",
            Error::InvalidSession => "invalid_session",
            Error::ClientDocument(_) => "invalid_client_document",
            Error::ClientDocumentUnavailable { .. } => "client_document_unavailable",
            Error::TooMany { .. } => "too_many_requests",
            Error::Unreadable { .. } => "record_unreadable",
        }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Error::ReauthRequired { .. } => Blame::User,
            Error::IntegrationMissing(_)
            | Error::NoApiHost(_)
            | Error::IntegrationRejected { .. }
            | Error::Unreadable { .. } => Blame::Operator,
            Error::ProviderRejected { .. } | Error::ProviderUnavailable { .. } => Blame::Provider,
            Error::Unresolved { .. } | Error::StoreUnavailable { .. } => Blame::Us,
            _ => Blame::Caller,
        }
    }

    /// When it makes sense to ask again; `None` = not by itself.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::ProviderUnavailable { retry_after, .. }
            | Error::Unresolved { retry_after, .. }
            | Error::StoreUnavailable { retry_after, .. }
            | Error::ClientDocumentUnavailable { retry_after }
            | Error::TooMany { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(source: StoreError) -> Self {
        let retry_after = match &source {
            StoreError::Unavailable { retry_after: Some(wait), .. } => *wait,
            _ => STORE_RETRY,
        };
        Self::StoreUnavailable { retry_after, source: Some(source) }
    }
}
