//! What a process that is gone had made durable: its journal, read with the key of all instances.

use std::{collections::HashMap, path::Path, sync::Arc};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{InstanceId, id::Ulid};
use tokenkeep_engine::{
    barrier::{Barrier, RootKey},
    journal::adopt,
    records::decode_held,
    system::SystemEntropy,
};

use super::fleet::SEALING_KEY;

/// A reply that lies in a journal.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The connection's number.
    pub number: usize,
    /// The attempt that brought it.
    pub attempt: String,
    /// The access token that came with it.
    pub access_token: String,
}

/// Every reply in the journals below `data_dir`, whose process must have ended. A copy is read: nothing is adopted.
pub fn read(data_dir: &Path) -> anyhow::Result<Vec<Kept>> {
    let copy = tempfile::tempdir()?;
    let journal = data_dir.join("journal");
    if !journal.is_dir() {
        return Ok(Vec::new());
    }
    for entry in std::fs::read_dir(&journal)? {
        let path = entry?.path();
        std::fs::copy(&path, copy.path().join(path.file_name().context("a file has a name")?))?;
    }
    let barrier = Arc::new(Barrier::new(&RootKey::parse(SEALING_KEY)?, &[], Arc::new(SystemEntropy)));
    let mut kept = Vec::new();
    for mut abandoned in adopt(copy.path(), InstanceId(Ulid::nil()), &barrier)?.abandoned {
        while let Some(entry) = abandoned.next_entry()? {
            let held = decode_held(&entry.payload)?;
            let number = entry.connection.subject.as_str().trim_start_matches("s-").parse()?;
            let access = held.successor.tokens.access.context("a kept reply has an access token")?;
            kept.push(Kept {
                number,
                attempt: entry.attempt.0.to_string(),
                access_token: access.token.expose_secret().to_owned(),
            });
        }
    }
    Ok(kept)
}

/// The newest of each connection.
pub fn by_number(kept: impl IntoIterator<Item = Kept>) -> HashMap<usize, Vec<Kept>> {
    let mut map: HashMap<usize, Vec<Kept>> = HashMap::new();
    for kept in kept {
        map.entry(kept.number).or_default().push(kept);
    }
    map
}
