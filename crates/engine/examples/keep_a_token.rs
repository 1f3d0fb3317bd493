//! tokenkeep without a server: an engine in this process, a provider, a token that stays fresh.
//!
//! ```sh
//! cargo run -p tokenkeep-engine --example keep_a_token
//! ```
//!
//! The provider here is the fake one of our tests, so that the example runs anywhere; with a real one, only the client id,
//! the secret and the first refresh token differ, and the store is `tokenkeep_store::Sqlite`.

use std::{error::Error, io::Write as _, sync::Arc, time::Duration};

use tokenkeep_core::ConnectGrant;
use tokenkeep_engine::{
    Caller, Engine, Given, Parts, PutIntegration, PutMode, PutTokens, Settings,
    barrier::{Barrier, RootKey},
    catalogue::{Catalogue, parse_provider_toml},
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Pacer, Pacing, TransportOptions},
};
use tokenkeep_store::Memory;
use tokenkeep_testkit::{Config, FakeProvider};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SystemEntropy);

    // A provider, and what the catalogue knows of it.
    let provider = FakeProvider::start(clock.clone(), Config::default()).await;
    let about = parse_provider_toml("fake", &format!("id = \"fake\"\ntoken_url = \"{}\"", provider.url("/token")))?;

    // The engine: where it keeps records, what seals them, how it reaches providers.
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let transport = HyperTransport::new(clock.clone(), pacer.clone(), &TransportOptions::default())?;
    let parts = Parts {
        store: Arc::new(Memory::new()),
        bus: None,
        shared_cache: None,
        counter: None,
        barrier: Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone()),
        transport: Arc::new(transport),
        outbound: None,
        pacer: Some(pacer),
        catalogue: Catalogue::with(vec![about])?,
        journal_dir: None,
        clock,
        entropy,
    };
    let engine = Engine::start(parts, Settings::new("http://localhost:7420".parse()?)).await?;

    // Our client at the provider.
    let integration = PutIntegration {
        provider: None,
        issuer: None,
        tenant: None,
        client_id: "fake-client".to_owned(),
        client_secret: Some("fake-client-secret".into()),
        grant: ConnectGrant::default(),
        signing_key: None,
        scope: None,
        params: [].into(),
        api_hosts: Vec::new(),
        redirect_uri: None,
    };
    engine.integrations().put(&Caller::Local, &"fake".parse()?, integration).await?;

    // Alice's refresh token, obtained elsewhere. From now on it is the engine's to spend.
    let alice = "fake/_default/alice".parse()?;
    let tokens = PutTokens {
        access_token: None,
        refresh_token: provider.seed("alice").refresh_token.map_or(Given::Absent, |token| Given::Value(token.into())),
        expires_at: None,
        scope: None,
        token_type: None,
        display_name: Some("Alice".to_owned()),
    };
    engine.connections().put(&Caller::Local, &alice, tokens, PutMode::default()).await?;

    // A hundred tasks want a token at once; the provider is asked once.
    let wanted = (0..100).map(|_| {
        let (engine, alice) = (engine.clone(), alice.clone());
        tokio::spawn(async move {
            engine
                .connections()
                .token(&Caller::Local, &alice, Duration::from_secs(60))
                .await
                .map(|ready| ready.generation)
        })
    });
    let mut served = 0;
    for token in wanted.collect::<Vec<_>>() {
        token.await??;
        served += 1;
    }
    writeln!(std::io::stdout(), "{served} tokens served, {} call to the provider", provider.calls())?;

    engine.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
