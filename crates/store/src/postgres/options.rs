//! What a database is opened with.

use std::{fmt, time::Duration};

use secrecy::SecretString;

/// How to reach a PostgreSQL database, and how much to ask of it.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=...`, in the words of libpq. What
    /// it leaves out is taken from libpq's own variables (`PGPASSWORD`, `PGSSLMODE`) and password file.
    pub url: SecretString,
    /// Connections of this process at most. A statement here takes about a millisecond, so ten of them answer some
    /// thousands of calls a second; and a server with its usual limit of 100 has room for nine such processes.
    pub pool_size: u32,
    /// How long opening may take, first connection and checks together.
    pub connect_timeout: Duration,
    /// How long a call waits for a connection, be it one of the pool or a new one.
    pub acquire_timeout: Duration,
    /// How long the server may work on one statement. A second later its answer is not waited for any more.
    pub statement_timeout: Duration,
    /// Whether a pooler in transaction mode (pgbouncer) stands between. `None`: found out when opening, which every
    /// pooler allows that either refuses or forgets the settings a session starts with.
    pub pooled: Option<bool>,
    /// Into how many partitions the table of records is hashed when it is made: 0 for none, at most 256. It plays no
    /// part once the table is there.
    pub partitions: u16,
    /// What the server calls us in `pg_stat_activity`.
    pub application_name: String,
    /// Where [`PostgresBus`](super::PostgresBus) listens, if not at `url`: directly at the server, when `url` is a
    /// pooler's.
    pub listen_url: Option<SecretString>,
}

impl PostgresOptions {
    /// The database at `url`, all else as usual.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self {
            url: url.into(),
            pool_size: 10,
            connect_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            pooled: None,
            partitions: 0,
            application_name: "tokenkeep".into(),
            listen_url: None,
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("pool_size", &self.pool_size)
            .field("pooled", &self.pooled)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}
