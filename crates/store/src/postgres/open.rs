//! Opening, and refusing to.

use std::{error::Error, io, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::timeout;

use super::{
    PostgresOptions,
    error::{code, reason, sqlstate},
    schema::{self, Found, SCHEMA_VERSION},
};

/// Why a database was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// What was to be its URL is none.
    #[error(
        "the address of the database is no URL like postgres://user:password@host:5432/database?sslmode=verify-full"
    )]
    Url,
    /// Nobody answers there, or not in time.
    #[error(
        "no PostgreSQL server answers at {place}: {reason}. Check host and port, and that it runs and may be reached"
    )]
    Unreachable {
        /// Host, port and database.
        place: String,
        /// What stands in the way.
        reason: String,
        /// What the system said.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The server does not let this user in.
    #[error("{place} refuses the user {user}: {reason}. Check the user, its password and the server's pg_hba.conf")]
    Credentials {
        /// Host, port and database.
        place: String,
        /// The user.
        user: String,
        /// What the server said.
        reason: String,
    },
    /// The server has no such database.
    #[error("there is no database {place}. Create it, or correct the URL")]
    NoDatabase {
        /// Host, port and database.
        place: String,
    },
    /// One side wants TLS and the other does not, or the certificate will not do.
    #[error("no agreement on TLS with {place}: {reason}. Correct sslmode and sslrootcert in the URL, or the server")]
    Tls {
        /// Host, port and database.
        place: String,
        /// What stands in the way.
        reason: String,
    },
    /// It cannot be written.
    #[error("{place} takes no writes: {reason}. Give the URL of the primary")]
    ReadOnly {
        /// Host, port and database.
        place: String,
        /// Why not.
        reason: &'static str,
    },
    /// It was migrated by a later tokenkeep.
    #[error(
        "the schema tokenkeep of {place} is from the future: it has version {found}, which needs a tokenkeep that knows \
         {min_compatible} or later, and this one knows {SCHEMA_VERSION}. Run the version that migrated it, or a later one"
    )]
    Newer {
        /// Host, port and database.
        place: String,
        /// The version it has.
        found: i32,
        /// The oldest version that may use it.
        min_compatible: i32,
    },
    /// The user may not do what is needed.
    #[error("the user {user} lacks a privilege at {place}: {reason}. Grant it, or let the schema's owner open it once")]
    Privilege {
        /// Host, port and database.
        place: String,
        /// The user.
        user: String,
        /// What it lacks.
        reason: String,
    },
    /// It cannot hold our records.
    #[error("the database {place} cannot be used: {reason}")]
    Unusable {
        /// Host, port and database.
        place: String,
        /// Why not.
        reason: String,
    },
}

/// What was found out about a database.
#[derive(Debug)]
pub(super) struct Opened {
    /// What the URL says.
    pub(super) plain: PgConnectOptions,
    /// How to make each connection of the pool.
    pub(super) connect: PgConnectOptions,
    pub(super) pooled: bool,
    pub(super) place: String,
    pub(super) durable: bool,
    pub(super) may_roll_back: bool,
}

pub(super) async fn open(options: &PostgresOptions) -> Result<Opened, OpenError> {
    let plain = parse(&options.url, &options.application_name)?;
    let place = place(&plain);
    let late = || OpenError::Unreachable { place: place.clone(), reason: "it takes too long".into(), source: None };
    timeout(options.connect_timeout, checked(plain, place.clone(), options)).await.map_err(|_| late())?
}

/// Reads a URL. No statement is ever logged: it may hold what we store.
pub(super) fn parse(url: &SecretString, application_name: &str) -> Result<PgConnectOptions, OpenError> {
    let url = url.expose_secret();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(OpenError::Url);
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url)?;
    Ok(options.application_name(application_name).disable_statement_logging())
}

/// Where it is, without credentials.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{}:{}/{database}", socket.display(), options.get_port()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

async fn checked(plain: PgConnectOptions, place: String, options: &PostgresOptions) -> Result<Opened, OpenError> {
    let refuse = |error| refusal(&place, &plain, error);
    let (mut connection, connect, pooled) = reach(&plain, options).await.map_err(refuse)?;
    let server = Server::ask(&mut connection).await.map_err(refuse)?;
    server.check(&place)?;

    let found = schema::find(&mut connection).await.map_err(refuse)?;
    let found = match found {
        Some(found) if found.version >= SCHEMA_VERSION => found,
        _ => schema::migrate(&mut connection, options.partitions).await.map_err(refuse)?,
    };
    if found.is_from_the_future() {
        let Found { version, min_compatible } = found;
        return Err(OpenError::Newer { place, found: version, min_compatible });
    }
    if let Some(table) = unwritable(&mut connection).await.map_err(refuse)? {
        let reason = format!("it may not read and write tokenkeep.{table}");
        return Err(OpenError::Privilege { place, user: plain.get_username().to_owned(), reason });
    }
    // All is known; how this connection ends no longer matters.
    let _ = connection.close().await;
    let (durable, may_roll_back) = (server.durable(), server.may_roll_back());
    Ok(Opened { connect, pooled, durable, may_roll_back, place: place.clone(), plain })
}

/// Connects, and finds out whether a pooler stands between: one that shares out connections cannot keep what a session
/// begins with, so it refuses it (as pgbouncer does) or forgets it (as pgbouncer does when told to).
async fn reach(
    plain: &PgConnectOptions,
    options: &PostgresOptions,
) -> Result<(PgConnection, PgConnectOptions, bool), sqlx::Error> {
    if options.pooled == Some(true) {
        return Ok((plain.connect().await?, plain.clone(), true));
    }
    let direct = with_settings(plain, options.statement_timeout);
    match direct.connect().await {
        Err(error) if options.pooled.is_none() && refuses_settings(&error) => {
            Ok((plain.connect().await?, plain.clone(), true))
        }
        Err(error) => Err(error),
        Ok(mut connection) => {
            let kept = keeps_settings(&mut connection, options.statement_timeout).await?;
            let pooled = options.pooled.is_none() && !kept;
            Ok((connection, if pooled { plain.clone() } else { direct }, pooled))
        }
    }
}

