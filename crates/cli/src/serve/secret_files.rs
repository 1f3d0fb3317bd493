//! Secrets in files (`x_file`) change while the server runs: whoever rotates one does not restart us.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokenkeep_engine::Engine;
use url::Url;

use super::installation::Installation;
use crate::{config::Config, environment::Environment};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What is seen of a file without reading it; `None` = it is not there at present.
type Look = Option<(SystemTime, u64)>;

/// The files that secrets and keys were read from, as they were seen last.
#[derive(Debug)]
struct SecretFiles(BTreeMap<PathBuf, Look>);

impl SecretFiles {
    fn of(config: &Config) -> Self {
        let keys = config.keys.iter().filter_map(|key| key.secret_file.as_ref());
        let integrations =
            config.integrations.iter().flat_map(|i| [&i.client_secret_file, &i.signing_key_file]).flatten();
        let clients =
            config.clients.iter().flat_map(|client| [&client.client_secret_file, &client.jwks_file]).flatten();
        let resources = config.issuer.iter().flat_map(|issuer| &issuer.resource);
        let signing = resources.filter_map(|resource| resource.signing_secret_file.as_ref());
        let registration = config.issuer.iter().filter_map(|issuer| issuer.registration_token_file.as_ref());
        let sessions = config.sessions.iter().filter_map(|sessions| sessions.signing_secret_file.as_ref());
        let issuing = clients.chain(signing).chain(registration).chain(sessions);
        Self(keys.chain(integrations).chain(issuing).map(|path| (path.clone(), look(path))).collect())
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
pub(super) async fn follow(config: Arc<Config>, environment: Environment, public_url: Url, engine: Engine) {
    let mut files = SecretFiles::of(&config);
    if files.0.is_empty() {
        return;
    }
    loop {
        engine.clock().sleep(LOOK).await;
        if files.changed() {
            take_over(&config, &environment, &public_url, &engine).await;
        }
    }
}

async fn take_over(config: &Config, environment: &Environment, public_url: &Url, engine: &Engine) {
    let renewed = match Installation::read_at(config, environment, public_url) {
        Ok(installation) => installation.renew(engine).await,
        Err(error) => Err(error),
    };
    match renewed {
        Ok(()) => tracing::info!("secret files changed and were read again"),
        Err(error) => tracing::error!("secret files changed and cannot be used, so the former stay: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokenkeep_engine::{
        Parts, Settings,
        barrier::{Barrier, RootKey},
        system::SystemEntropy,
        transport::{HyperTransport, Pacer, Pacing, TransportOptions},
    };
    use tokenkeep_oauth::issuer::client::AuthMethod;
    use tokenkeep_testkit::ManualClock;

    use super::*;
    use crate::serve::issuer;

    /// A configuration in which every secret comes from a file, and the files.
    fn config(dir: &Path) -> (Arc<Config>, Vec<PathBuf>) {
        let names = ["google", "key", "client", "resource", "registration"];
        let files: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
        for file in &files {
            fs::write(file, format!("{} and enough of it for a key", file.display())).unwrap();
        }
        fs::write(dir.join("key"), "tk_of_the_mailer_and_nobody_else_at_all_in_the_world").unwrap();
        let place = |name: &str| dir.join(name).display().to_string();
        let text = format!(
            "[[integration]]\nprovider = \"google\"\nclient_id = \"c\"\nclient_secret_file = \"{}\"\n\
             [[key]]\nname = \"mailer\"\nrole = \"reader\"\nsecret_file = \"{}\"\n\
             [[client]]\nclient_id = \"backend\"\nclient_secret_file = \"{}\"\n\
             [issuer]\nregistration = \"token\"\nregistration_token_file = \"{}\"\n\
             [[issuer.resource]]\nurl = \"https://mcp.example.com\"\nalgorithm = \"HS256\"\nsigning_secret_file = \"{}\"\n",
            place("google"),
            place("key"),
            place("client"),
            place("registration"),
            place("resource"),
        );
        let path = dir.join("t.toml");
        fs::write(&path, text).unwrap();
        for name in ["client", "registration"] {
            fs::write(dir.join(name), format!("{name}-secret-number-one")).unwrap();
        }
        (Arc::new(Config::load(Some(&path), &Environment::default()).unwrap()), files)
    }

    #[test]
    fn only_a_changed_file_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (config, all) = config(dir.path());
        let mut files = SecretFiles::of(&config);
        assert_eq!(files.0.len(), all.len());
        assert!(!files.changed());
        for file in all {
            fs::write(&file, "another").unwrap();
            assert!(files.changed(), "{}", file.display());
            assert!(!files.changed());
            fs::remove_file(&file).unwrap();
            assert!(!files.changed(), "it may be on its way back");
            fs::write(&file, "a third one").unwrap();
            assert!(files.changed(), "{}", file.display());
        }
    }

    #[tokio::test]
    async fn a_changed_secret_is_taken_over_and_a_wrong_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (config, _) = config(dir.path());
        let public_url: Url = "http://localhost:7420".parse().unwrap();
        let engine = engine(&config, &public_url).await;
        let issuer = engine.issuer().unwrap();
        let is_proven =
            |secret: &str| issuer.authenticated("backend", &secret.into(), AuthMethod::ClientSecretBasic).is_some();
        let (first, second) = ("client-secret-number-one", "client-secret-number-two");
        assert!(is_proven(first) && !is_proven(second));
        for secret in [second, "short"] {
            fs::write(dir.path().join("client"), secret).unwrap();
            take_over(&config, &Environment::default(), &public_url, &engine).await;
            assert!(is_proven(second) && !is_proven(first), "{secret}");
        }
    }

    async fn engine(config: &Config, public_url: &Url) -> Engine {
        let (clock, entropy) = (Arc::new(ManualClock::default()), Arc::new(SystemEntropy));
        let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
        let transport = HyperTransport::new(clock.clone(), pacer.clone(), &TransportOptions::default()).unwrap();
        let parts = Parts {
            store: Arc::new(tokenkeep_store::Memory::new()),
            bus: None,
            shared_cache: None,
            counter: None,
            barrier: Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone()),
            transport: Arc::new(transport),
            outbound: None,
            pacer: Some(pacer),
            catalogue: config.catalogue.clone(),
            journal_dir: None,
            clock,
            entropy,
        };
        let issuer = issuer::settings(config, public_url).unwrap().map(Arc::new);
        Engine::start(parts, Settings { issuer, ..Settings::new(public_url.clone()) }).await.unwrap()
    }
}
