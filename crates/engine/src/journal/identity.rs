//! Which journal directory is whose: a name that stays with the disk, whoever mounts it where.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use tokenkeep_core::{Now, id::Ulid, ports::Entropy};

use super::{JournalError, segment};

const FILE: &str = "identity";

/// The identity of a journal's directory, made at the first look.
pub fn identity(dir: &Path, entropy: &dyn Entropy, now: Now) -> Result<String, JournalError> {
    find_or_make(dir, entropy.ulid(now)).map_err(|source| JournalError::unwritable(dir, source))
}

fn find_or_make(dir: &Path, fresh: Ulid) -> io::Result<String> {
    let path = dir.join(FILE);
    if !path.try_exists()? {
        // Written elsewhere and linked, so that of several who start together each reads the whole of one.
        let draft = dir.join(format!("{FILE}.{fresh}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "{fresh}")?;
        file.sync_all()?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => segment::sync_dir(dir)?,
        }
    }
    let text = fs::read_to_string(&path)?;
    let not_ours = |_| io::Error::new(io::ErrorKind::InvalidData, "the file `identity` there is not ours");
    text.trim().parse::<Ulid>().map(|id| id.to_string()).map_err(not_ours)
}

#[cfg(test)]
mod tests {
    use tokenkeep_core::ports::Clock as _;
    use tokenkeep_testkit::{ManualClock, SeededEntropy};

    use super::*;

    #[test]
    fn it_stays_and_is_the_same_for_everybody() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (entropy, now) = (SeededEntropy::default(), ManualClock::default().now());
        let first = identity(dir.path(), &entropy, now).unwrap();
        assert_eq!(identity(dir.path(), &entropy, now).unwrap(), first);
        assert_ne!(identity(other.path(), &entropy, now).unwrap(), first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_file_of_somebody_else_is_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "hello").unwrap();
        identity(dir.path(), &SeededEntropy::default(), ManualClock::default().now()).unwrap_err();
    }
}
