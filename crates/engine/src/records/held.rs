//! A reply that is kept outside the store: in a journal, or in the shared cache.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{AttemptId, Fingerprint, Generation, refresh::Held};
use zeroize::Zeroizing;

use super::{DecodeError, connection::ConnectionDto, wire};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldDto<'a> {
    attempt: AttemptId,
    base: Generation,
    spent: Fingerprint,
    #[serde(borrow)]
    successor: ConnectionDto<'a>,
    received_at: Timestamp,
}

/// The bytes of `held`, secrets included.
pub fn encode_held(held: &Held) -> Zeroizing<Vec<u8>> {
    let Held { attempt, base, spent, successor, received_at } = held;
    wire::encode(&HeldDto {
        attempt: *attempt,
        base: *base,
        spent: *spent,
        successor: successor.into(),
        received_at: *received_at,
    })
}

/// Takes back what [`encode_held`] gave.
pub fn decode_held(bytes: &[u8]) -> Result<Held, DecodeError> {
    let dto: HeldDto<'_> = wire::decode(bytes)?;
    Ok(Held {
        attempt: dto.attempt,
        base: dto.base,
        spent: dto.spent,
        successor: dto.successor.into(),
        received_at: dto.received_at,
    })
}
