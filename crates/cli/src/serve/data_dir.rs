//! The directory that everything of ours is in.

use std::{
    fs::DirBuilder,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Where our files are.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Names it; nothing is looked at.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes it where it is missing, for this user only.
    pub(crate) fn prepare(path: PathBuf) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path).with_context(|| {
            format!("the data directory {} cannot be made; name another with `--data-dir DIR`", path.display())
        })?;
        let dir = Self(path);
        let meta = std::fs::metadata(dir.path())
            .with_context(|| format!("the data directory {} cannot be looked at", dir.path().display()))?;
        if !meta.is_dir() {
            bail!("{} is not a directory; name another with `--data-dir DIR`", dir.path().display());
        }
        // Changed by us it would be a surprise: it may be somebody's home.
        if let Some(finding) = dir.exposure()? {
            tracing::warn!("{finding}");
        }
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("tokenkeep.db")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(crate) fn sealing_key(&self) -> PathBuf {
        self.0.join("sealing.key")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("tokenkeep.sock")
    }

    /// What is wrong with who may look into it, if anything.
    pub(crate) fn exposure(&self) -> Result<Option<String>> {
        let meta = std::fs::metadata(&self.0).with_context(|| format!("{} cannot be looked at", self.0.display()))?;
        let mode = meta.mode() & 0o777;
        Ok((mode & 0o077 != 0).then(|| {
            format!(
                "other users may look into the data directory {path} (mode {mode:o}): `chmod 700 {path}`",
                path = self.0.display()
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_for_this_user_only() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(parent.path().join("a/b")).unwrap();
        assert_eq!(std::fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(dir.exposure().unwrap(), None);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(dir.exposure().unwrap().unwrap().contains("chmod 700"));
    }

    #[test]
    fn a_file_is_no_directory() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("x"), "").unwrap();
        assert!(format!("{:#}", DataDir::prepare(parent.path().join("x")).unwrap_err()).contains("--data-dir"));
    }
}
