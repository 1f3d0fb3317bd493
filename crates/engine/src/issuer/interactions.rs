//! Pending authorizations: each is one record, and every step of it one compare-and-swap. Where an application brings
//! its own pages, it looks at them and answers them here.

use std::collections::BTreeSet;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{
    Action, ClientId, ConnectionId, Interaction, InteractionId, Subject, Tenant,
    grant::User,
    interaction::{InteractionError, InteractionStage},
    ports::{Expect, Put},
};
use tokenkeep_oauth::{
    ErrorCode, Secret,
    issuer::{
        authorize::{build_error, build_success},
        error::OAuthError,
        redirect_uri::shown_host,
        resource::Resource,
        scope::ScopeSet,
    },
};

use super::Issuer;
use crate::{
    Caller, Error,
    error::STORE_RETRY,
    records::{Loaded, Stored},
};

const ATTEMPTS: usize = 8;
/// The longest description that is handed on to a client.
const MAX_DESCRIPTION: usize = 200;
const MAX_TEXT: usize = 255;

/// A pending authorization, for the application that asks its user.
#[derive(Clone, Debug)]
pub struct InteractionView {
    /// Which.
    pub id: InteractionId,
    /// Who asks.
    pub client: ClientId,
    /// What it calls itself. Anybody may claim any name.
    pub client_name: Option<String>,
    /// Where the answer goes.
    pub redirect_host: String,
    /// What is asked for.
    pub scope: ScopeSet,
    /// Where that may be used.
    pub resource: Resource,
    /// What that is called.
    pub resource_name: Option<String>,
    /// The clients that ask to use the user's account at the provider, and to have its tokens.
    pub exchangers: BTreeSet<ClientId>,
    /// How far it got.
    pub status: InteractionStatus,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
}

/// How far a pending authorization got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InteractionStatus {
    /// Its user is asked, or signs in.
    Pending,
    /// The code was sent.
    Granted,
    /// The user, or a rule, said no.
    Denied,
    /// Nobody did anything in time.
    Expired,
}

impl InteractionStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

/// What an application says of who consented.
#[derive(Clone, Debug)]
pub struct Accept {
    /// Who.
    pub subject: Subject,
    /// What to call them.
    pub name: Option<String>,
    /// Their address, vouched for by the application.
    pub email: Option<String>,
    /// What of the scope was allowed; `None` = all of it.
    pub scope: Option<ScopeSet>,
    /// The tokens at a provider that go with it.
    pub connection: Option<ConnectionId>,
    /// Those of [`InteractionView::exchangers`] that were allowed to have them.
    pub exchangers: BTreeSet<ClientId>,
}

/// Why an application says no.
#[derive(Clone, Debug, Default)]
pub struct Reject {
    /// A word of the registry's; `None` = `access_denied`.
    pub error: Option<String>,
    /// A sentence for the developer of the client.
    pub description: Option<String>,
}

/// What an application may tell a client.
const REJECTIONS: [ErrorCode; 7] = [
    ErrorCode::ACCESS_DENIED,
    ErrorCode::LOGIN_REQUIRED,
    ErrorCode::CONSENT_REQUIRED,
    ErrorCode::INTERACTION_REQUIRED,
    ErrorCode::ACCOUNT_SELECTION_REQUIRED,
    ErrorCode::TEMPORARILY_UNAVAILABLE,
    ErrorCode::SERVER_ERROR,
];

impl Issuer {
    /// A pending authorization. It is forgotten some minutes after its time.
    pub async fn interaction(&self, caller: &Caller, id: &InteractionId) -> Result<InteractionView, Error> {
        check_caller(caller)?;
        let interaction = self.load_interaction(id).await?.value;
        let client = self.client(interaction.client.as_str()).await?;
        let status = match &interaction.stage {
            InteractionStage::Granted(_) => InteractionStatus::Granted,
            InteractionStage::Denied => InteractionStatus::Denied,
            _ if self.shared.now().wall < interaction.expires_at => InteractionStatus::Pending,
            _ => InteractionStatus::Expired,
        };
        Ok(InteractionView {
            id: *id,
            client_name: client.and_then(|client| client.metadata.client_name.clone()),
            client: interaction.client,
            redirect_host: shown_host(&interaction.redirect_uri),
            scope: interaction.scope,
            resource_name: self.settings.resource(&interaction.resource).and_then(|known| known.name.clone()),
            resource: interaction.resource,
            exchangers: interaction.exchangers,
            status,
            created_at: interaction.created_at,
            expires_at: interaction.expires_at,
        })
    }

