//! The one thread that writes a journal: what arrives while it flushes goes into its next flush together.

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokenkeep_core::{
    AttemptId, ConnectionId, InstanceId,
    ports::{Clock, Entropy},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    JournalError, Limits,
    frame::{FRAME_OVERHEAD, HEADER_LEN, Salt},
    index::Index,
    segment::{Faults, Found, Segment, path_of, sync_dir},
};
use crate::conditions::Condition;

/// How many appends share one flush at most.
const MAX_BATCH: usize = 256;

pub(super) enum Command {
    Append(Append),
    Read { id: ConnectionId, done: oneshot::Sender<Result<Option<Vec<u8>>, JournalError>> },
    Probe { done: oneshot::Sender<bool> },
    Close { done: oneshot::Sender<()> },
}

pub(super) struct Append {
    pub(super) id: ConnectionId,
    pub(super) attempt: AttemptId,
    pub(super) sealed: Vec<u8>,
    pub(super) done: oneshot::Sender<Result<(), JournalError>>,
}

/// What the writer and its handles share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    index: Mutex<Index>,
    pub(super) writable: AtomicBool,
    /// Told whenever the file takes entries, or does not.
    pub(super) condition: OnceLock<Arc<Condition>>,
}

impl Shared {
    /// A std lock: it is held for a few map operations, never across a wait.
    pub(super) fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) instance: InstanceId,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) shared: Arc<Shared>,
    pub(super) faults: Arc<Faults>,
    pub(super) segment: Segment,
    /// A write or a flush failed. What the file holds is known from memory only until it is written anew: after a
    /// failed flush the kernel may show bytes that the disk never got.
    pub(super) suspect: bool,
}

