//! Signing in: at a provider, whose tokens become the user's connection, or here, with an admin key.
//!
//! The way to the provider and back is that of [`crate::Connect`]; what is different is who decides whose account it
//! is: there an application names its subject, here the provider does, and what it says must hold.

mod administrator;
mod admitted;
mod identity;

use std::sync::Arc;

use tokenkeep_core::{
    ConnectionId, IntegrationId, Interaction, InteractionId, Tenant,
    authorization_request::{Obtained, ProofHash},
    grant::{Grant, User},
    interaction::{InteractionError, InteractionStage, Outbound, SignIn},
    ports::{Expect, Put},
};
use tokenkeep_oauth::{Secret, issuer::error::OAuthError, token};
use url::Url;

use self::admitted::Who;
use self::identity::Person;
use super::{
    Issuer,
    interactions::{interaction_of, misstep, state_of},
};
use crate::{
    Error,
    connect::{
        Failure, Leaving, Redeemed,
        account::{identity_of, subject_of},
        authorize_url, code_of, parse_callback, state_of_callback, wanted_scope, with_scopes,
    },
    connections::exchange,
    error::STORE_RETRY,
    integrations::Party,
};

const ATTEMPTS: usize = 8;

/// What comes of a callback that leads to no answer for the client.
#[derive(Debug, thiserror::Error)]
pub enum CameBack {
    /// It cannot be known that this browser belongs to the sign-in, or the sign-in is over: the user is told.
    #[error(transparent)]
    Page(#[from] Error),
}

/// Why nobody signed in.
enum Refusal {
    /// The provider, or what it says.
    Upstream(Failure),
    /// It is known who it is, and they may not.
    NotAdmitted,
    /// Something here.
    Ours(Error),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Issuer {
    /// Notes the user's yes, and answers where their browser goes to sign in.
    pub(super) async fn send_upstream(
        &self,
        interaction: &Interaction,
        integration: &IntegrationId,
        browser: &Secret,
    ) -> Result<Url, Error> {
        let party = self.upstream_party(integration).await?;
        let scope = self.sign_in_scope(&party)?;
        let state = state_of(&interaction.id, &self.connect.draw());
        let (pkce_verifier, nonce) = self.connect.draw_proofs(&party, scope.as_deref());
        let leaving = Leaving {
            redirect_uri: &exchange::redirect_uri(&self.shared, &party),
            scope: scope.as_deref(),
            state: &state,
            pkce_verifier: pkce_verifier.as_ref(),
            nonce: nonce.as_ref(),
        };
        let url = authorize_url(&party, &leaving)?;
        let outbound = Outbound {
            integration: integration.clone(),
            state: self.state_hash(&state),
            pkce_verifier,
            nonce,
            browser: self.connect.browser_hash(browser),
        };
        let now = self.shared.now().wall;
        let sent = outbound.state.0;
        let is_ours =
            |i: &Interaction| matches!(&i.stage, InteractionStage::SigningIn { state, .. } if state.0 == sent);
        self.proceed(&interaction.id, |i| i.approved(outbound.clone(), now), is_ours).await?;
        Ok(url)
    }

    /// Whether a callback belongs to a sign-in; else it is a connect's.
    pub fn is_ours(&self, raw: &[u8]) -> bool {
        state_of_callback(raw).is_some_and(|state| interaction_of(&state).is_some())
    }

    /// The browser came back from the provider with `raw`, a query or a form body. Answers where it goes. A code is
    /// exchanged at most once, whether or not the caller waits for the end of it.
    pub async fn came_back(&self, raw: &[u8], browser: Option<Secret>) -> Result<Secret, CameBack> {
        let state = state_of_callback(raw);
        let id = state.as_deref().and_then(interaction_of);
        let id = id.ok_or_else(|| Error::invalid("the callback has no `state` of ours"))?;
        let InteractionStage::SigningIn { integration, .. } = self.load_interaction(&id).await?.value.stage else {
            return Err(Error::not_found("interaction", id).into());
        };
        let party = self.upstream_party(&integration).await?;
        let response = parse_callback(&party, raw)?;
        // Without a cookie there is no browser that could be the right one.
        let browser = self.connect.browser_hash(&browser.unwrap_or_else(|| "".into()));
        let sign_in = self.take_sign_in(&id, self.state_hash(&response.state), browser).await?;
        let code = code_of(&party, response);
        // In a task of its own: the browser may be gone before the provider has answered.
        let this = self.clone();
        let ending = tokio::spawn(async move { this.conclude(&party, sign_in, code).await });
        match ending.await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None }.into()),
        }
    }

    /// Takes the interaction's turn to exchange its code: whoever gets it is the only one.
    async fn take_sign_in(&self, id: &InteractionId, state: ProofHash, browser: ProofHash) -> Result<SignIn, Error> {
        for _ in 0..ATTEMPTS {
            let stored = self.load_interaction(id).await?;
            let sign_in = match stored.value.came_back(state, browser, self.shared.now().wall) {
                Ok(sign_in) => sign_in,
                Err(error) => {
                    if error == InteractionError::WrongBrowser {
                        let reason = "another browser";
                        tracing::warn!(target: "audit", action = "sign_in_refused", interaction = %id, reason);
                    }
                    return Err(misstep(id, error));
                }
            };
            match self.shared.records.save(&sign_in.interaction, (), Expect::Version(&stored.version)).await? {
                Put::Committed(_) => return Ok(sign_in),
                Put::Conflict => {}
                // It may be our write that stands there, or that of a second callback: the code is not sent.
                Put::Unknown => break,
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    /// Brings a sign-in to its end, whatever that is, and answers where the browser goes.
    async fn conclude(&self, party: &Party, sign_in: SignIn, code: Result<Secret, Failure>) -> Result<Secret, Error> {
        let interaction = sign_in.interaction.clone();
        let (error, reason) = match self.finish_sign_in(party, sign_in, code).await {
            Ok(answer) => return Ok(answer),
            Err(Refusal::NotAdmitted) => {
                (OAuthError::access_denied("this account may not sign in here"), "not_admitted".to_owned())
            }
            Err(Refusal::Upstream(failure)) => (told_of(&failure), failure.code()),
            // Somebody else ended it, and answered.
            Err(Refusal::Ours(error @ Error::NotFound { .. })) => return Err(error),
            Err(Refusal::Ours(error)) => {
                tracing::error!(interaction = %interaction.id, %error, "a sign-in could not be stored");
                let text = "this server cannot store the sign-in at present; try again";
                (OAuthError::temporarily_unavailable(text), error.code().to_owned())
            }
        };
        let integration = &party.integration.id;
        tracing::warn!(
            target: "audit", action = "sign_in_refused", interaction = %interaction.id, %integration, reason,
        );
        match self.refuse(&interaction, &error, integration.as_str()).await {
            Ok(answer) => Ok(answer),
            Err(gone @ Error::NotFound { .. }) => Err(gone),
            // Nothing can come of it any more, written down or not: it cannot be taken up a second time.
            Err(_) => Ok(self.told(&interaction, &error)),
        }
    }

    async fn finish_sign_in(
        &self,
        party: &Party,
        sign_in: SignIn,
        code: Result<Secret, Failure>,
    ) -> Result<Secret, Refusal> {
        let SignIn { interaction, integration, pkce_verifier, nonce } = sign_in;
        let redirect_uri = exchange::redirect_uri(&self.shared, party).into();
        let spent = token::Grant::AuthorizationCode { code: code?, redirect_uri, verifier: pkce_verifier };
        let scope = self.sign_in_scope(party)?;
        let Redeemed { tokens, companion, id_token } = self.connect.redeem(party, &spent, scope.as_deref()).await?;
        let person = self.identify(party, tokens.as_ref(), id_token.as_ref(), nonce.as_ref()).await?;
        let subject = subject_of(&integration, &person.id)?;
        let id = ConnectionId { integration, tenant: Tenant::default_tenant(), subject: subject.clone() };
        let Person { name, email, .. } = &person;
        let obtained = Obtained { tokens, companion, display_name: name.clone().or_else(|| email.clone()) };
        if !self.settings.admitted.admits(&person.who(&subject)) {
            tracing::warn!(target: "audit", action = "sign_in_not_admitted", interaction = %interaction.id, %subject);
            self.connect.give_back(&id, &obtained).await;
            return Err(Refusal::NotAdmitted);
        }
        self.connect.patiently(|| self.connect.attach(&id, &obtained, true)).await?;
        let user = User { name: person.name, email: person.email };
        let by = id.integration.as_str();
        let grant = || {
            let (subject, user, id) = (subject.clone(), user.clone(), id.clone());
            self.grant_and_answer(&interaction, subject, user, Some(id), by)
        };
        Ok(self.connect.patiently(grant).await?)
    }

    /// What is asked for when somebody signs in: what a connect asks for, and who they are.
    fn sign_in_scope(&self, party: &Party) -> Result<Option<String>, Error> {
        let identity = identity_of(party)?;
        let scope = with_scopes(wanted_scope(party, None).as_deref(), identity.scope.as_deref());
        let organizations = identity.organizations.as_ref().filter(|_| self.settings.admitted.organizations.is_some());
        Ok(with_scopes(scope.as_deref(), organizations.and_then(|source| source.scope.as_deref())))
    }

    pub(super) async fn upstream_party(&self, integration: &IntegrationId) -> Result<Arc<Party>, Error> {
        let party = self.connections.party(integration).await?;
        let party = party.ok_or_else(|| Error::IntegrationMissing(integration.clone()))?;
        if party.integration.serves(&Tenant::default_tenant()) {
            Ok(party)
        } else {
            Err(Error::invalid("the integration to sign in with belongs to another tenant"))
        }
    }

    /// Whether whoever gave `grant` may still sign in, as far as that can be said without asking the provider: who belongs
    /// to an organisation is known at the sign-in only. What an application accepted, it has judged itself.
    pub(super) async fn is_still_admitted(&self, grant: &Grant) -> Result<bool, Error> {
        let rules = &self.settings.admitted;
        let Some(connection) = grant.connection.as_ref() else { return Ok(true) };
        let signed_in = grant.subject.as_str().starts_with(&format!("{}|", connection.integration));
        if !signed_in || rules.organizations.is_some() {
            return Ok(true);
        }
        let email = grant.user.email.as_deref();
        let who = Who { subject: &grant.subject, unique_name: None, email, organizations: &[] };
        if rules.admits(&who) {
            return Ok(true);
        }
        if !rules.admits(&Who { unique_name: grant.user.name.as_deref(), ..who }) {
            return Ok(false);
        }
        let party = self.connections.party_of(connection).await?;
        Ok(party.is_some_and(|party| identity_of(&party).is_ok_and(|identity| identity.unique_name)))
    }

    fn state_hash(&self, state: &Secret) -> ProofHash {
        ProofHash(self.shared.records.barrier().hashes().state(state))
    }
}

/// What the client is told of a failure upstream: a stable word, and no text of the provider's.
fn told_of(failure: &Failure) -> OAuthError {
    match failure {
        Failure::Denied => OAuthError::access_denied("the user, or the provider, said no"),
        Failure::Unavailable | Failure::NotYet { .. } => {
            OAuthError::temporarily_unavailable("the provider to sign in at does not answer, or not sensibly")
        }
        Failure::Client(_) | Failure::Refused(_) | Failure::Misconfigured(_) => {
            OAuthError::server_error(format!("signing in at the provider failed: {}", failure.code()))
        }
    }
}