    /// The application's user said yes. Answers where it must send the browser. The application has judged who may:
    /// the rules for those who sign in here are not asked.
    pub async fn accept(&self, caller: &Caller, id: &InteractionId, accept: Accept) -> Result<Secret, Error> {
        self.check_answers_are_taken(caller)?;
        let mut interaction = self.open_interaction(id).await?;
        let Accept { subject, name, email, scope, connection, exchangers } = accept;
        if let Some(scope) = scope {
            if !scope.is_subset(&interaction.scope) {
                return Err(Error::invalid("`scope` goes beyond what the client asked for"));
            }
            interaction.scope = scope;
        }
        if [&name, &email].into_iter().flatten().any(|text| !is_sane(text)) {
            return Err(Error::invalid("`name` and `email` are texts of up to 255 printable characters"));
        }
        if !exchangers.is_subset(&interaction.exchangers) {
            return Err(Error::invalid("`exchangers` names a client that did not ask for it"));
        }
        if connection.is_none() && !exchangers.is_empty() {
            return Err(Error::invalid("`exchangers` needs the `connection` whose tokens these clients may have"));
        }
        interaction.exchangers = exchangers;
        if let Some(connection) = &connection {
            caller.may_at(Action::AnswerInteractions, &connection.integration, &connection.tenant)?;
            if self.connections.load(connection).await?.is_none() {
                return Err(Error::not_found("connection", connection));
            }
        }
        self.grant_and_answer(&interaction, subject, User { name, email }, connection, &caller.name()).await
    }

    /// The application's user, or the application, said no. Answers where it must send the browser.
    pub async fn reject(&self, caller: &Caller, id: &InteractionId, reject: Reject) -> Result<Secret, Error> {
        self.check_answers_are_taken(caller)?;
        let code = reject.error.as_deref().map_or(ErrorCode::ACCESS_DENIED, ErrorCode::from_wire);
        if !REJECTIONS.contains(&code) {
            return Err(Error::invalid("`error` is none that a user's answer can lead to, as `access_denied` is"));
        }
        let description = reject.description.unwrap_or_else(|| "the user said no".to_owned());
        // RFC 6749 4.1.2.1.
        let fits = |b: u8| (b.is_ascii_graphic() || b == b' ') && b != b'"' && b != b'\\';
        if description.len() > MAX_DESCRIPTION || !description.bytes().all(fits) {
            return Err(Error::invalid("`description` is a text of up to 200 ASCII characters, without quotes"));
        }
        let interaction = self.open_interaction(id).await?;
        let error = OAuthError { code, description: description.into() };
        self.refuse(&interaction, &error, &caller.name()).await
    }

    /// Nobody goes around the consent page where we are the ones who ask.
    fn check_answers_are_taken(&self, caller: &Caller) -> Result<(), Error> {
        check_caller(caller)?;
        if self.settings.interaction_url.is_some() {
            return Ok(());
        }
        Err(Error::invalid(
            "this server asks its users itself: set `[issuer] interaction_url` to bring pages of your own",
        ))
    }

    /// Makes the grant, then ends the interaction with it: of several that try at once, one gets to hand its code out.
    /// Answers where the browser goes.
    pub(super) async fn grant_and_answer(
        &self,
        interaction: &Interaction,
        subject: Subject,
        user: User,
        connection: Option<ConnectionId>,
        by: &str,
    ) -> Result<Secret, Error> {
        let shown = subject.clone();
        let (grant, code) = self.grant_code(interaction, subject, user, connection).await?;
        let now = self.shared.now().wall;
        let is_ours = |i: &Interaction| matches!(i.stage, InteractionStage::Granted(found) if found == grant);
        self.proceed(&interaction.id, |i| i.granted(grant, now), is_ours).await?;
        tracing::info!(
            target: "audit", action = "grant_made", by, grant = %grant, client = %interaction.client, subject = %shown,
            scope = %interaction.scope, resource = %interaction.resource,
        );
        let (redirect_uri, state) = (&interaction.redirect_uri, interaction.state.as_deref());
        Ok(build_success(redirect_uri, &code, state, self.settings.url.as_str()))
    }

