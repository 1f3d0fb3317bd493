//! What a journal file is made of. Pure: bytes in, bytes out.
//!
//! A header with a salt, then frames: length, checksum, sealed bytes. The checksum covers the salt and the frame's own
//! offset, so nothing that was ever elsewhere, in this file or another, passes for a frame. A length of zero, or a
//! frame that does not check, is the end: what a crash left half written was never acknowledged.

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use tokenkeep_core::{AttemptId, ConnectionId, IntegrationId, Subject, Tenant, id::Ulid};
use zeroize::Zeroizing;

use super::Entry;

/// What each file draws anew.
pub(super) type Salt = [u8; 16];

const MAGIC: [u8; 8] = *b"tkjrnl\x00\x01";
pub(super) const HEADER_LEN: usize = MAGIC.len() + size_of::<Salt>();

const LEN_LEN: usize = 4;
const CHECKSUM_LEN: usize = 8;
pub(super) const FRAME_OVERHEAD: usize = LEN_LEN + CHECKSUM_LEN;

/// The longest sealed entry: a reply of 1 MiB, with room for what surrounds it.
pub(super) const MAX_SEALED: usize = 4 << 20;

pub(super) fn header(salt: Salt) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header[MAGIC.len()..].copy_from_slice(&salt);
    header
}

/// The salt, if this is the header of a journal in the form we write.
pub(super) fn salt_of(header: [u8; HEADER_LEN]) -> Option<Salt> {
    let (magic, salt) = header.split_at(MAGIC.len());
    (magic == MAGIC).then(|| salt.try_into().ok()).flatten()
}

pub(super) fn write_frame(out: &mut Vec<u8>, salt: &Salt, offset: u64, sealed: &[u8]) {
    let len = u32::try_from(sealed.len()).expect("no longer than MAX_SEALED");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(salt, offset, sealed));
    out.extend_from_slice(sealed);
}

/// The length and the checksum of the frame that starts with `prefix`; `None` at the end of the journal.
pub(super) fn read_prefix(prefix: [u8; FRAME_OVERHEAD]) -> Option<(usize, [u8; CHECKSUM_LEN])> {
    let (len, sum) = prefix.split_at(LEN_LEN);
    let len = usize::try_from(u32::from_le_bytes(len.try_into().ok()?)).ok()?;
    (1..=MAX_SEALED).contains(&len).then_some((len, sum.try_into().ok()?))
}

pub(super) fn checksum(salt: &Salt, offset: u64, sealed: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(&offset.to_le_bytes());
    context.update(sealed);
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM_LEN]);
    sum
}

/// An entry before it is sealed.
pub(super) fn encode_entry(id: &ConnectionId, attempt: AttemptId, at: Timestamp, payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let parts = [id.integration.as_str(), id.tenant.as_str(), id.subject.as_str()];
    let names: usize = parts.iter().map(|part| 2 + part.len()).sum();
    let mut bytes = Zeroizing::new(Vec::with_capacity(24 + names + payload.len()));
    bytes.extend_from_slice(&attempt.0.to_bytes());
    bytes.extend_from_slice(&at.as_millisecond().to_le_bytes());
    for part in parts {
        let len = u16::try_from(part.len()).expect("identifiers have at most 255 characters");
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes back what [`encode_entry`] gave.
pub(super) fn decode_entry(bytes: &[u8]) -> Option<Entry> {
    let (attempt, rest) = bytes.split_first_chunk()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (integration, rest) = take_name(rest)?;
    let (tenant, rest) = take_name(rest)?;
    let (subject, payload) = take_name(rest)?;
    Some(Entry {
        connection: ConnectionId {
            integration: IntegrationId::new(integration).ok()?,
            tenant: Tenant::from_stored(tenant).ok()?,
            subject: Subject::new(subject).ok()?,
        },
        attempt: AttemptId(Ulid::from_bytes(*attempt)),
        recorded_at: Timestamp::from_millisecond(i64::from_le_bytes(*at)).ok()?,
        payload: Zeroizing::new(payload.to_vec()),
    })
}

fn take_name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}
