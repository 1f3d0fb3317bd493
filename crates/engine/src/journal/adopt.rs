//! Taking over the files of processes that are gone.

use std::{
    fs::{self, File, OpenOptions},
    future::ready,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokenkeep_core::InstanceId;

use super::{
    Entry, Journal, JournalError,
    frame::{FRAME_OVERHEAD, HEADER_LEN, Salt},
    open_entry,
    segment::{self, Found},
};
use crate::barrier::Barrier;

const CARRIED_AT_ONCE: usize = 256;

/// What a look into a journal directory showed.
#[derive(Debug)]
pub struct Adoption {
    /// The files of processes that are gone, now locked by us.
    pub abandoned: Vec<Abandoned>,
    /// The instances whose processes are there, our own aside.
    pub running: Vec<InstanceId>,
}

/// Why an abandoned journal cannot be taken over, or not be removed.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The directory or the file cannot be read or removed. Goes away with its cause.
    #[error("the abandoned journal {} cannot be accessed", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Some of it does not open: it was sealed with a root key that is not configured, or is damaged. The file stays.
    #[error("{unreadable} entries of the abandoned journal {} cannot be read; it stays where it is", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// How many entries.
        unreadable: usize,
    },
    /// It has not been read to its end.
    #[error("the abandoned journal {} has not been read to its end", path.display())]
    Unfinished {
        /// Which.
        path: PathBuf,
    },
    /// Its entries could not be carried over to our own journal. The file stays.
    #[error("the entries of an abandoned journal could not be carried over")]
    CarryOver(#[source] JournalError),
}

/// The journal of a process that is gone. Nobody else adopts it as long as this is there; dropped without
/// [`Abandoned::remove`] it waits for the next.
#[derive(Debug)]
pub struct Abandoned {
    path: PathBuf,
    file: File,
    instance: InstanceId,
    barrier: Arc<Barrier>,
    salt: Option<Salt>,
    offset: u64,
    finished: bool,
    unreadable: usize,
}

/// Looks for journals in `dir` that nobody holds. Call it at start, and whenever an instance seems to be gone. Blocks
/// on the disk.
///
/// A file whose entries are all settled is removed with [`Abandoned::remove`]; where some must wait for the store,
/// [`Abandoned::carry_over`] takes them to our own journal first.
pub fn adopt(dir: &Path, own: InstanceId, barrier: &Arc<Barrier>) -> Result<Adoption, AdoptError> {
    let mut adoption = Adoption { abandoned: Vec::new(), running: Vec::new() };
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(adoption),
        listed => listed.map_err(|source| AdoptError::Io { path: dir.to_owned(), source })?,
    };
    for file in listed {
        let path = file.map_err(|source| AdoptError::Io { path: dir.to_owned(), source })?.path();
        let failed = |source| AdoptError::Io { path: path.clone(), source };
        if segment::is_draft(&path) {
            // An empty one may be a moment old, its maker just about to lock it.
            if let Some(draft) = take(&path).map_err(failed)?
                && draft.metadata().map_err(failed)?.len() > 0
            {
                fs::remove_file(&path).map_err(failed)?;
            }
            continue;
        }
        let Some(instance) = segment::owner_of(&path).filter(|instance| *instance != own) else { continue };
        match take(&path).map_err(failed)? {
            None => adoption.running.push(instance),
            Some(file) => {
                let salt = segment::read_salt(&file).map_err(failed)?;
                adoption.abandoned.push(Abandoned {
                    file,
                    instance,
                    barrier: Arc::clone(barrier),
                    salt,
                    offset: HEADER_LEN as u64,
                    finished: false,
                    unreadable: usize::from(salt.is_none()),
                    path,
                });
            }
        }
    }
    // ULIDs begin with the time: the oldest process first.
    adoption.abandoned.sort_by_key(|abandoned| abandoned.instance);
    Ok(adoption)
}

/// Opens and locks a file; `None` if somebody else has it, or had it a moment ago.
fn take(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match segment::lock(&file) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        locked => locked?,
    }
    // The lock is on the file, not on its name: its owner may have put a new one there, or another heir removed it.
    Ok(segment::still_names(path, &file)?.then_some(file))
}

impl Abandoned {
    /// Whose it was. Once it is read to its end, nothing more can come from that instance.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The next entry, oldest first; `None` at the end. An entry that does not open is counted and passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, AdoptError> {
        let Some(salt) = self.salt else {
            self.finished = true;
            return Ok(None);
        };
        // What does not check is the half-written end, unless something whole follows: then it is damage.
        let mut broken = 0;
        loop {
            let found = segment::read_frame(&self.file, &salt, self.offset)
                .map_err(|source| AdoptError::Io { path: self.path.clone(), source })?;
            let len = match &found {
                Found::Whole(sealed) => sealed.len(),
                Found::Broken(len) => *len,
                Found::End => {
                    self.finished = true;
                    return Ok(None);
                }
            };
            self.offset += (FRAME_OVERHEAD + len) as u64;
            match found {
                Found::Whole(sealed) => {
                    self.unreadable += std::mem::take(&mut broken);
                    match open_entry(&self.barrier, self.instance, &sealed) {
                        Some(entry) => return Ok(Some(entry)),
                        None => self.unreadable += 1,
                    }
                }
                Found::Broken(_) => broken += 1,
                Found::End => {}
            }
        }
    }

    /// Removes the file. Call it when every entry is settled; it refuses unless all of them could be read.
    pub fn remove(self) -> Result<(), AdoptError> {
        let Self { path, unreadable, .. } = &self;
        if !self.finished {
            return Err(AdoptError::Unfinished { path: path.clone() });
        }
        if *unreadable > 0 {
            return Err(AdoptError::Unreadable { path: path.clone(), unreadable: *unreadable });
        }
        fs::remove_file(path)
            .and_then(|()| path.parent().map_or(Ok(()), segment::sync_dir))
            .map_err(|source| AdoptError::Io { path: path.clone(), source })
    }

    /// Takes the entries that could not be settled yet to our own journal, and removes the file once they are durable
    /// there.
    pub async fn carry_over(self, journal: &Journal, unsettled: &[Entry]) -> Result<(), AdoptError> {
        // Many at once, so that they share the waits for the disk.
        let appends = unsettled.iter().map(|entry| journal.append(&entry.connection, entry.attempt, &entry.payload));
        stream::iter(appends.collect::<Vec<_>>())
            .buffer_unordered(CARRIED_AT_ONCE)
            .try_for_each(|()| ready(Ok(())))
            .await
            .map_err(AdoptError::CarryOver)?;
        self.remove()
    }
}
