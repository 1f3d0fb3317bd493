//! The local journal: replies that reached us, durable before anyone waits for the store.
//!
//! A provider that rotates has forgotten the old refresh token by the time its reply arrives, so that reply must
//! survive whatever happens next: it is sealed, appended to a file of this process and flushed, at the same time as
//! the store is asked to commit it. Appends that arrive together share a flush. Space is reserved ahead, so that
//! [`Journal::is_writable`] can be asked *before* a refresh token is spent.
//!
//! There is one file per process, locked for its life. When a process dies, its lock is free, and the next one
//! [adopts](adopt) the file: it brings every entry to where it belongs, then removes the file. An entry stays until the
//! next reply of its connection is in the store, or for a day after it got there itself: this is what
//! heals a store that fails over to an older state.
//!
//! In the clear a file tells how many entries it holds and how long they are. Whose they are is sealed as well.

mod adopt;
mod frame;
mod identity;
mod index;
mod segment;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;
use tokenkeep_core::{
    AttemptId, ConnectionId, InstanceId, Tenant,
    ports::{Clock, Entropy, Kind, RecordKey},
};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::{
    barrier::{Barrier, Place},
    conditions::Condition,
};

pub use adopt::{Abandoned, AdoptError, Adoption, adopt};
pub use identity::identity;

use segment::Faults;
use writer::{Append, Command, Shared, Writer};

/// How large a journal may become, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Space is reserved in pieces of this size; the first at once.
    pub chunk: u64,
    /// So much must be free for the journal to count as writable: what exchanges in flight may bring.
    pub reserve: u64,
    /// Never more than this.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { chunk: 1 << 20, reserve: 256 << 10, max_bytes: 4 << 30 }
    }
}

/// Why the journal did not do what it was asked. An append that failed may still be found by whoever adopts the file.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// Locks and flushes cannot be relied upon there. Name a directory on a local disk.
    #[error("the journal's directory {} is on {kind}, a network file system; it must be on a local disk", dir.display())]
    NetworkFileSystem {
        /// The directory.
        dir: PathBuf,
        /// What it is on.
        kind: &'static str,
    },
    /// The disk is full or read-only, or the directory is not ours. Goes away with its cause.
    #[error("the journal in {} cannot be written", dir.display())]
    Unwritable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Too much waits for the store. Goes away as the store takes it.
    #[error("the journal holds all of the {max_bytes} bytes it may; the store must take some first")]
    Full {
        /// The limit.
        max_bytes: u64,
    },
    /// No reply is that long. Trying again will not help.
    #[error("an entry of {len} bytes is too long for the journal")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// It does not open: another root key, or damage.
    #[error("an entry of the journal cannot be read")]
    Unreadable,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    fn unwritable(dir: &Path, source: io::Error) -> Self {
        Self::Unwritable { dir: dir.to_owned(), source: Arc::new(source) }
    }
}

/// A reply as it was kept.
pub struct Entry {
    /// Whose it is.
    pub connection: ConnectionId,
    /// The attempt that brought it.
    pub attempt: AttemptId,
    /// When it was appended, by that process's wall clock.
    pub recorded_at: Timestamp,
    /// What was kept.
    pub payload: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("connection", &self.connection)
            .field("attempt", &self.attempt)
            .field("recorded_at", &self.recorded_at)
            .finish_non_exhaustive()
    }
}

/// The journal of this process. Cheap to clone; the file is closed with the last of them, or by
/// [`Journal::close`].
#[derive(Clone, Debug)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    barrier: Arc<Barrier>,
    clock: Arc<dyn Clock>,
    instance: InstanceId,
}

impl Journal {
    /// Makes the journal of `instance` in `dir`, and `dir` itself where it is missing. Blocks for some milliseconds.
    pub fn open(
        dir: &Path,
        instance: InstanceId,
        limits: Limits,
        barrier: Arc<Barrier>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, JournalError> {
        Self::open_with(dir, instance, limits, barrier, clock, entropy, Arc::default())
    }

    fn open_with(
        dir: &Path,
        instance: InstanceId,
        limits: Limits,
        barrier: Arc<Barrier>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        faults: Arc<Faults>,
    ) -> Result<Self, JournalError> {
        segment::prepare_dir(dir)?;
        let writer = Writer::create(dir.to_owned(), instance, limits, Arc::clone(&clock), entropy, faults)?;
        let shared = Arc::clone(&writer.shared);
        let (commands, receiver) = mpsc::channel(1024);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|source| JournalError::unwritable(dir, source))?;
        Ok(Self { commands, shared, barrier, clock, instance })
    }

