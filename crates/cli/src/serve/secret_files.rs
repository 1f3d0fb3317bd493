//! Secrets in files (`x_file`) change while the server runs: whoever rotates one does not restart us.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokenkeep_engine::Engine;

use super::installation::Installation;
use crate::{config::Config, environment::Environment};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What is seen of a file without reading it; `None` = it is not there at present.
type Look = Option<(SystemTime, u64)>;

/// The files that keys and integrations were read from, as they were seen last.
#[derive(Debug)]
struct SecretFiles(BTreeMap<PathBuf, Look>);

impl SecretFiles {
    fn of(config: &Config) -> Self {
        let keys = config.keys.iter().filter_map(|key| key.secret_file.as_ref());
        let integrations =
            config.integrations.iter().flat_map(|i| [&i.client_secret_file, &i.signing_key_file]).flatten();
        Self(keys.chain(integrations).map(|path| (path.clone(), look(path))).collect())
    }

    /// Whether any of them looks different from the last time. One that is gone for a moment, as while it is being
    /// replaced, is no change.
    fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.0 {
            let now = look(path);
            changed |= now.is_some() && now != *seen;
            *seen = now.or(*seen);
        }
        changed
    }
}

fn look(path: &Path) -> Look {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Takes changed secrets over, for ever. What cannot be read leaves everything as it is, and is said once.
pub(super) async fn follow(config: Arc<Config>, environment: Environment, engine: Engine) {
    let mut files = SecretFiles::of(&config);
    if files.0.is_empty() {
        return;
    }
    loop {
        engine.clock().sleep(LOOK).await;
        if !files.changed() {
            continue;
        }
        let renewed = match Installation::read(&config, &environment) {
            Ok(installation) => installation.renew(&engine).await,
            Err(error) => Err(error),
        };
        match renewed {
            Ok(()) => tracing::info!("secret files changed and were read again"),
            Err(error) => tracing::error!("secret files changed and cannot be used, so the former stay: {error:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_changed_file_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, config) = (dir.path().join("secret"), dir.path().join("t.toml"));
        fs::write(&secret, "one").unwrap();
        let text = format!(
            "[[integration]]\nprovider = \"google\"\nclient_id = \"c\"\nclient_secret_file = \"{}\"\n",
            secret.display()
        );
        fs::write(&config, text).unwrap();
        let config = Config::load(Some(&config), &Environment::default()).unwrap();
        let mut files = SecretFiles::of(&config);
        assert_eq!(files.0.len(), 1);
        assert!(!files.changed());
        fs::write(&secret, "another").unwrap();
        assert!(files.changed());
        assert!(!files.changed());
        fs::remove_file(&secret).unwrap();
        assert!(!files.changed(), "it may be on its way back");
        fs::write(&secret, "a third one").unwrap();
        assert!(files.changed());
    }
}
