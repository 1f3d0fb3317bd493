use std::{borrow::Cow, collections::BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    ApiKey, ApiKeyHash, ApiKeyId, IntegrationId, ManagedBy, Role, Tenant,
    ports::{Kind, LabelName, RecordKey},
};
use zeroize::Zeroizing;

use super::{Aggregate, DecodeError, Labels, wire};

impl Aggregate for ApiKey {
    const KIND: Kind = Kind::ApiKey;
    type Id = ApiKeyId;
    type Remembered = ();
    type Timing = ();

    fn key_of(id: &ApiKeyId) -> RecordKey {
        RecordKey { tenant: Tenant::system(), kind: Self::KIND, id: id.to_string() }
    }

    fn id(&self) -> &ApiKeyId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let ApiKey { id, name, role, tenants, providers, hash, managed_by, created_at } = self;
        wire::encode(&ApiKeyDto {
            id: *id,
            name: Cow::Borrowed(name),
            role: *role,
            tenants: tenants.clone(),
            providers: providers.clone(),
            hash: *hash,
            managed_by: *managed_by,
            created_at: *created_at,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: ApiKeyDto<'_> = wire::decode(bytes)?;
        Ok(Self {
            id: dto.id,
            name: dto.name.into_owned(),
            role: dto.role,
            tenants: dto.tenants,
            providers: dto.providers,
            hash: dto.hash,
            managed_by: dto.managed_by,
            created_at: dto.created_at,
        })
    }

    fn labels(&self, _: &Labels<'_>) -> Vec<(LabelName, String)> {
        Vec::new()
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
struct ApiKeyDto<'a> {
    id: ApiKeyId,
    name: Cow<'a, str>,
    role: Role,
    tenants: Option<BTreeSet<Tenant>>,
    providers: Option<BTreeSet<IntegrationId>>,
    hash: ApiKeyHash,
    managed_by: ManagedBy,
    created_at: Timestamp,
}