/// With what a session begins with, if it leads to a server.
pub(super) fn with_settings(plain: &PgConnectOptions, statement_timeout: Duration) -> PgConnectOptions {
    plain.clone().options([("statement_timeout", statement_timeout.as_millis())])
}

/// Whether it is a pooler that does not take what a session begins with.
pub(super) fn refuses_settings(error: &sqlx::Error) -> bool {
    let message = error.as_database_error().map(sqlx::error::DatabaseError::message);
    message.is_some_and(|text| text.contains("startup parameter"))
}

/// Whether what the session began with has reached a server.
pub(super) async fn keeps_settings(
    connection: &mut PgConnection,
    statement_timeout: Duration,
) -> Result<bool, sqlx::Error> {
    let sql = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'";
    let setting: String = connection.fetch_one(sqlx::raw_sql(sql)).await?.try_get(0)?;
    Ok(setting == statement_timeout.as_millis().to_string())
}

/// What the server says of itself.
#[derive(Debug)]
struct Server {
    replica: bool,
    read_only: bool,
    encoding: String,
    fsync: String,
    synchronous_commit: String,
    /// Whether a standby may be behind.
    standby_behind: bool,
}

impl Server {
    async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let sql = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
                   current_setting('server_encoding'), coalesce(current_setting('fsync', true), 'on'), \
                   coalesce(current_setting('synchronous_commit', true), 'on'), \
                   EXISTS (SELECT FROM pg_stat_replication WHERE coalesce(sync_state NOT IN ('sync', 'quorum'), true))";
        let row = connection.fetch_one(sqlx::raw_sql(sql)).await?;
        Ok(Self {
            replica: row.try_get(0)?,
            read_only: row.try_get(1)?,
            encoding: row.try_get(2)?,
            fsync: row.try_get(3)?,
            synchronous_commit: row.try_get(4)?,
            standby_behind: row.try_get(5)?,
        })
    }

    fn check(&self, place: &str) -> Result<(), OpenError> {
        let place = place.to_owned();
        if self.replica {
            return Err(OpenError::ReadOnly { place, reason: "it is a replica" });
        }
        if self.read_only {
            return Err(OpenError::ReadOnly { place, reason: "its transactions are read-only by default" });
        }
        if self.encoding != "UTF8" {
            let reason = format!("its encoding is {}. Make one with the encoding UTF8", self.encoding.escape_debug());
            return Err(OpenError::Unusable { place, reason });
        }
        Ok(())
    }

    /// Whether it waits for its disk.
    fn durable(&self) -> bool {
        self.fsync == "on" && self.synchronous_commit != "off"
    }

    fn may_roll_back(&self) -> bool {
        !self.durable() || self.synchronous_commit == "local" || self.standby_behind
    }
}

/// A table that this user may not use, if there is one.
async fn unwritable(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let sql = "SELECT name FROM unnest(ARRAY['records', 'counters']) AS name, \
               unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege \
               WHERE NOT has_table_privilege('tokenkeep.' || name, privilege) LIMIT 1";
    connection.fetch_optional(sqlx::raw_sql(sql)).await?.map(|row| row.try_get(0)).transpose()
}

fn refusal(place: &str, options: &PgConnectOptions, error: sqlx::Error) -> OpenError {
    let place = place.to_owned();
    let user = options.get_username().to_owned();
    match error {
        sqlx::Error::Tls(error) => OpenError::Tls { place, reason: error.to_string().escape_debug().to_string() },
        // Only a handshake reads what may be invalid.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData && encrypts(options) => {
            OpenError::Tls { place, reason: error.to_string().escape_debug().to_string() }
        }
        sqlx::Error::Io(error) => {
            OpenError::Unreachable { place, reason: error.kind().to_string(), source: Some(error.into()) }
        }
        error => match sqlstate(&error) {
            Some("28000") if wants_tls(&error) => {
                OpenError::Tls { place, reason: "the server takes encrypted connections only".into() }
            }
            Some("28000" | "28P01") => OpenError::Credentials { place, user, reason: reason(&error) },
            Some("3D000") => OpenError::NoDatabase { place },
            Some("08P01") if says(&error, "does not exist") => OpenError::NoDatabase { place },
            Some("08P01") if says(&error, "authentication failed") => {
                OpenError::Credentials { place, user, reason: reason(&error) }
            }
            Some("42501") => OpenError::Privilege { place, user, reason: reason(&error) },
            Some(code::CANNOT_CONNECT_NOW | code::TOO_MANY_CONNECTIONS | code::ADMIN_SHUTDOWN) => {
                OpenError::Unreachable { place, reason: reason(&error), source: None }
            }
            _ => OpenError::Unusable { place, reason: reason(&error) },
        },
    }
}

fn encrypts(options: &PgConnectOptions) -> bool {
    !matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow)
}

/// Whether the server has rules for this user, but none without encryption.
fn wants_tls(error: &sqlx::Error) -> bool {
    says(error, "no encryption") || says(error, "SSL off")
}

/// Poolers have one SQLSTATE for everything, and are known by their words.
fn says(error: &sqlx::Error, words: &str) -> bool {
    error.as_database_error().is_some_and(|e| e.message().contains(words))
}
