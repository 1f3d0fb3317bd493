//! Connect: how a connection comes to be, with its user's consent.
//!
//! A link is handed out; the browser that opens it first is bound to it by a cookie and sent to the provider; the same
//! browser brings the code back, which is exchanged once. Where an application asked, it must then say, from its own
//! session with its user, that the account is that user's, before anything is attached: a link, or a callback, that
//! reaches somebody else attaches nothing.
//!
//! Everything that a browser or an application must bring back is stored as a keyed hash, and names its request by id:
//! nothing is searched for.

pub(crate) mod account;
mod again;
mod browser;
mod confirm;
mod device;
mod next_page;
mod obtain;
mod provider_page;
mod start;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use tokenkeep_core::{
    Action, AuthorizationRequest, ConnectId, Connection, ConnectionId, IntegrationId, Subject, Tenant,
    authorization_request::{Obtained, ProofHash, Stage, StepError},
    ports::{Expect, Put},
};
use tokenkeep_oauth::Secret;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    Caller, Error,
    connections::{Connections, revoke},
    error::STORE_RETRY,
    integrations::Party,
    records::{Loaded, Stored},
    shared::Shared,
};

pub(crate) use self::{
    obtain::{Failure, Redeemed},
    provider_page::{Leaving, authorize_url, code_of, parse_callback, state_of_callback, wanted_scope, with_scopes},
};

const ATTEMPTS: usize = 8;
/// What stands in [`Stage::Failed`] where nobody did anything in time.
const EXPIRED: &str = "expired";

/// The use cases of connecting. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connect {
    shared: Arc<Shared>,
    connections: Connections,
    again: Arc<again::Links>,
}

/// What to connect.
#[derive(Clone, Debug)]
pub struct StartConnect {
    /// Which connection.
    pub connection: ConnectionId,
    /// What to ask for, separated by spaces; `None` = the integration's scope, or else the provider's.
    pub scope: Option<String>,
    /// Where the user goes afterwards. Its origin must be one of [`Settings::return_to_origins`], or our own.
    ///
    /// [`Settings::return_to_origins`]: crate::Settings::return_to_origins
    pub return_to: Option<Url>,
    /// Whether nothing is attached until [`Connect::confirm`]; `None` = yes for keys of applications.
    pub confirm: Option<bool>,
}

/// A connect that was started.
#[derive(Clone, Debug)]
pub struct Started {
    /// Names it.
    pub connect_id: ConnectId,
    /// The link to open; `None` where nobody consents in a browser of ours. Whoever has it can use it once.
    pub authorize_url: Option<Url>,
    /// What to show where the user consents on another device.
    pub device: Option<Device>,
    /// How long there is to do so.
    pub expires_in: Duration,
    /// How far it got: `pending`, or at once `connected` where nobody consents.
    pub status: ConnectStatus,
}

/// What a user needs to consent on another device (RFC 8628 3.2).
#[derive(Clone, Debug)]
pub struct Device {
    /// What to type in.
    pub user_code: Secret,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it, for a link or a QR code.
    pub verification_uri_complete: Option<String>,
}

/// How far a connect got, for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectStatus {
    /// It waits for its user.
    Pending,
    /// The user consented; the application must confirm.
    AwaitingConfirmation,
    /// The connection is there.
    Connected,
    /// The user, or the provider's policy, said no.
    Denied,
    /// Something went wrong.
    Failed,
    /// Nobody did anything in time.
    Expired,
}

impl ConnectStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::AwaitingConfirmation => "awaiting_confirmation",
            Self::Connected => "connected",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// What the page behind a link says: who asks for what.
#[derive(Clone, Debug)]
pub struct ConnectPage {
    /// The provider's name, for people.
    pub provider_name: String,
    /// At which integration.
    pub integration: IntegrationId,
    /// For whom.
    pub tenant: Tenant,
    /// For whom.
    pub subject: Subject,
    /// What is asked for, separated by spaces.
    pub scope: Option<String>,
    /// The host that the user goes to afterwards.
    pub return_to_host: Option<String>,
}

