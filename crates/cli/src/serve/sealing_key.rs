//! The root key: found where the configuration says, or made once for a store that is ours alone.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret as _;
use tokenkeep_core::ports::Entropy;
use tokenkeep_engine::barrier::RootKey;
use tokenkeep_oauth::Secret;
use tokenkeep_store::Transit;
use zeroize::Zeroizing;

use super::data_dir::DataDir;
use crate::config::{Sealing, read_secret_file, secret_of_command};

/// The keys of an installation.
#[derive(Debug)]
pub(crate) struct SealingKeys {
    pub(crate) active: RootKey,
    pub(crate) retired: Vec<RootKey>,
    pub(crate) from: Source,
}

/// Where the active key is from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `[sealing] key`, `key_file` or `key_command`.
    Configured(&'static str),
    /// The file in the data directory.
    Ours(PathBuf),
    /// The same, made just now.
    Made(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Configured(key) => write!(f, "[sealing] {key}"),
            Source::Ours(path) => write!(f, "{}", path.display()),
            Source::Made(path) => write!(f, "{} (made now: keep a copy of it somewhere safe)", path.display()),
        }
    }
}

/// What is known of the store the key is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreFacts {
    /// Only this data directory uses it.
    pub(crate) is_ours: bool,
    /// Nothing was ever sealed for it.
    pub(crate) is_empty: bool,
}

/// Finds the keys. One is made only for a store that is ours and empty: a shared store gets its key from whoever runs
/// it, and a key made for sealed records could not open them.
pub(crate) async fn find(
    sealing: &Sealing,
    dir: &DataDir,
    store: StoreFacts,
    entropy: &dyn Entropy,
    transit: Option<&Transit>,
) -> Result<SealingKeys> {
    let (active, from) = active(sealing, dir, store, entropy, transit).await?;
    let mut retired = Vec::new();
    for key in &sealing.retired_keys {
        retired.push(parse(key, transit).await.context("`sealing.retired_keys` cannot be used")?);
    }
    for path in &sealing.retired_key_files {
        retired.push(parse_file(path, transit).await.context("`sealing.retired_key_files` cannot be used")?);
    }
    Ok(SealingKeys { active, retired, from })
}

async fn active(
    sealing: &Sealing,
    dir: &DataDir,
    store: StoreFacts,
    entropy: &dyn Entropy,
    transit: Option<&Transit>,
) -> Result<(RootKey, Source)> {
    match (&sealing.key, &sealing.key_file, &sealing.key_command) {
        (Some(key), None, None) => {
            let key = parse(key, transit).await.context("`sealing.key` cannot be used")?;
            Ok((key, Source::Configured("key")))
        }
        (None, Some(path), None) => {
            warn_if_readable(path);
            let key = parse_file(path, transit).await.context("`sealing.key_file` cannot be used")?;
            Ok((key, Source::Configured("key_file")))
        }
        (None, None, Some(command)) => {
            let key = secret_of_command(command).context("`sealing.key_command` cannot be used")?;
            let key = parse(&key, transit).await.context("what `sealing.key_command` prints cannot be used")?;
            Ok((key, Source::Configured("key_command")))
        }
        (None, None, None) => ours(dir, store, entropy).await,
        _ => bail!("of `key`, `key_file` and `key_command` in [sealing] more than one is set; keep one"),
    }
}

async fn ours(dir: &DataDir, store: StoreFacts, entropy: &dyn Entropy) -> Result<(RootKey, Source)> {
    let path = dir.sealing_key();
    if path.try_exists().with_context(|| format!("the sealing key {} cannot be looked at", path.display()))? {
        refuse_if_readable(&path)?;
        return Ok((parse_file(&path, None).await?, Source::Ours(path)));
    }
    if !store.is_ours {
        bail!(
            "there is no sealing key, and none is made for a store outside the data directory. Make one with `tokenkeep \
             secret sealing-key`, keep it safe, and name it with `[sealing] key_file`"
        );
    }
    if !store.is_empty {
        bail!(
            "the sealing key {path} is missing, but the database beside it holds records that were sealed with it. Put the \
             file back from your copy. Without it nothing in the database can be read; to begin anew, move the whole \
             directory {dir} away",
            path = path.display(),
            dir = dir.path().display()
        );
    }
    make(&path, entropy).await
}

/// Makes the key whole or not at all: a process killed in between leaves no half of one.
async fn make(path: &Path, entropy: &dyn Entropy) -> Result<(RootKey, Source)> {
    let failed = || format!("the sealing key {} cannot be written", path.display());
    let key = RootKey::generate(entropy);
    let draft = path.with_extension(format!("key.{}", std::process::id()));
    let written = write_draft(&draft, &key).and_then(|()| std::fs::hard_link(&draft, path));
    // Whatever came of it, the draft has served; a next start would not read it.
    let _ = std::fs::remove_file(&draft);
    match written {
        Ok(()) => {}
        // Another first start was faster: its key is the key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Ok((parse_file(path, None).await?, Source::Ours(path.to_owned())));
        }
        Err(error) => return Err(error).with_context(failed),
    }
    // The name must be as durable as the content, before anything is sealed with it.
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()).with_context(failed)?;
    Ok((key, Source::Made(path.to_owned())))
}

