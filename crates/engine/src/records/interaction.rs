use std::{borrow::Cow, collections::BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    ClientId, GrantId, IntegrationId, Interaction, InteractionId, Tenant,
    authorization_request::ProofHash,
    interaction::InteractionStage,
    ports::{Kind, LabelName, RecordKey},
};
use tokenkeep_oauth::issuer::{authorize::CodeChallenge, resource::Resource, scope::ScopeSet};
use zeroize::Zeroizing;

use super::{
    Aggregate, DecodeError, Labels,
    wire::{self, Exposed, malformed},
};

impl Aggregate for Interaction {
    const KIND: Kind = Kind::Interaction;
    type Id = InteractionId;
    type Remembered = ();
    type Timing = ();

    fn key_of(id: &InteractionId) -> RecordKey {
        RecordKey { tenant: Tenant::default_tenant(), kind: Self::KIND, id: id.to_string() }
    }

    fn id(&self) -> &InteractionId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Interaction {
            id,
            client,
            redirect_uri,
            state,
            scope,
            resource,
            exchangers,
            challenge,
            created_at,
            expires_at,
            stage,
        } = self;
        wire::encode(&InteractionDto {
            id: *id,
            client: client.clone(),
            redirect_uri: Cow::Borrowed(redirect_uri),
            state: state.as_deref().map(Cow::Borrowed),
            scope: scope.clone(),
            resource: resource.clone(),
            exchangers: exchangers.clone(),
            challenge: Cow::Borrowed(challenge.as_str()),
            created_at: *created_at,
            expires_at: *expires_at,
            stage: stage.into(),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: InteractionDto<'_> = wire::decode(bytes)?;
        Ok(Self {
            id: dto.id,
            client: dto.client,
            redirect_uri: dto.redirect_uri.into_owned(),
            state: dto.state.map(Cow::into_owned),
            scope: dto.scope,
            resource: dto.resource,
            exchangers: dto.exchangers,
            challenge: CodeChallenge::parse(&dto.challenge).map_err(|_| malformed(0))?,
            created_at: dto.created_at,
            expires_at: dto.expires_at,
            stage: dto.stage.into(),
        })
    }

    fn labels(&self, _: &Labels<'_>) -> Vec<(LabelName, String)> {
        Vec::new()
    }

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.expires_at)
    }

    fn due_at(&self, (): ()) -> Option<Timestamp> {
        None
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InteractionDto<'a> {
    id: InteractionId,
    client: ClientId,
    redirect_uri: Cow<'a, str>,
    state: Option<Cow<'a, str>>,
    scope: ScopeSet,
    resource: Resource,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    exchangers: BTreeSet<ClientId>,
    challenge: Cow<'a, str>,
    created_at: Timestamp,
    expires_at: Timestamp,
    #[serde(borrow)]
    stage: StageDto<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StageDto<'a> {
    Asked,
    SigningIn {
        integration: IntegrationId,
        state: ProofHash,
        #[serde(borrow)]
        pkce_verifier: Option<Exposed<'a>>,
        #[serde(borrow)]
        nonce: Option<Exposed<'a>>,
        browser: ProofHash,
    },
    Exchanging,
    Granted(GrantId),
    Denied,
}

impl<'a> From<&'a InteractionStage> for StageDto<'a> {
    fn from(stage: &'a InteractionStage) -> Self {
        match stage {
            InteractionStage::Asked => Self::Asked,
            InteractionStage::SigningIn { integration, state, pkce_verifier, nonce, browser } => Self::SigningIn {
                integration: integration.clone(),
                state: *state,
                pkce_verifier: pkce_verifier.as_ref().map(Into::into),
                nonce: nonce.as_ref().map(Into::into),
                browser: *browser,
            },
            InteractionStage::Exchanging => Self::Exchanging,
            InteractionStage::Granted(grant) => Self::Granted(*grant),
            InteractionStage::Denied => Self::Denied,
        }
    }
}

impl From<StageDto<'_>> for InteractionStage {
    fn from(dto: StageDto<'_>) -> Self {
        match dto {
            StageDto::Asked => Self::Asked,
            StageDto::SigningIn { integration, state, pkce_verifier, nonce, browser } => Self::SigningIn {
                integration,
                state,
                pkce_verifier: pkce_verifier.map(Into::into),
                nonce: nonce.map(Into::into),
                browser,
            },
            StageDto::Exchanging => Self::Exchanging,
            StageDto::Granted(grant) => Self::Granted(grant),
            StageDto::Denied => Self::Denied,
        }
    }
}
