//! A call to an API with a token that nobody here holds.
//!
//! ```sh
//! cargo run -p tokenkeep-engine --example call_an_api
//! ```
//!
//! The provider and its API are those of our tests, so that the example runs anywhere. The access token that is stored
//! is dead; the API says so, and whoever calls does not hear of it.

use std::{error::Error, io::Write as _, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use tokenkeep_engine::{
    Caller, Engine, Given, Parts, PutIntegration, PutMode, PutTokens, Settings,
    barrier::{Barrier, RootKey},
    catalogue::{Catalogue, parse_provider_toml},
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Outbound, Pacer, Pacing, TransportOptions},
};
use tokenkeep_store::Memory;
use tokenkeep_testkit::{ApiBody, Config, FakeApi, FakeProvider};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SystemEntropy);

    // A provider, and its API, which knows whom a token is for.
    let provider = Arc::new(FakeProvider::start(clock.clone(), Config::default()).await);
    let about = parse_provider_toml("fake", &format!("id = \"fake\"\ntoken_url = \"{}\"", provider.url("/token")))?;
    let issued_by = provider.clone();
    let api = FakeApi::start(move |request: Request<ApiBody>| {
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_live = issued_by.is_access_live(token.trim_start_matches("Bearer "));
        let reply = Response::builder().status(if is_live { 200 } else { 401 });
        let body = if is_live { format!("{} is alice's", request.uri()) } else { "who are you?".to_owned() };
        async { reply.body(ApiBody::from(body)).unwrap_or_default() }
    })
    .await;

    let options = TransportOptions::default();
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let parts = Parts {
        store: Arc::new(Memory::new()),
        bus: None,
        shared_cache: None,
        counter: None,
        barrier: Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone()),
        transport: Arc::new(HyperTransport::new(clock.clone(), pacer.clone(), &options)?),
        outbound: Some(Outbound::new(clock.clone(), &options)?),
        pacer: Some(pacer),
        catalogue: Catalogue::with(vec![about])?,
        journal_dir: None,
        clock,
        entropy,
    };
    let engine = Engine::start(parts, Settings::new("http://localhost:7420".parse()?)).await?;
    let integration = PutIntegration {
        client_id: "fake-client".to_owned(),
        client_secret: Some("fake-client-secret".into()),
        api_hosts: vec![api.host()],
        ..PutIntegration::default()
    };
    engine.integrations().put(&Caller::Local, &"fake".parse()?, integration).await?;
    let alice = "fake/_default/alice".parse()?;
    let tokens = PutTokens {
        access_token: Some("revoked long ago".into()),
        refresh_token: provider.seed("alice").refresh_token.map_or(Given::Absent, |token| Given::Value(token.into())),
        expires_at: None,
        scope: None,
        token_type: None,
        display_name: None,
    };
    engine.connections().put(&Caller::Local, &alice, tokens, PutMode::default()).await?;

    let request = Request::get("/photos?sort=new").body(Empty::<Bytes>::new())?;
    let reply = engine.request(&Caller::Local, &alice, request).await?;
    let (status, body) = (reply.status(), reply.into_body().collect().await?.to_bytes());
    writeln!(std::io::stdout(), "{status}: {}", String::from_utf8_lossy(&body))?;
    writeln!(std::io::stdout(), "the API was asked {} times", api.asked().len())?;
    Ok(())
}
