use std::{borrow::Cow, collections::BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    Client, ClientId, ClientOrigin, ClientSecretHash, Tenant,
    client::ManagementHash,
    ports::{Kind, LabelName, RecordKey},
};
use tokenkeep_oauth::issuer::{client::ClientMetadata, resource::Resource};
use zeroize::Zeroizing;

use super::{Aggregate, DecodeError, Labels, wire};

impl Aggregate for Client {
    const KIND: Kind = Kind::Client;
    type Id = ClientId;
    type Remembered = ();
    type Timing = ();

    fn key_of(id: &ClientId) -> RecordKey {
        RecordKey { tenant: Tenant::default_tenant(), kind: Self::KIND, id: id.to_string() }
    }

    fn id(&self) -> &ClientId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Client { id, metadata, secret, origin, resources, created_at, used_at } = self;
        wire::encode(&ClientDto {
            id: id.clone(),
            metadata: Cow::Borrowed(metadata),
            secret: secret.as_ref().map(Into::into),
            origin: origin.into(),
            resources: resources.clone(),
            created_at: *created_at,
            used_at: *used_at,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: ClientDto<'_> = wire::decode(bytes)?;
        Ok(Self {
            id: dto.id,
            metadata: dto.metadata.into_owned(),
            secret: dto.secret.map(Into::into),
            origin: dto.origin.into(),
            resources: dto.resources,
            created_at: dto.created_at,
            used_at: dto.used_at,
        })
    }

    fn labels(&self, _: &Labels<'_>) -> Vec<(LabelName, String)> {
        Vec::new()
    }

    fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at()
    }

    fn due_at(&self, (): ()) -> Option<Timestamp> {
        None
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientDto<'a> {
    id: ClientId,
    metadata: Cow<'a, ClientMetadata>,
    secret: Option<SecretDto<'a>>,
    origin: OriginDto,
    resources: Option<BTreeSet<Resource>>,
    created_at: Timestamp,
    used_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SecretDto<'a> {
    Keyed([u8; 32]),
    Argon2id(Cow<'a, str>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum OriginDto {
    Api,
    Config,
    Registered { management: Option<[u8; 32]> },
    Document,
}

impl<'a> From<&'a ClientSecretHash> for SecretDto<'a> {
    fn from(hash: &'a ClientSecretHash) -> Self {
        match hash {
            ClientSecretHash::Keyed(hash) => Self::Keyed(*hash),
            ClientSecretHash::Argon2id(hash) => Self::Argon2id(Cow::Borrowed(hash)),
        }
    }
}

impl From<SecretDto<'_>> for ClientSecretHash {
    fn from(dto: SecretDto<'_>) -> Self {
        match dto {
            SecretDto::Keyed(hash) => Self::Keyed(hash),
            SecretDto::Argon2id(hash) => Self::Argon2id(hash.into_owned()),
        }
    }
}

impl From<&ClientOrigin> for OriginDto {
    fn from(origin: &ClientOrigin) -> Self {
        match origin {
            ClientOrigin::Api => Self::Api,
            ClientOrigin::Config => Self::Config,
            ClientOrigin::Registered { management } => Self::Registered { management: management.map(|hash| hash.0) },
            ClientOrigin::Document => Self::Document,
        }
    }
}

impl From<OriginDto> for ClientOrigin {
    fn from(dto: OriginDto) -> Self {
        match dto {
            OriginDto::Api => Self::Api,
            OriginDto::Config => Self::Config,
            OriginDto::Registered { management } => Self::Registered { management: management.map(ManagementHash) },
            OriginDto::Document => Self::Document,
        }
    }
}