fn write_draft(draft: &Path, key: &RootKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    file.write_all(key.to_base64().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// A key as it is, or as Vault's Transit engine wrapped it.
async fn parse(key: &Secret, transit: Option<&Transit>) -> Result<RootKey> {
    let text = key.expose_secret().trim();
    if !text.starts_with("vault:v") {
        return Ok(RootKey::parse(text)?);
    }
    let transit =
        transit.context("it is wrapped by Vault's Transit engine: name the key there with `[sealing] transit_key`")?;
    let plain = transit.unwrap(text).await?;
    Ok(RootKey::parse(&Zeroizing::new(BASE64_STANDARD.encode(&plain)))?)
}

async fn parse_file(path: &Path, transit: Option<&Transit>) -> Result<RootKey> {
    let key = read_secret_file(path)?;
    parse(&key, transit).await.with_context(|| format!("{} does not hold a sealing key", path.display()))
}

/// Who else may read it, if anyone: its mode.
pub(crate) fn readable_by_others(path: &Path) -> io::Result<Option<u32>> {
    let mode = std::fs::metadata(path)?.mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Our own file was made with mode 0600: somebody opened it, knowing or not.
fn refuse_if_readable(path: &Path) -> Result<()> {
    let mode = readable_by_others(path).with_context(|| format!("{} cannot be looked at", path.display()))?;
    if let Some(mode) = mode {
        bail!(
            "the sealing key {path} may be read by other users (mode {mode:o}). If none of them has: `chmod 600 {path}`. If \
             one may have, what is sealed with it is no longer safe",
            path = path.display()
        );
    }
    Ok(())
}

/// A file that somebody else provides (a mounted secret) often cannot have another mode.
fn warn_if_readable(path: &Path) {
    if let Ok(Some(mode)) = readable_by_others(path) {
        tracing::warn!("the sealing key {} may be read by other users (mode {mode:o})", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokenkeep_testkit::SeededEntropy;

    use super::*;

    const OURS: StoreFacts = StoreFacts { is_ours: true, is_empty: true };

    async fn find_in(dir: &Path, sealing: &Sealing, facts: StoreFacts) -> Result<SealingKeys> {
        find(sealing, &DataDir::at(dir.to_owned()), facts, &SeededEntropy::new(7), None).await
    }

    async fn error(dir: &Path, sealing: &Sealing, facts: StoreFacts) -> String {
        format!("{:#}", find_in(dir, sealing, facts).await.unwrap_err())
    }

    #[tokio::test]
    async fn it_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.key");
        let made = find_in(dir.path(), &Sealing::default(), OURS).await.unwrap();
        assert_eq!(made.from, Source::Made(path.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let found = find_in(dir.path(), &Sealing::default(), StoreFacts { is_empty: false, ..OURS }).await.unwrap();
        assert_eq!(found.from, Source::Ours(path));
        assert_eq!(found.active.id(), made.active.id());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn none_is_made_where_it_could_not_be_right() {
        let dir = tempfile::tempdir().unwrap();
        let said = error(dir.path(), &Sealing::default(), StoreFacts { is_ours: true, is_empty: false }).await;
        assert!(said.contains("is missing") && said.contains("Put the file back"), "{said}");
        let said = error(dir.path(), &Sealing::default(), StoreFacts { is_ours: false, is_empty: true }).await;
        assert!(said.contains("tokenkeep secret sealing-key"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        find_in(dir.path(), &Sealing::default(), OURS).await.unwrap();
        let path = dir.path().join("sealing.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let said = error(dir.path(), &Sealing::default(), OURS).await;
        assert!(said.contains("chmod 600"), "{said}");
    }

    #[tokio::test]
    async fn it_comes_from_where_the_configuration_says() {
        let dir = tempfile::tempdir().unwrap();
        let text = RootKey::generate(&SeededEntropy::new(1)).to_base64();
        let id = RootKey::parse(&text).unwrap().id();
        let path = dir.path().join("given");
        std::fs::write(&path, &*text).unwrap();
        let shared = StoreFacts { is_ours: false, is_empty: false };
        for sealing in [
            Sealing { key: Some(Secret::from(text.as_str())), ..Sealing::default() },
            Sealing { key_file: Some(path.clone()), ..Sealing::default() },
            Sealing { key_command: Some(format!("cat {}", path.display())), ..Sealing::default() },
        ] {
            assert_eq!(find_in(dir.path(), &sealing, shared).await.unwrap().active.id(), id);
        }
        let both = Sealing { key: Some(Secret::from(text.as_str())), key_file: Some(path), ..Sealing::default() };
        assert!(error(dir.path(), &both, shared).await.contains("more than one"));
        let wrong = Sealing { key: Some(Secret::from("SECRETVALUE")), ..Sealing::default() };
        let said = error(dir.path(), &wrong, shared).await;
        assert!(said.contains("`sealing.key`") && !said.contains("SECRETVALUE"), "{said}");
    }
}