impl Writer {
    /// Makes the file.
    pub(super) fn create(
        dir: PathBuf,
        instance: InstanceId,
        limits: Limits,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        faults: Arc<Faults>,
    ) -> Result<Self, JournalError> {
        let segment = Segment::create(&dir, instance, fresh_salt(&*entropy), limits.chunk, &faults, |_| Ok(()))
            .map_err(|source| JournalError::unwritable(&dir, source))?;
        let shared = Arc::new(Shared { writable: AtomicBool::new(true), ..Shared::default() });
        Ok(Self { dir, instance, limits, clock, entropy, shared, faults, segment, suspect: false })
    }

    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let (mut appends, mut next) = (Vec::new(), Some(first));
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        appends.push(append);
                        if appends.len() < MAX_BATCH {
                            next = commands.try_recv().ok();
                        }
                    }
                    other => {
                        self.append(std::mem::take(&mut appends));
                        if let Some(closed) = self.answer(other) {
                            // The lock goes with the file, and only then is it closed.
                            drop(self);
                            let _ = closed.send(());
                            return;
                        }
                    }
                }
            }
            self.append(appends);
        }
    }

    /// Answers whom to tell that this was the end, if it was.
    fn answer(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            // Whoever asked may have stopped waiting; then nobody needs the answer.
            Command::Append(append) => self.append(vec![append]),
            Command::Read { id, done } => drop(done.send(self.read(&id))),
            Command::Probe { done } => {
                let ready = self.make_room(0).and_then(|()| self.segment.sync().map_err(|e| self.failed(e)));
                self.note(ready.as_ref().err());
                let _ = done.send(ready.is_ok());
            }
            Command::Close { done } => {
                if self.shared.index().count() == 0 {
                    let removed = fs::remove_file(path_of(&self.dir, self.instance)).and_then(|()| sync_dir(&self.dir));
                    if let Err(error) = removed {
                        tracing::warn!(%error, "an empty journal could not be removed; the next start does it");
                    }
                }
                return Some(done);
            }
        }
        None
    }

    fn append(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        match self.write(&appends) {
            Ok(offsets) => {
                let roomy = self.has_room(0);
                if roomy {
                    self.note(None);
                }
                let mut index = self.shared.index();
                for (append, offset) in appends.into_iter().zip(offsets) {
                    index.insert(append.id, append.attempt, offset, frame_len(&append.sealed));
                    let _ = append.done.send(Ok(()));
                }
                drop(index);
                // Room for the next ones is made now, so that "writable" is known before a refresh token is spent.
                if !roomy {
                    let made = self.make_room(0);
                    self.note(made.as_ref().err());
                }
            }
            Err(error) => {
                self.note(Some(&error));
                for append in appends {
                    let _ = append.done.send(Err(error.clone()));
                }
            }
        }
    }

    fn write(&mut self, appends: &[Append]) -> Result<Vec<u64>, JournalError> {
        let needed = appends.iter().map(|append| frame_len(&append.sealed)).sum();
        if self.suspect || self.segment.used + needed > self.segment.allocated {
            self.make_room(needed)?;
        }
        let written = self.segment.write(appends.iter().map(|append| append.sealed.as_slice()));
        written.and_then(|offsets| self.segment.sync().map(|()| offsets)).map_err(|error| self.failed(error))
    }

    fn failed(&mut self, source: io::Error) -> JournalError {
        self.suspect = true;
        JournalError::unwritable(&self.dir, source)
    }

    /// Says that the next reply will find its place, or why it may not.
    fn note(&self, problem: Option<&JournalError>) {
        self.shared.writable.store(problem.is_none(), Ordering::SeqCst);
        let Some(condition) = self.shared.condition.get() else { return };
        let now = self.clock.now().boot;
        match problem {
            None => condition.well(now),
            Some(JournalError::Unwritable { source, .. }) => condition.lost(now, source),
            Some(other) => condition.lost(now, other),
        }
    }

    /// Whether `needed` bytes and the reserve fit as it is.
    fn has_room(&self, needed: u64) -> bool {
        !self.suspect && self.segment.used + needed + self.limits.reserve <= self.segment.allocated
    }

    /// Sees to it that `needed` bytes and the reserve fit: by leaving out what is no longer needed if that is at
    /// least half, else by growing, else by leaving out what it can.
    fn make_room(&mut self, needed: u64) -> Result<(), JournalError> {
        if self.has_room(needed) {
            return Ok(());
        }
        let wanted = needed + self.limits.reserve;
        let live = {
            let mut index = self.shared.index();
            index.expire(self.clock.now().boot);
            index.live_bytes() + HEADER_LEN as u64
        };
        let Limits { chunk, max_bytes, .. } = self.limits;
        let rounded = |bytes: u64| (bytes.div_ceil(chunk) * chunk).min(max_bytes);
        let (used, allocated) = (self.segment.used, self.segment.allocated);
        let cannot_grow = used + wanted > max_bytes;
        if live + wanted > max_bytes || (cannot_grow && used - live < max_bytes / 8 && !self.suspect) {
            // To write everything anew for little would be to do it again at once.
            return Err(JournalError::Full { max_bytes });
        }
        if self.suspect || cannot_grow || live + wanted <= allocated / 2 {
            return self.rewrite(rounded(2 * (live + wanted)));
        }
        let grown = rounded((used + wanted).max(allocated + allocated.min(16 * chunk)));
        self.segment.extend_to(grown).map_err(|source| {
            // The space that is there stays good: nothing that was written is in doubt.
            JournalError::unwritable(&self.dir, source)
        })
    }

    /// Writes everything that is still needed to a new file, which takes the place of the old one.
    fn rewrite(&mut self, size: u64) -> Result<(), JournalError> {
        let offsets = self.shared.index().offsets();
        let mut place = HashMap::with_capacity(offsets.len());
        let (old, salt) = (&self.segment, fresh_salt(&*self.entropy));
        let made = Segment::create(&self.dir, self.instance, salt, size, &self.faults, |new| {
            for offset in offsets {
                if let Found::Whole(sealed) = old.read(offset)? {
                    place.insert(offset, new.write(std::iter::once(sealed.as_slice()))?[0]);
                } else {
                    // Refusing to go on would not bring it back, and would lose those to come.
                    tracing::error!(offset, "the disk has lost an entry of the journal");
                }
            }
            Ok(())
        });
        let segment = made.map_err(|error| self.failed(error))?;
        self.shared.index().relocate(&place);
        self.segment = segment;
        self.suspect = false;
        Ok(())
    }

    fn read(&self, id: &ConnectionId) -> Result<Option<Vec<u8>>, JournalError> {
        let Some(slot) = self.shared.index().newest(id) else { return Ok(None) };
        match self.segment.read(slot.offset) {
            Ok(Found::Whole(sealed)) => Ok(Some(sealed)),
            Ok(Found::Broken(_) | Found::End) => Err(JournalError::Unreadable),
            Err(source) => Err(JournalError::unwritable(&self.dir, source)),
        }
    }
}

fn frame_len(sealed: &[u8]) -> u64 {
    (sealed.len() + FRAME_OVERHEAD) as u64
}

fn fresh_salt(entropy: &dyn Entropy) -> Salt {
    let mut salt = Salt::default();
    entropy.fill(&mut salt);
    salt
}
