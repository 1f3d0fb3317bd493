use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    SigningKey, SigningKeys, Tenant,
    ports::{Kind, LabelName, RecordKey},
    signing_keys::KeyPhase,
};
use tokenkeep_oauth::issuer::{jws::Algorithm, resource::Resource};
use zeroize::Zeroizing;

use super::{
    Aggregate, DecodeError, Labels,
    wire::{self, Exposed, malformed},
};

impl Aggregate for SigningKeys {
    const KIND: Kind = Kind::SigningKeys;
    /// There is one record.
    type Id = ();
    type Remembered = ();
    type Timing = ();

    fn key_of((): &()) -> RecordKey {
        RecordKey { tenant: Tenant::system(), kind: Self::KIND, id: "issuer".to_owned() }
    }

    fn id(&self) -> &() {
        &()
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let texts: Vec<_> =
            self.keys.iter().map(|key| Zeroizing::new(BASE64_STANDARD_NO_PAD.encode(&*key.stored))).collect();
        let keys = self.keys.iter().zip(&texts).map(|(key, stored)| KeyDto {
            kid: Cow::Borrowed(&key.kid),
            algorithm: Cow::Borrowed(key.algorithm.as_str()),
            resource: key.resource.clone(),
            stored: Exposed::from(stored.as_str()),
            created_at: key.created_at,
            phase: key.phase.into(),
        });
        wire::encode(&KeysDto { keys: keys.collect() })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: KeysDto<'_> = wire::decode(bytes)?;
        let key = |dto: KeyDto<'_>| {
            Some(SigningKey {
                kid: dto.kid.into_owned(),
                algorithm: Algorithm::parse(&dto.algorithm)?,
                resource: dto.resource,
                stored: Zeroizing::new(BASE64_STANDARD_NO_PAD.decode(dto.stored.text()).ok()?),
                created_at: dto.created_at,
                phase: dto.phase.into(),
            })
        };
        let keys: Option<_> = dto.keys.into_iter().map(key).collect();
        Ok(Self { keys: keys.ok_or_else(|| malformed(0))? })
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
struct KeysDto<'a> {
    #[serde(borrow)]
    keys: Vec<KeyDto<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyDto<'a> {
    kid: Cow<'a, str>,
    algorithm: Cow<'a, str>,
    resource: Option<Resource>,
    #[serde(borrow)]
    stored: Exposed<'a>,
    created_at: Timestamp,
    phase: PhaseDto,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseDto {
    Next,
    Active,
    Retiring { until: Timestamp },
}

impl From<KeyPhase> for PhaseDto {
    fn from(phase: KeyPhase) -> Self {
        match phase {
            KeyPhase::Next => Self::Next,
            KeyPhase::Active => Self::Active,
            KeyPhase::Retiring { until } => Self::Retiring { until },
        }
    }
}

impl From<PhaseDto> for KeyPhase {
    fn from(dto: PhaseDto) -> Self {
        match dto {
            PhaseDto::Next => Self::Next,
            PhaseDto::Active => Self::Active,
            PhaseDto::Retiring { until } => Self::Retiring { until },
        }
    }
}
