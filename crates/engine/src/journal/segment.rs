//! One journal file: created whole or not at all, locked for as long as it is open.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokenkeep_core::InstanceId;

use super::{
    JournalError,
    frame::{self, FRAME_OVERHEAD, HEADER_LEN, Salt},
};

const SUFFIX: &str = ".journal";
/// A file in the making. It holds nothing that is not elsewhere as well.
const DRAFT_SUFFIX: &str = ".draft";

/// Which instance's journal a file is, by its name.
pub(super) fn owner_of(path: &Path) -> Option<InstanceId> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Whether a file is a journal in the making.
pub(super) fn is_draft(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(DRAFT_SUFFIX))
}

/// Makes the directory, for us alone, and refuses one that is not on a local disk.
pub(super) fn prepare_dir(dir: &Path) -> Result<(), JournalError> {
    let unwritable = |source: io::Error| JournalError::unwritable(dir, source);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unwritable)?;
    let mut permissions = fs::metadata(dir).map_err(unwritable)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o700);
        fs::set_permissions(dir, permissions).map_err(unwritable)?;
    }
    match network_file_system(dir).map_err(unwritable)? {
        Some(kind) => Err(JournalError::NetworkFileSystem { dir: dir.to_owned(), kind }),
        None => Ok(()),
    }
}

/// File systems whose locks or flushes may mean less than they say, by the magic number that `statfs` tells.
#[cfg(target_os = "linux")]
const NETWORK_FILE_SYSTEMS: [(i128, &str); 14] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
];

#[cfg(target_os = "linux")]
pub(super) fn network_file_system_of_magic(magic: i128) -> Option<&'static str> {
    NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(target_os = "linux")]
fn network_file_system(dir: &Path) -> io::Result<Option<&'static str>> {
    // The field's width and sign differ by architecture; the magic numbers are 32 bits wide.
    let magic = i128::from(rustix::fs::statfs(dir)?.f_type) & 0xffff_ffff;
    Ok(network_file_system_of_magic(magic))
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// Makes what happened to the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether `path` still names the file that is open as `file`.
pub(super) fn still_names(path: &Path, file: &File) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A journal file of our own.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    salt: Salt,
    /// Where the next frame goes.
    pub(super) used: u64,
    /// Up to where space is reserved.
    pub(super) allocated: u64,
    faults: Arc<Faults>,
}

impl Segment {
    /// Makes the journal of `instance` with `allocated` bytes of reserved space, filled by `contents`, in the place of
    /// the one that is there. Nobody sees it before it is complete, locked and durable.
    pub(super) fn create(
        dir: &Path,
        instance: InstanceId,
        salt: Salt,
        allocated: u64,
        faults: &Arc<Faults>,
        contents: impl FnOnce(&mut Segment) -> io::Result<()>,
    ) -> io::Result<Self> {
        let draft = dir.join(format!("{instance}{DRAFT_SUFFIX}"));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
        let mut segment = Self { file, salt, used: HEADER_LEN as u64, allocated: 0, faults: Arc::clone(faults) };
        let made = segment.make(&draft, dir, instance, allocated, contents);
        if made.is_err() {
            // It may be gone already; and if it is not, the next one in this directory clears it away.
            let _ = fs::remove_file(&draft);
        }
        made.map(|()| segment)
    }

    fn make(
        &mut self,
        draft: &Path,
        dir: &Path,
        instance: InstanceId,
        allocated: u64,
        contents: impl FnOnce(&mut Segment) -> io::Result<()>,
    ) -> io::Result<()> {
        // Waits: whoever clears away old drafts may be looking at it.
        self.file.lock()?;
        self.extend_to(allocated)?;
        self.file.write_all_at(&frame::header(self.salt), 0)?;
        contents(self)?;
        self.faults.before_sync()?;
        self.file.sync_all()?;
        if !still_names(draft, &self.file)? {
            return Err(io::Error::other("somebody else cleared the file away while it was made"));
        }
        fs::rename(draft, path_of(dir, instance))?;
        sync_dir(dir)
    }