/// What came of a browser's return.
#[derive(Clone, Debug)]
pub struct Returned {
    /// Which connect.
    pub connect_id: ConnectId,
    /// How far it got.
    pub status: ConnectStatus,
    /// A stable word for what went wrong.
    pub error: Option<String>,
    /// Where to send the browser, parameters included; with a confirmation due, its code is among them.
    pub return_to: Option<Url>,
    /// What it was for.
    pub connection: ConnectionId,
}

/// How a connect stands.
#[derive(Clone, Debug)]
pub struct ConnectView {
    /// Which.
    pub connect_id: ConnectId,
    /// What it is for.
    pub connection: ConnectionId,
    /// How far it got.
    pub status: ConnectStatus,
    /// A stable word for what went wrong.
    pub error: Option<String>,
}

impl Connect {
    pub(crate) fn new(shared: Arc<Shared>, connections: Connections) -> Self {
        Self { shared, connections, again: Arc::default() }
    }

    /// How a connect stands. It is forgotten some minutes after its time.
    pub async fn view(&self, caller: &Caller, id: &ConnectId) -> Result<ConnectView, Error> {
        caller.may(Action::Connect)?;
        let request = self.load(id).await?.value;
        let connection = request.connection.clone();
        caller.may_at(Action::Connect, &connection.integration, &connection.tenant)?;
        let (status, error) = self.status(&request);
        Ok(ConnectView { connect_id: *id, connection, status, error })
    }

    fn status(&self, request: &AuthorizationRequest) -> (ConnectStatus, Option<String>) {
        let waits = |status| {
            if request.is_open(self.shared.now().wall) { (status, None) } else { (ConnectStatus::Expired, None) }
        };
        match &request.stage {
            Stage::Pending(_) | Stage::Redirected { .. } | Stage::Exchanging | Stage::DevicePolling(_) => {
                waits(ConnectStatus::Pending)
            }
            Stage::AwaitingConfirmation { .. } => waits(ConnectStatus::AwaitingConfirmation),
            Stage::Connected => (ConnectStatus::Connected, None),
            Stage::Denied => (ConnectStatus::Denied, None),
            Stage::Failed { code } if code == EXPIRED => (ConnectStatus::Expired, None),
            Stage::Failed { code } => (ConnectStatus::Failed, Some(code.clone())),
        }
    }

    /// The integration's both sides, if connections of this tenant may use it.
    async fn party(&self, id: &ConnectionId) -> Result<Arc<Party>, Error> {
        let party = self.connections.party(&id.integration).await?;
        let party = party.ok_or_else(|| Error::IntegrationMissing(id.integration.clone()))?;
        if party.integration.serves(&id.tenant) {
            Ok(party)
        } else {
            Err(Error::Forbidden("this integration belongs to another tenant".into()))
        }
    }

    async fn load(&self, id: &ConnectId) -> Result<Stored<AuthorizationRequest>, Error> {
        match self.shared.records.load::<AuthorizationRequest>(id).await.map_err(Error::reading("connect"))? {
            Loaded::Live(stored) => Ok(stored),
            Loaded::Absent | Loaded::Deleted(_) => Err(Error::not_found("connect", id)),
        }
    }

