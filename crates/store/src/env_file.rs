//! Records in this process, and in a file of variables if one is named.
//!
//! For development, where an application's secrets stand in a `.env`: what a provider rotates has a place to go. Each
//! record is one line, `TOKENKEEP_RECORD_1=...`, sealed like everywhere and in base64; every other line stays as it is.
//! The file is written anew for each write, so it is for dozens of records, not for thousands.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use tokenkeep_core::ports::{
    BoxFuture, Count, Entropy, Expect, Kind, Page, Put, Query, Reach, Record, RecordKey, Store, StoreDescription,
    StoreError, Version,
};

use crate::{
    document::{build_document, parse_document},
    records::{self, Records},
};

/// What each of our lines begins with.
const NAME: &str = "TOKENKEEP_RECORD_";

/// A store in this process, and in one file of variables.
pub struct EnvFile {
    state: Arc<Mutex<State>>,
    path: Option<PathBuf>,
    #[expect(dead_code, reason = "held until the store ends, so that no second process writes the file")]
    lock: Option<File>,
}

struct State {
    records: Records,
    /// The lines that are not ours, as they were found.
    others: Vec<String>,
    /// Versions are unique over processes: a random word, and a count.
    life: String,
    writes: u64,
}

/// Why the file cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It cannot be read, or written.
    #[error("{path} cannot be used")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("another process keeps its records in {path}; only one may at a time")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// One of our lines is not what we wrote.
    #[error("line {line} of {path} begins with {NAME} and holds no record; put it right, or remove it")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl EnvFile {
    /// The records in the file at `path`, which is made with mode 0600 at the first write; without one, a store that is
    /// gone with the process.
    pub fn open(path: Option<&Path>, entropy: &dyn Entropy) -> Result<Self, EnvFileError> {
        let life = BASE64_URL_SAFE_NO_PAD.encode(&entropy.bytes32()[..12]);
        let mut state = State { records: Records::default(), others: Vec::new(), life, writes: 0 };
        let Some(path) = path else { return Ok(Self { state: Arc::new(Mutex::new(state)), path: None, lock: None }) };
        // Where a link leads to, so that the link stays one.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let failed = |source| EnvFileError::Io { path: path.clone(), source };
        let lock = private().write(true).create(true).truncate(false).open(beside(path, "lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => EnvFileError::InUse { path: path.clone() },
            fs::TryLockError::Error(source) => failed(source),
        })?;
        match fs::read_to_string(path) {
            Ok(text) => state.read(&text).map_err(|line| EnvFileError::Corrupt { path: path.clone(), line })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { state: Arc::new(Mutex::new(state)), path: Some(path.clone()), lock: Some(lock) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the records and the file, or neither. `change` answers whether there is anything to write.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut State) -> (T, bool) + Send + 'static,
    ) -> Result<(T, Kept), StoreError> {
        let (state, path) = (self.state.clone(), self.path.clone());
        let changed = tokio::task::spawn_blocking(move || {
            let mut state = lock(&state);
            let before = state.records.clone();
            let (answer, has_changed) = change(&mut state);
            let written = match path.filter(|_| has_changed) {
                Some(path) => write(&path, &state.text()),
                None => Ok(Kept::Surely),
            };
            written.map(|kept| (answer, kept)).map_err(|error| {
                state.records = before;
                StoreError::Unavailable { reason: format!("the file cannot be written: {error}"), retry_after: None }
            })
        });
        changed.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { reason: "the runtime is ending".to_owned(), retry_after: None })
        })
    }

    async fn replace(
        &self,
        record: impl FnOnce(Version) -> Record + Send + 'static,
        expect: Option<Version>,
    ) -> Result<Put, StoreError> {
        let changed = self.change(move |state| {
            state.writes += 1;
            let version = Version(format!("{}.{}", state.life, state.writes));
            let expect = expect.as_ref().map_or(Expect::Absent, Expect::Version);
            let put = state.records.replace(record(version), expect);
            let has_changed = matches!(put, Put::Committed(_));
            (put, has_changed)
        });
        match changed.await? {
            (put, Kept::Surely) => Ok(put),
            (_, Kept::Perhaps) => Ok(Put::Unknown),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A change that panicked has written nothing, and what it left in memory is whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Takes a file's lines in; answers the number of one that is ours and holds no record.
    fn read(&mut self, text: &str) -> Result<(), usize> {
        for (n, line) in text.lines().enumerate() {
            let Some((_, value)) = line.strip_prefix(NAME).and_then(|rest| rest.split_once('=')) else {
                self.others.push(line.to_owned());
                continue;
            };
            let bytes = BASE64_STANDARD.decode(value).map_err(|_| n + 1)?;
            let document = serde_json::from_slice(&bytes).map_err(|_| n + 1)?;
            self.records.insert(parse_document(document).map_err(|_| n + 1)?);
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text: String = self.others.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        for (n, record) in self.records.iter().enumerate() {
            let document = serde_json::to_vec(&build_document(record)).expect("text and numbers are always JSON");
            text.extend([NAME, &(n + 1).to_string(), "=", &BASE64_STANDARD.encode(document), "\n"]);
        }
        text
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Whether what was written survives the loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Surely,
    /// The file is there, but its folder may still name the one before.
    Perhaps,
}

/// Puts `text` in the place of the file, whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<Kept> {
    let draft = beside(path, "new");
    let mut file = private().write(true).create(true).truncate(true).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let kept = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(if kept.is_ok() { Kept::Surely } else { Kept::Perhaps })
}

impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for EnvFile {
    fn describe(&self) -> StoreDescription {
        StoreDescription {
            name: "env",
            location: self.path.as_ref().map_or_else(|| "this process".to_owned(), |path| path.display().to_string()),
            durable: self.path.is_some(),
            reach: Reach::Process,
            may_roll_back: false,
        }
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move { Ok(self.state().records.get(key).cloned()) })
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        let expect = match expect {
            Expect::Absent => None,
            Expect::Version(version) => Some(version.clone()),
        };
        let record = record.clone();
        Box::pin(self.replace(move |version| records::alive(&record, version), expect))
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        let record = tombstone.clone();
        let expect = Some(version.clone());
        Box::pin(self.replace(move |version| records::tombstone(&record, keep_until, version), expect))
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move { Ok(self.state().records.list(query)) })
    }

    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        let claimed = self.change(move |state| {
            let claimed = state.records.claim(kind, due_before, limit, until);
            let has_changed = !claimed.is_empty();
            (claimed, has_changed)
        });
        Box::pin(async { Ok(claimed.await?.0) })
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        Box::pin(async move { Ok(self.state().records.count(query)) })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        let swept = self.change(move |state| {
            let swept = state.records.sweep(now);
            (swept, swept > 0)
        });
        Box::pin(async { Ok(swept.await?.0) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}
