use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    ClientSigningKey, ConnectGrant, Integration, IntegrationId, ManagedBy, ProviderId, Rejection, Tenant,
    ports::{Kind, LabelName, RecordKey},
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Aggregate, DecodeError, Labels,
    wire::{self, Exposed, malformed},
};

impl Aggregate for Integration {
    const KIND: Kind = Kind::Integration;
    type Id = IntegrationId;
    type Remembered = ();
    type Timing = ();

    fn key_of(id: &IntegrationId) -> RecordKey {
        RecordKey { tenant: Tenant::system(), kind: Self::KIND, id: id.to_string() }
    }

    fn id(&self) -> &IntegrationId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Integration {
            id,
            provider,
            issuer,
            tenant,
            client_id,
            client_secret,
            grant,
            signing_key,
            scope,
            params,
            api_hosts,
            redirect_uri,
            managed_by,
            rejection,
            created_at,
            updated_at,
        } = self;
        wire::encode(&IntegrationDto {
            id: id.clone(),
            provider: provider.clone(),
            issuer: issuer.as_deref().map(Cow::Borrowed),
            tenant: tenant.clone(),
            client_id: Cow::Borrowed(client_id),
            client_secret: client_secret.as_ref().map(Into::into),
            grant: *grant,
            signing_key: signing_key.as_ref().map(|ClientSigningKey { key, key_id, issuer }| SigningKeyDto {
                key: key.into(),
                key_id: key_id.as_deref().map(Cow::Borrowed),
                issuer: issuer.as_deref().map(Cow::Borrowed),
            }),
            scope: scope.as_deref().map(Cow::Borrowed),
            params: Cow::Borrowed(params),
            api_hosts: Cow::Borrowed(api_hosts),
            redirect_uri: redirect_uri.as_ref().map(|url| Cow::Borrowed(url.as_str())),
            managed_by: *managed_by,
            rejection: rejection.clone(),
            created_at: *created_at,
            updated_at: *updated_at,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: IntegrationDto<'_> = wire::decode(bytes)?;
        Ok(Self {
            id: dto.id,
            provider: dto.provider,
            issuer: dto.issuer.map(Cow::into_owned),
            tenant: dto.tenant,
            client_id: dto.client_id.into_owned(),
            client_secret: dto.client_secret.map(Into::into),
            grant: dto.grant,
            signing_key: dto.signing_key.map(|k| ClientSigningKey {
                key: k.key.into(),
                key_id: k.key_id.map(Cow::into_owned),
                issuer: k.issuer.map(Cow::into_owned),
            }),
            scope: dto.scope.map(Cow::into_owned),
            params: dto.params.into_owned(),
            api_hosts: dto.api_hosts.into_owned(),
            redirect_uri: dto.redirect_uri.map(|url| Url::parse(&url)).transpose().map_err(|_| malformed(0))?,
            managed_by: dto.managed_by,
            rejection: dto.rejection,
            created_at: dto.created_at,
            updated_at: dto.updated_at,
        })
    }

    fn labels(&self, _: &Labels<'_>) -> Vec<(LabelName, String)> {
        vec![(LabelName::Provider, self.provider.to_string())]
    }

    fn expires_at(&self) -> Option<Timestamp> {
        None
    }

    fn due_at(&self, (): ()) -> Option<Timestamp> {
        None
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntegrationDto<'a> {
    id: IntegrationId,
    provider: ProviderId,
    issuer: Option<Cow<'a, str>>,
    tenant: Option<Tenant>,
    client_id: Cow<'a, str>,
    #[serde(borrow)]
    client_secret: Option<Exposed<'a>>,
    grant: ConnectGrant,
    signing_key: Option<SigningKeyDto<'a>>,
    scope: Option<Cow<'a, str>>,
    params: Cow<'a, BTreeMap<String, String>>,
    api_hosts: Cow<'a, [String]>,
    redirect_uri: Option<Cow<'a, str>>,
    managed_by: ManagedBy,
    rejection: Option<Rejection>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SigningKeyDto<'a> {
    #[serde(borrow)]
    key: Exposed<'a>,
    key_id: Option<Cow<'a, str>>,
    issuer: Option<Cow<'a, str>>,
}
