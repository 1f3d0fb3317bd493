//! Opening, and refusing to.

use std::{
    error::Error,
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    error::{code, primary_code, reason},
    records::SCHEMA,
};

/// What `PRAGMA application_id` says of a tokenkeep database: `tkkp` in ASCII.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"tkkp");

/// What `PRAGMA user_version` says of a database that this version writes.
pub const SCHEMA_VERSION: i32 = 1;

/// Why a database was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It can be neither opened nor made.
    #[error(
        "the database {} cannot be used: {reason}. Its directory must exist, be on a local disk with room left, and be \
         writable for this user, like the file itself",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
        /// What the system said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file is not whole.
    #[error(
        "the database {} is damaged: {problem}. Move it away together with its -wal and -shm files, keep them, and \
         restore a backup in their place",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found, or not found.
        problem: String,
    },
    /// It is somebody else's.
    #[error(
        "{} is no database of tokenkeep (its application_id is {application_id:#x}). Give another path",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it says it is; 0 for nobody's.
        application_id: i32,
    },
    /// It was written by a later tokenkeep.
    #[error(
        "the database {} has schema {found}, and this tokenkeep knows {SCHEMA_VERSION}. Run the version that wrote \
         it, or a later one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema it has.
        found: i32,
    },
    /// Its log is there, but it is not.
    #[error(
        "the database {} is missing, but its log {}-wal is there and may hold writes. Put the database back beside it, \
         or move the log away to begin with an empty one",
        path.display(), path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
}

/// What differs in tests.
#[derive(Debug)]
pub(super) struct Settings {
    /// How long a write waits for another process.
    pub(super) busy_timeout: Duration,
    /// What else is said to the writing connection.
    pub(super) pragmas: Vec<(&'static str, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), pragmas: Vec::new() }
    }
}

pub(super) struct Opened {
    pub(super) readers: SqlitePool,
    pub(super) writing: SqliteConnection,
    /// Those of `writing`.
    pub(super) options: SqliteConnectOptions,
}

/// The reading connections of one store.
const READERS: u32 = 4;

/// How long a read waits for one of them.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn open(path: &Path, settings: &Settings) -> Result<Opened, OpenError> {
    make_if_missing(path).await?;
    let fail = |error| refusal(path, error);
    let base = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(settings.busy_timeout)
        .foreign_keys(false)
        .disable_statement_logging();
    // FULL: a commit waits until the disk has it. What is deleted is overwritten.
    let mut options = base.clone().synchronous(SqliteSynchronous::Full).pragma("secure_delete", "ON");
    for (name, value) in &settings.pragmas {
        options = options.pragma(*name, value.clone());
    }
    let mut writing = options.connect().await.map_err(fail)?;
    check(path, &mut writing).await?;

    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(READ_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(base.pragma("query_only", "ON"));
    Ok(Opened { readers: readers.await.map_err(fail)?, writing, options })
}

/// Refuses what is not ours, not whole, or from the future.
async fn check(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let fail = |error| refusal(path, error);
    let path = || path.to_owned();
    let application_id = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await.map_err(fail)?;
    if application_id != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path(), application_id });
    }
    let found = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(fail)?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer { path: path(), found });
    }
    let whole: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await.map_err(fail)?;
    if whole != "ok" {
        // Of its lines the last says what, the first only where to look.
        let problem = whole.lines().last().unwrap_or_default().to_owned();
        return Err(OpenError::Damaged { path: path(), problem });
    }
    // It was made so and stays so, unless somebody meddled; where it cannot be, several processes must not meet.
    let mode: String =
        sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await.map_err(fail)?;
    if mode != "wal" {
        let reason = format!("SQLite cannot keep a write-ahead log there (journal mode {mode})");
        return Err(OpenError::Unusable { path: path(), source: reason.clone().into(), reason });
    }
    Ok(())
}

/// Makes the database aside and puts it in place whole, so that nobody ever opens half a one: of several processes
/// that start at once one wins, and an empty or truncated file is a fault and never a beginning.
async fn make_if_missing(path: &Path) -> Result<(), OpenError> {
    let fail = |error: io::Error| {
        let reason = error.kind().to_string();
        OpenError::Unusable { path: path.to_owned(), reason, source: error.into() }
    };
    // Looked for in this order: while we look, somebody may make the database and write to it.
    let has_log = beside(path, "-wal").try_exists().map_err(fail)?;
    if path.try_exists().map_err(fail)? {
        return Ok(());
    }
    if has_log {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    let aside = beside(path, &format!(".{}.new", random_hex().await.map_err(|e| refusal(path, e))?));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).map_err(fail)?;
    let made = make(&aside).await.map_err(|e| refusal(path, e)).and_then(|()| match fs::hard_link(&aside, path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(fail(e)),
        _ => Ok(()),
    });
    let removed = fs::remove_file(&aside).map_err(fail);
    made?;
    removed?;
    // The name, too, must survive the loss of power.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail)
}

async fn make(path: &Path) -> Result<(), sqlx::Error> {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await?;
    let schema = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE; {SCHEMA}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    );
    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut connection).await?;
    // Being the only one, it leaves no log behind.
    connection.close().await
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Nobody else's name; process ids would not do, they repeat across containers.
async fn random_hex() -> Result<String, sqlx::Error> {
    let mut memory = SqliteConnectOptions::new().in_memory(true).connect().await?;
    sqlx::query_scalar("SELECT lower(hex(randomblob(8)))").fetch_one(&mut memory).await
}

fn refusal(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match primary_code(&error) {
        Some(code::CORRUPT | code::NOTADB) => OpenError::Damaged { path, problem: reason(&error) },
        _ => OpenError::Unusable { path, reason: reason(&error), source: error.into() },
    }
}
