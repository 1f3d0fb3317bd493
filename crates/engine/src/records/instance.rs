use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    InstanceId, Tenant,
    ports::{Kind, LabelName, RecordKey},
};
use zeroize::Zeroizing;

use super::{Aggregate, DecodeError, Labels, wire};
use crate::instances::{Instance, InstancePhase, Parting, Process};

impl Aggregate for Instance {
    const KIND: Kind = Kind::Instance;
    type Id = InstanceId;
    type Remembered = Parting;
    type Timing = ();

    fn key_of(id: &InstanceId) -> RecordKey {
        RecordKey { tenant: Tenant::system(), kind: Self::KIND, id: id.to_string() }
    }

    fn id(&self) -> &InstanceId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Instance { id, process, journal, started_at, last_seen_at, phase, uncommitted } = self;
        wire::encode(&InstanceDto {
            id: *id,
            host: Cow::Borrowed(&process.host),
            process_id: process.id,
            version: Cow::Borrowed(&process.version),
            address: process.address.as_deref().map(Cow::Borrowed),
            journal: journal.as_deref().map(Cow::Borrowed),
            started_at: *started_at,
            last_seen_at: *last_seen_at,
            phase: *phase,
            uncommitted: *uncommitted,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: InstanceDto<'_> = wire::decode(bytes)?;
        Ok(Self {
            id: dto.id,
            process: Process {
                host: dto.host.into_owned(),
                id: dto.process_id,
                version: dto.version.into_owned(),
                address: dto.address.map(Cow::into_owned),
            },
            journal: dto.journal.map(Cow::into_owned),
            started_at: dto.started_at,
            last_seen_at: dto.last_seen_at,
            phase: dto.phase,
            uncommitted: dto.uncommitted,
        })
    }

    fn labels(&self, _: &Labels<'_>) -> Vec<(LabelName, String)> {
        Vec::new()
    }

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.expires_at())
    }

    fn due_at(&self, (): ()) -> Option<Timestamp> {
        None
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstanceDto<'a> {
    id: InstanceId,
    host: Cow<'a, str>,
    process_id: u32,
    version: Cow<'a, str>,
    address: Option<Cow<'a, str>>,
    journal: Option<Cow<'a, str>>,
    started_at: Timestamp,
    last_seen_at: Timestamp,
    phase: InstancePhase,
    uncommitted: u64,
}