    /// Tells `condition` from now on whether replies can be made durable.
    #[must_use]
    pub(crate) fn watched(self, condition: Arc<Condition>) -> Self {
        // A second one would be told nothing; there is one engine.
        let _ = self.shared.condition.set(condition);
        self
    }

    /// Keeps `payload`. Once this answers `Ok`, it survives the end of the process and the loss of power. Whoever
    /// stops waiting does not stop the append.
    pub async fn append(
        &self,
        connection: &ConnectionId,
        attempt: AttemptId,
        payload: &[u8],
    ) -> Result<(), JournalError> {
        let plain = frame::encode_entry(connection, attempt, self.clock.now().wall, payload);
        let sealed = self.barrier.seal(Place::Journal, &file_key(self.instance), &plain);
        if sealed.len() > frame::MAX_SEALED {
            return Err(JournalError::TooLong { len: payload.len() });
        }
        let id = connection.clone();
        self.ask(|done| Command::Append(Append { id, attempt, sealed, done })).await?
    }

    /// The store has this reply: from here on it is kept as insurance only.
    pub fn settle(&self, connection: &ConnectionId, attempt: AttemptId) {
        self.shared.index().settle(connection, attempt, self.clock.now().boot);
    }

    /// This reply is no longer needed at all.
    pub fn release(&self, connection: &ConnectionId, attempt: AttemptId) {
        self.shared.index().release(connection, attempt);
    }

    /// The attempt whose reply was kept last for this connection, if it is still there.
    pub fn newest_attempt(&self, connection: &ConnectionId) -> Option<AttemptId> {
        self.shared.index().newest(connection).map(|slot| slot.attempt)
    }

    /// The attempt whose reply was kept last for this connection, if the store is not known to have it.
    pub fn newest_unsettled(&self, connection: &ConnectionId) -> Option<AttemptId> {
        self.shared.index().newest(connection).filter(|slot| !slot.is_settled()).map(|slot| slot.attempt)
    }

    /// The reply that was kept last for this connection, if it is still there.
    pub async fn newest(&self, connection: &ConnectionId) -> Result<Option<Entry>, JournalError> {
        if self.newest_attempt(connection).is_none() {
            return Ok(None);
        }
        let id = connection.clone();
        let Some(sealed) = self.ask(|done| Command::Read { id, done }).await?? else { return Ok(None) };
        open_entry(&self.barrier, self.instance, &sealed).ok_or(JournalError::Unreadable).map(Some)
    }

    /// Whether the next reply would surely find its place. Ask before a refresh token is spent.
    pub fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::SeqCst) && !self.commands.is_closed()
    }

    /// Tries anew whether the journal can be written, and answers as [`Journal::is_writable`] does from then on.
    pub async fn probe(&self) -> bool {
        self.ask(|done| Command::Probe { done }).await.unwrap_or(false)
    }

    /// How many replies wait for the store.
    pub fn depth(&self) -> usize {
        self.shared.index().unsettled()
    }

    /// How many replies are kept, those that are insurance included.
    pub fn kept(&self) -> usize {
        self.shared.index().count()
    }

    /// Ends the journal after what was asked of it before. A file in which nothing is needed any more is removed; any
    /// other waits for the next process.
    pub async fn close(self) {
        // It may be closed already, which is what was asked for.
        let _ = self.ask(|done| Command::Close { done }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, JournalError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)
    }
}

/// What the entries of one instance's file are sealed for. Not the connection's own key: then a file would tell whose
/// tokens it holds.
fn file_key(instance: InstanceId) -> RecordKey {
    RecordKey { tenant: Tenant::system(), kind: Kind::Connection, id: format!("journal/{instance}") }
}

fn open_entry(barrier: &Barrier, instance: InstanceId, sealed: &[u8]) -> Option<Entry> {
    frame::decode_entry(&barrier.open(Place::Journal, &file_key(instance), sealed).ok()?)
}

#[cfg(test)]
mod processes;
#[cfg(test)]
mod tests;
