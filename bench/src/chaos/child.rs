//! The process that is killed: one engine on SQLite, one connection, one read.

use std::{io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use tokenkeep_core::ConnectionId;
use tokenkeep_engine::{
    Caller, Engine, Error, Given, Parts, PutIntegration, PutMode, PutTokens, Settings,
    barrier::{Barrier, RootKey},
    catalogue::{Catalogue, parse_provider_toml},
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Pacer, Pacing, TransportOptions},
};
use tokenkeep_store::Sqlite;
use url::Url;

use super::{
    Step,
    holding::{Hold, HoldingStore, HoldingTransport},
};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    data_dir: PathBuf,
    /// The fake provider's base URL.
    #[arg(long)]
    provider: Url,
    /// As the catalogue writes it: `strict`, `none`, `{ grace = { ... } }`.
    #[arg(long)]
    rotation: String,
    /// Stores this refresh token with an access token that is dead already, unless there is a connection.
    #[arg(long)]
    seed: Option<String>,
    /// Stops at this step.
    #[arg(long)]
    hold: Option<Step>,
    /// Refuses every commit of a reply.
    #[arg(long)]
    refuse_commits: bool,
    /// How often the token is read; `0` = until told otherwise by a line on standard input.
    #[arg(long, default_value_t = 1)]
    reads: u32,
    /// Asks for a refresh after the first read.
    #[arg(long)]
    force: bool,
}

pub const CONNECTION: &str = "fake/_default/alice";
const SEALING_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let engine = start(&arguments).await?;
    let id: ConnectionId = CONNECTION.parse()?;
    if let Some(seed) = &arguments.seed {
        let tokens = PutTokens {
            access_token: None,
            refresh_token: Given::Value(seed.as_str().into()),
            expires_at: None,
            scope: None,
            token_type: None,
            display_name: None,
        };
        let mode = PutMode { force: false, only_if_absent: true };
        match engine.connections().put(&Caller::Local, &id, tokens, mode).await {
            Ok(_) | Err(Error::AlreadyThere { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("started");
    for read in 0..arguments.reads {
        say(engine.connections().token(&Caller::Local, &id, Duration::from_secs(60)).await);
        if read == 0 && arguments.force {
            say(engine.connections().refresh(&Caller::Local, &id, None).await);
        }
    }
    // Ended by whoever started it: nothing is tidied up, as in a crash.
    std::future::pending::<()>().await;
    Ok(())
}

fn say(result: Result<Arc<tokenkeep_engine::Ready>, Error>) {
    use secrecy::ExposeSecret as _;
    let line = match result {
        Ok(ready) => serde_json::json!({ "token": ready.token.expose_secret(), "generation": ready.generation.0 }),
        Err(Error::ReauthRequired { reason, .. }) => serde_json::json!({ "code": "reauth_required", "reason": reason }),
        Err(error) => serde_json::json!({ "code": error.code(), "detail": error.to_string() }),
    };
    println!("read {line}");
    let _ = std::io::stdout().flush();
}

async fn start(arguments: &Arguments) -> anyhow::Result<Engine> {
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SystemEntropy);
    let hold = Hold::new(arguments.hold, arguments.refuse_commits);
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let transport = HyperTransport::new(clock.clone(), pacer.clone(), &TransportOptions::default())?;
    let store = Sqlite::open(arguments.data_dir.join("tokenkeep.db")).await?;
    let base = arguments.provider.as_str().trim_end_matches('/');
    let provider = format!(
        "id = \"fake\"\ndisplay_name = \"Fake\"\nauthorize_url = \"{base}/authorize\"\ntoken_url = \"{base}/token\"\n\
         rotation = {}\nmargin = 60\n",
        arguments.rotation
    );
    let parts = Parts {
        store: Arc::new(HoldingStore { inner: Arc::new(store), hold: hold.clone() }),
        bus: None,
        shared_cache: None,
        counter: None,
        barrier: Barrier::new(&RootKey::parse(SEALING_KEY)?, &[], entropy.clone()),
        transport: Arc::new(HoldingTransport { inner: Arc::new(transport), hold }),
        outbound: None,
        pacer: Some(pacer),
        catalogue: Catalogue::with(vec![parse_provider_toml("fake", &provider)?])?,
        journal_dir: Some(arguments.data_dir.join("journal")),
        clock,
        entropy,
    };
    let mut settings = Settings::new("http://localhost:7420".parse()?);
    // Only reads refresh here.
    settings.preload_interval = Duration::from_hours(1);
    let engine = Engine::start(parts, settings).await?;
    let integration = PutIntegration {
        provider: Some("fake".parse()?),
        client_id: "fake-client".to_owned(),
        client_secret: Some("fake-client-secret".into()),
        ..PutIntegration::default()
    };
    engine.integrations().put(&Caller::Local, &"fake".parse()?, integration).await?;
    Ok(engine)
}