    /// Writes a request that was made just now.
    async fn make(&self, request: &AuthorizationRequest) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.shared.records.save(request, (), Expect::Absent).await? {
                // Its id was drawn just now: what is there under it is our own write.
                Put::Committed(_) | Put::Conflict => return Ok(()),
                Put::Unknown => {}
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    /// Brings a request that nobody else works on to its next stage, whatever was written meanwhile.
    async fn proceed(
        &self,
        id: &ConnectId,
        step: impl Fn(AuthorizationRequest) -> Result<AuthorizationRequest, StepError>,
    ) -> Result<AuthorizationRequest, Error> {
        for _ in 0..ATTEMPTS {
            let stored = self.load(id).await?;
            let next = step(stored.value).map_err(|error| misstep(id, error))?;
            let expect = Expect::Version(&stored.version);
            if let Put::Committed(_) = self.shared.records.save(&next, (), expect).await? {
                return Ok(next);
            }
        }
        Err(Error::Conflict { what: "connect" })
    }

    /// Stores what was obtained. Answers the connection; where only its companion's tokens were granted, that one.
    /// `force` = it is the first time that these tokens are stored.
    pub(crate) async fn attach(
        &self,
        id: &ConnectionId,
        obtained: &Obtained,
        force: bool,
    ) -> Result<Connection, Error> {
        let party = self.party(id).await?;
        let mut attached = None;
        let companion = party.provider.dialect.companion.as_ref();
        let beside = companion.map(|c| Subject::new(&format!("{}{}", id.subject, c.subject_suffix))).transpose()?;
        let sets = [(Some(id.subject.clone()), &obtained.tokens), (beside, &obtained.companion)];
        for (subject, tokens) in sets {
            let (Some(subject), Some(tokens)) = (subject, tokens) else { continue };
            let id = ConnectionId { subject, ..id.clone() };
            let present = self.connections.load(&id).await?.map(|stored| stored.value);
            let named = present.as_ref().is_some_and(|c| c.display_name.is_some());
            let name = obtained.display_name.clone().filter(|_| !named);
            let stored = match self.connections.consented(&id, tokens.clone(), name, force).await {
                // They were stored before, and have been refreshed since.
                Err(Error::StaleRefreshToken(_)) if !force => present,
                stored => Some(stored?),
            };
            attached = attached.or(stored);
        }
        attached.ok_or_else(|| Error::not_found("connection", id))
    }

    /// Gives back what nobody wants: tokens that are in no connection. Where the connection is there already, nothing
    /// is revoked: many providers end with one token everything its user ever granted us.
    pub(crate) async fn give_back(&self, id: &ConnectionId, obtained: &Obtained) {
        let Ok(party) = self.party(id).await else { return };
        if !matches!(self.connections.load(id).await, Ok(None)) {
            return;
        }
        for tokens in [&obtained.tokens, &obtained.companion].into_iter().flatten() {
            if let Err(error) = revoke::revoke(&self.shared, &party, tokens).await {
                tracing::warn!(connection = %id, %error, "unconfirmed tokens could not be revoked");
            }
        }
    }

    /// 32 random bytes, as text.
    pub(crate) fn draw(&self) -> Secret {
        text_of(&Zeroizing::new(self.shared.entropy.bytes32()))
    }

    pub(crate) fn browser_hash(&self, browser: &Secret) -> ProofHash {
        ProofHash(self.shared.records.barrier().hashes().browser(browser))
    }
}

fn text_of(bytes: &[u8; 32]) -> Secret {
    BASE64_URL_SAFE_NO_PAD.encode(bytes).into()
}

/// Whether `text` is what [`text_of`] gives.
pub(crate) fn is_drawn(text: &Secret) -> bool {
    let text = text.expose_secret();
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// What names a request and proves that one may go on with it: `{id}.{43 characters}`.
fn split(text: &str) -> Option<ConnectId> {
    let (id, secret) = text.split_once('.')?;
    (secret.len() == 43).then(|| id.parse().ok())?
}

/// Why a browser cannot take its step. Who has no right to know of a request is told that there is none.
fn misstep(id: &ConnectId, error: StepError) -> Error {
    match error {
        StepError::Expired | StepError::OutOfTurn { .. } | StepError::WrongTicket | StepError::WrongState => {
            Error::not_found("connect", id)
        }
        StepError::WrongBrowser => Error::Forbidden(
            "another browser opened this link first, or this one keeps no cookies: ask for a new link".into(),
        ),
        StepError::WrongSubject | StepError::WrongCode => {
            Error::Forbidden("the subject or the code is not the one of this connect".into())
        }
    }
}

fn audit(action: &'static str, by: &str, request: &AuthorizationRequest) {
    let (connect, connection) = (request.id, &request.connection);
    let error = match &request.stage {
        Stage::Failed { code } => Some(code.as_str()),
        _ => None,
    };
    tracing::info!(target: "audit", action, by, %connect, %connection, error);
}