    /// Reserves space up to `allocated` bytes, so that a later write needs none.
    pub(super) fn extend_to(&mut self, allocated: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let missing = allocated.saturating_sub(self.allocated);
        if missing == 0 {
            return Ok(());
        }
        self.faults.before_write()?;
        reserve(&self.file, self.allocated, missing)?;
        // Written, not only reserved: otherwise each later flush would have to note which blocks came into use.
        let mut at = self.allocated;
        while at < allocated {
            let block = usize::try_from(allocated - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.file.write_all_at(&ZEROS[..block], at)?;
            at += block as u64;
        }
        self.faults.before_sync()?;
        self.file.sync_all()?;
        self.allocated = allocated;
        Ok(())
    }

    /// Writes frames one after the other, without making them durable; answers where each begins. If it fails,
    /// nothing counts as written.
    pub(super) fn write<'a>(&mut self, sealed: impl Iterator<Item = &'a [u8]>) -> io::Result<Vec<u64>> {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for sealed in sealed {
            let offset = self.used + bytes.len() as u64;
            frame::write_frame(&mut bytes, &self.salt, offset, sealed);
            offsets.push(offset);
        }
        self.faults.before_write()?;
        self.file.write_all_at(&bytes, self.used)?;
        self.used += bytes.len() as u64;
        Ok(offsets)
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.faults.before_sync()?;
        self.file.sync_data()
    }

    /// What lies at `offset`.
    pub(super) fn read(&self, offset: u64) -> io::Result<Found> {
        read_frame(&self.file, &self.salt, offset)
    }
}

/// What lies somewhere in a journal file.
pub(super) enum Found {
    /// A frame with these sealed bytes.
    Whole(Vec<u8>),
    /// Something that begins like a frame with this many sealed bytes, but is none.
    Broken(usize),
    /// Nothing.
    End,
}

/// What lies at `offset`.
pub(super) fn read_frame(file: &File, salt: &Salt, offset: u64) -> io::Result<Found> {
    let mut prefix = [0; FRAME_OVERHEAD];
    if !read_fully(file, &mut prefix, offset)? {
        return Ok(Found::End);
    }
    let Some((len, sum)) = frame::read_prefix(prefix) else { return Ok(Found::End) };
    let mut sealed = vec![0; len];
    let whole = read_fully(file, &mut sealed, offset + FRAME_OVERHEAD as u64)?;
    Ok(if whole && frame::checksum(salt, offset, &sealed) == sum { Found::Whole(sealed) } else { Found::Broken(len) })
}

/// The salt of an open journal file; `None` if it is none in the form we write.
pub(super) fn read_salt(file: &File) -> io::Result<Option<Salt>> {
    let mut header = [0; HEADER_LEN];
    Ok(if read_fully(file, &mut header, 0)? { frame::salt_of(header) } else { None })
}

/// Fills `bytes`; false if the file ends before.
fn read_fully(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn path_of(dir: &Path, instance: InstanceId) -> PathBuf {
    dir.join(format!("{instance}{SUFFIX}"))
}

/// Takes the file's lock, which lasts until the file is closed: by us, or by our end.
pub(super) fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another process holds its lock"),
        TryLockError::Error(error) => error,
    })
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, from: u64, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, len) {
        // Not every file system can; writing zeros, which follows, does the same more slowly.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

/// What a test may break: the disk refuses to write, or to flush. Nothing can set it outside tests.
#[derive(Debug, Default)]
pub(super) struct Faults {
    #[cfg(test)]
    pub(super) no_writes: std::sync::atomic::AtomicBool,
    #[cfg(test)]
    pub(super) no_syncs: std::sync::atomic::AtomicBool,
    #[cfg(test)]
    pub(super) syncs: std::sync::atomic::AtomicUsize,
}

#[cfg(not(test))]
#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the tests' version fails")]
impl Faults {
    fn before_write(&self) -> io::Result<()> {
        Ok(())
    }
    fn before_sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Faults {
    fn before_write(&self) -> io::Result<()> {
        let full = self.no_writes.load(std::sync::atomic::Ordering::SeqCst);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn before_sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let broken = self.no_syncs.load(std::sync::atomic::Ordering::SeqCst);
        if broken { Err(io::Error::other("the disk does not flush")) } else { Ok(()) }
    }
}
