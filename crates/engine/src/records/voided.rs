use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    Tenant, Voided,
    ports::{Kind, LabelName, RecordKey},
    voided::VoidedId,
};
use zeroize::Zeroizing;

use super::{Aggregate, DecodeError, Labels, wire};

impl Aggregate for Voided {
    const KIND: Kind = Kind::Voided;
    type Id = VoidedId;
    type Remembered = ();
    type Timing = ();

    fn key_of(id: &VoidedId) -> RecordKey {
        RecordKey { tenant: Tenant::default_tenant(), kind: Self::KIND, id: id.as_str().to_owned() }
    }

    fn id(&self) -> &VoidedId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Voided { id, expires_at, issued_until } = self;
        let id = Cow::Borrowed(id.as_str());
        wire::encode(&VoidedDto { id, expires_at: *expires_at, issued_until: *issued_until })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: VoidedDto<'_> = wire::decode(bytes)?;
        Ok(Self { id: VoidedId::from_stored(&dto.id), expires_at: dto.expires_at, issued_until: dto.issued_until })
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
struct VoidedDto<'a> {
    id: Cow<'a, str>,
    expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_until: Option<Timestamp>,
}