    /// Ends the interaction without a grant. Answers where the browser goes.
    pub(super) async fn refuse(
        &self,
        interaction: &Interaction,
        error: &OAuthError,
        by: &str,
    ) -> Result<Secret, Error> {
        let is_over = |i: &Interaction| matches!(i.stage, InteractionStage::Denied);
        self.proceed(&interaction.id, Interaction::denied, is_over).await?;
        tracing::info!(
            target: "audit", action = "authorization_refused", by, interaction = %interaction.id,
            client = %interaction.client, error = %error.code,
        );
        Ok(self.told(interaction, error))
    }

    /// Where the browser goes with `error`.
    pub(super) fn told(&self, interaction: &Interaction, error: &OAuthError) -> Secret {
        build_error(&interaction.redirect_uri, error, interaction.state.as_deref(), self.settings.url.as_str())
    }

    pub(super) async fn load_interaction(&self, id: &InteractionId) -> Result<Stored<Interaction>, Error> {
        match self.shared.records.load::<Interaction>(id).await.map_err(Error::reading("interaction"))? {
            Loaded::Live(stored) => Ok(stored),
            Loaded::Absent | Loaded::Deleted(_) => Err(Error::not_found("interaction", id)),
        }
    }

    /// The interaction, if its user can still answer.
    pub(super) async fn open_interaction(&self, id: &InteractionId) -> Result<Interaction, Error> {
        let interaction = self.load_interaction(id).await?.value;
        let in_time = self.shared.now().wall < interaction.expires_at;
        match interaction.stage {
            InteractionStage::Asked | InteractionStage::SigningIn { .. } if in_time => Ok(interaction),
            _ => Err(Error::not_found("interaction", id)),
        }
    }

    /// Brings an interaction to its next stage, whatever was written meanwhile. `done` recognises the stage where the
    /// store's answer was lost.
    pub(super) async fn proceed(
        &self,
        id: &InteractionId,
        step: impl Fn(Interaction) -> Result<Interaction, InteractionError>,
        done: impl Fn(&Interaction) -> bool,
    ) -> Result<Interaction, Error> {
        let mut tried = false;
        for _ in 0..ATTEMPTS {
            let stored = self.load_interaction(id).await?;
            if tried && done(&stored.value) {
                return Ok(stored.value);
            }
            let next = step(stored.value).map_err(|error| misstep(id, error))?;
            match self.shared.records.save(&next, (), Expect::Version(&stored.version)).await? {
                Put::Committed(_) => return Ok(next),
                Put::Conflict => {}
                Put::Unknown => tried = true,
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }
}

fn check_caller(caller: &Caller) -> Result<(), Error> {
    caller.may_in(Action::AnswerInteractions, &Tenant::default_tenant())
}

/// Whether a text about a person can stand in a token and in a header.
pub(super) fn is_sane(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control)
}

/// Why a step cannot be taken. Who has no right to know of an interaction is told that there is none.
pub(super) fn misstep(id: &InteractionId, error: InteractionError) -> Error {
    match error {
        InteractionError::Expired | InteractionError::OutOfTurn | InteractionError::WrongState => {
            Error::not_found("interaction", id)
        }
        InteractionError::WrongBrowser => Error::Forbidden(
            "this sign-in was begun in another browser, or this one keeps no cookies: start again".into(),
        ),
    }
}

/// `i{interaction}.{secret}`: what tells the `state` of a sign-in from that of a connect.
pub(super) fn state_of(id: &InteractionId, secret: &Secret) -> Secret {
    format!("i{id}.{}", secret.expose_secret()).into()
}

/// The interaction that a `state` names.
pub(super) fn interaction_of(state: &str) -> Option<InteractionId> {
    let (id, secret) = state.strip_prefix('i')?.split_once('.')?;
    (secret.len() == 43).then(|| id.parse().ok())?
}
