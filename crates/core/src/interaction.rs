//! A pending authorization at our own server: from `/authorize` to the code.
//!
//! Every step consumes the interaction and gives the next, and the caller writes it back by compare-and-swap.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use tokenkeep_oauth::{
    Secret,
    issuer::{authorize::CodeChallenge, resource::Resource, scope::ScopeSet},
};

use crate::{ClientId, GrantId, IntegrationId, InteractionId, authorization_request::ProofHash};

/// How long its user has.
pub const INTERACTION_LIFE: Duration = Duration::from_mins(10);

/// What a client asked for at `/authorize`, checked, and how far its user got.
#[derive(Clone, Debug)]
pub struct Interaction {
    /// Which.
    pub id: InteractionId,
    /// Who asks.
    pub client: ClientId,
    /// Where the answer goes: one that the client registered.
    pub redirect_uri: String,
    /// The client's own, handed back with the answer.
    pub state: Option<String>,
    /// What it asks for.
    pub scope: ScopeSet,
    /// Where that may be used.
    pub resource: Resource,
    /// The clients that may then have the user's tokens at the provider (RFC 8693): the page says so.
    pub exchangers: BTreeSet<ClientId>,
    /// What the code will be bound to.
    pub challenge: CodeChallenge,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
    /// How far it got.
    pub stage: InteractionStage,
}

/// How far an interaction got.
#[derive(Clone, Debug)]
pub enum InteractionStage {
    /// The user is asked.
    Asked,
    /// The user said yes, and was sent to sign in.
    SigningIn {
        /// Where.
        integration: IntegrationId,
        /// Of the `state` that was sent along.
        state: ProofHash,
        /// The PKCE verifier (RFC 7636); `None` where the provider refuses PKCE.
        pkce_verifier: Option<Secret>,
        /// The OIDC nonce; `None` where no ID token is asked for.
        nonce: Option<Secret>,
        /// The browser that said yes: only this one may come back.
        browser: ProofHash,
    },
    /// The provider's code is being exchanged. It is good once, so this stage cannot be entered again.
    Exchanging,
    /// The code was sent.
    Granted(GrantId),
    /// The user, or a rule, said no.
    Denied,
}

/// Why a step cannot be taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InteractionError {
    /// It waited too long.
    #[error("this sign-in has expired")]
    Expired,
    /// The step was taken before, or it is not this step's turn.
    #[error("this sign-in went on already")]
    OutOfTurn,
    /// The `state` is not the one sent.
    #[error("the state is not the one this sign-in was started with")]
    WrongState,
    /// Another browser said yes.
    #[error("this sign-in belongs to another browser")]
    WrongBrowser,
}

/// What goes along when a browser is sent to sign in.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Where.
    pub integration: IntegrationId,
    /// Of the `state` parameter.
    pub state: ProofHash,
    /// The PKCE verifier.
    pub pkce_verifier: Option<Secret>,
    /// The OIDC nonce.
    pub nonce: Option<Secret>,
    /// Of the cookie that this browser gets.
    pub browser: ProofHash,
}

/// What exchanging the provider's code needs; handed out once.
#[derive(Debug)]
pub struct SignIn {
    /// The interaction, to be saved *before* the code is sent.
    pub interaction: Interaction,
    /// Where the browser comes from.
    pub integration: IntegrationId,
    /// The PKCE verifier.
    pub pkce_verifier: Option<Secret>,
    /// The nonce that the ID token must carry.
    pub nonce: Option<Secret>,
}

type Step = Result<Interaction, InteractionError>;

impl Interaction {
    /// Whether its user can still be asked.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.expires_at && matches!(self.stage, InteractionStage::Asked)
    }

    /// The user says yes and is sent to sign in. Said again, by whoever sees the page again, it begins anew.
    pub fn approved(self, outbound: Outbound, now: Timestamp) -> Step {
        self.check_time(now)?;
        match self.stage {
            InteractionStage::Asked | InteractionStage::SigningIn { .. } => {
                let Outbound { integration, state, pkce_verifier, nonce, browser } = outbound;
                Ok(self.at(InteractionStage::SigningIn { integration, state, pkce_verifier, nonce, browser }))
            }
            _ => Err(InteractionError::OutOfTurn),
        }
    }

    /// The browser came back from the provider.
    pub fn came_back(
        mut self,
        state: ProofHash,
        browser: ProofHash,
        now: Timestamp,
    ) -> Result<SignIn, InteractionError> {
        self.check_time(now)?;
        match std::mem::replace(&mut self.stage, InteractionStage::Exchanging) {
            InteractionStage::SigningIn { integration, state: sent, pkce_verifier, nonce, browser: first } => {
                if !sent.matches(&state) {
                    return Err(InteractionError::WrongState);
                }
                if !first.matches(&browser) {
                    return Err(InteractionError::WrongBrowser);
                }
                Ok(SignIn { interaction: self, integration, pkce_verifier, nonce })
            }
            _ => Err(InteractionError::OutOfTurn),
        }
    }

    /// It is known who signed in, and they may: their grant is made. Whoever went to a provider may still come in by
    /// another door; what they bring back from there is then nobody's.
    pub fn granted(self, grant: GrantId, now: Timestamp) -> Step {
        self.check_time(now)?;
        match self.stage {
            InteractionStage::Granted(_) | InteractionStage::Denied => Err(InteractionError::OutOfTurn),
            _ => Ok(self.at(InteractionStage::Granted(grant))),
        }
    }

    /// The user, or a rule, says no.
    pub fn denied(self) -> Step {
        match self.stage {
            InteractionStage::Granted(_) | InteractionStage::Denied => Err(InteractionError::OutOfTurn),
            _ => Ok(self.at(InteractionStage::Denied)),
        }
    }

    fn at(self, stage: InteractionStage) -> Self {
        Self { stage, ..self }
    }

    fn check_time(&self, now: Timestamp) -> Result<(), InteractionError> {
        if now < self.expires_at { Ok(()) } else { Err(InteractionError::Expired) }
    }
}
