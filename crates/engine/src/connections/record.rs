//! A connection's record as the refresh machine reads and writes it.

use std::time::Duration;

use tokenkeep_core::{
    Connection, ConnectionId,
    ports::{Expect, Put, Version},
    refresh::{Seen, Written},
};

use crate::records::{Loaded, RecordError, Records};

/// What the record of `id` shows. A record that cannot be read is an outage, not an absence.
pub(crate) async fn read(records: &Records, id: &ConnectionId) -> Result<Seen, ()> {
    match records.load::<Connection>(id).await {
        Ok(Loaded::Absent) => Ok(Seen::Absent),
        Ok(Loaded::Deleted(tombstone)) => Ok(Seen::Deleted(tombstone.remembered, tombstone.version)),
        Ok(Loaded::Live(stored)) => Ok(Seen::Live(Box::new(stored.value), stored.version)),
        Err(error) => {
            if let RecordError::Unreadable { why, .. } = &error {
                tracing::error!(integration = %id.integration, %why, "a connection's record cannot be read");
            }
            Err(())
        }
    }
}

/// Writes it, if `expect` is what is there: nothing (a tombstone included) if `None`.
pub(crate) async fn write(
    records: &Records,
    connection: &Connection,
    margin: Duration,
    expect: Option<&Version>,
) -> Written {
    let expect = expect.map_or(Expect::Absent, Expect::Version);
    match records.save(connection, margin, expect).await {
        Ok(Put::Committed(version)) => Written::Committed(version),
        Ok(Put::Conflict) => Written::Conflict,
        Ok(Put::Unknown) => Written::Unknown,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be written");
            Written::Unavailable
        }
    }
}
