//! A record as one Redis string: a line in plain text, which the scripts read, and the bytes it measures.
//!
//! ```text
//! tk1 {version} {changed_at} {expires_at} {due_at} {L|D} {sealed_by} {provider} {subject} {connection}\n
//! ```
//! Times are microseconds since 1970-01-01 UTC. `L` is a living record, `D` a tombstone. The last four are lengths in
//! bytes, of the key id and of the labels that follow the line in that order; what then follows is sealed. `-` stands
//! where there is none.

use jiff::Timestamp;
use tokenkeep_core::ports::{LabelName, Record, RecordKey, SealingKeyId, StoreError, Version};

use crate::page::from_microseconds;

const FORMAT: &str = "tk1";

/// Whether a record is to live or is a tombstone that is kept so long.
#[derive(Clone, Copy)]
pub(super) enum Life {
    Living,
    Dead(Timestamp),
}

/// What is stored for `record`, under the version `version`.
pub(super) fn pack(record: &Record, version: &str, life: Life) -> Vec<u8> {
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".into(), |at| at.as_microsecond().to_string());
    let (expires_at, due_at, mark) = match life {
        Life::Living => (record.expires_at, record.due_at, 'L'),
        Life::Dead(until) => (Some(until), None, 'D'),
    };
    let labels = LabelName::ALL.map(|name| match life {
        Life::Living => record.labels.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str()),
        Life::Dead(_) => None,
    });
    let mut line = format!(
        "{FORMAT} {version} {} {} {} {mark} {}",
        record.changed_at.as_microsecond(),
        time(expires_at),
        time(due_at),
        record.sealed_by.0.len(),
    );
    for label in labels {
        line.push(' ');
        line.push_str(&label.map_or_else(|| "-".into(), |value| value.len().to_string()));
    }
    line.push('\n');
    let mut packed = line.into_bytes();
    packed.extend_from_slice(record.sealed_by.0.as_bytes());
    for label in labels.into_iter().flatten() {
        packed.extend_from_slice(label.as_bytes());
    }
    packed.extend_from_slice(&record.sealed);
    packed
}

/// The record that stands at `key`.
pub(super) fn unpack(key: RecordKey, packed: &[u8]) -> Result<Record, StoreError> {
    read(key, packed).ok_or_else(|| StoreError::Corrupt { reason: "a value of no known form".into() })
}

fn read(key: RecordKey, packed: &[u8]) -> Option<Record> {
    let end = packed.iter().position(|byte| *byte == b'\n')?;
    let (line, mut rest) = (std::str::from_utf8(&packed[..end]).ok()?, &packed[end + 1..]);
    let mut words = line.split(' ');
    let mut word = || words.next();
    let time = |word: &str| from_microseconds(word.parse().ok()?);
    let optional_time = |word: &str| if word == "-" { Some(None) } else { time(word).map(Some) };
    if word()? != FORMAT {
        return None;
    }
    let version = Version(word()?.to_owned());
    let changed_at = time(word()?)?;
    let (expires_at, due_at) = (optional_time(word()?)?, optional_time(word()?)?);
    let deleted = match word()? {
        "L" => false,
        "D" => true,
        _ => return None,
    };
    let mut take = |length: &str| {
        let (text, behind) = rest.split_at_checked(length.parse().ok()?)?;
        rest = behind;
        String::from_utf8(text.to_vec()).ok()
    };
    let sealed_by = SealingKeyId(take(word()?)?);
    let mut labels = Vec::new();
    for name in LabelName::ALL {
        match word()? {
            "-" => {}
            length => labels.push((name, take(length)?)),
        }
    }
    Some(Record { key, version, changed_at, expires_at, due_at, labels, sealed_by, sealed: rest.to_vec(), deleted })
}

#[cfg(test)]
mod tests {
    use tokenkeep_core::{Tenant, ports::Kind};

    use super::*;

    fn record() -> Record {
        Record {
            key: RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: "a".into() },
            version: Version("v-1".into()),
            changed_at: Timestamp::MIN,
            expires_at: Some(Timestamp::UNIX_EPOCH),
            due_at: None,
            labels: vec![(LabelName::Provider, String::new()), (LabelName::Connection, "1 2\n".into())],
            sealed_by: SealingKeyId("k 1".into()),
            sealed: b"\n\0-".to_vec(),
            deleted: false,
        }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let packed = pack(&record(), "v-1", Life::Living);
        assert_eq!(unpack(record().key, &packed).unwrap(), record());
        let dead = unpack(record().key, &pack(&record(), "v-2", Life::Dead(Timestamp::UNIX_EPOCH))).unwrap();
        assert!(dead.deleted && dead.labels.is_empty() && dead.due_at.is_none());
        assert_eq!((dead.version, dead.sealed), (Version("v-2".into()), record().sealed));
    }

    #[test]
    fn what_is_cut_off_or_foreign_is_no_record() {
        let packed = pack(&record(), "v-1", Life::Living);
        let after_the_labels = packed.len() - record().sealed.len();
        for length in 0..after_the_labels {
            assert!(unpack(record().key, &packed[..length]).is_err(), "{length} bytes of it");
        }
        for foreign in ["", "\n", "{\"access_token\":\"x\"}", "tk2 v 0 - - L 0 - - -\n", "tk1 v 0 - - X 0 - - -\n"] {
            assert!(unpack(record().key, foreign.as_bytes()).is_err(), "{foreign:?}");
        }
    }
}
