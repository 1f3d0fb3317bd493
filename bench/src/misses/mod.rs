//! What a token costs that is not in memory, beside a bare read of as many bytes through the same driver.
//!
//! In process: `engine.token()` with an L1 that holds nothing, beside the driver's plainest read; one after the other,
//! in interleaved rounds. Over HTTP: `tokenkeep serve` with such an L1, beside an axum handler that makes the same bare
//! read and answers as many bytes; in interleaved rounds, too.

mod bare;

use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use axum::{Router, extract, http::header, routing::get};
use hdrhistogram::Histogram;
use tokenkeep_core::{
    ConnectionId,
    ports::{Filter, Kind as RecordKind, Query, Scope, Store},
};
use tokenkeep_engine::{
    Caller, Engine, Given, Parts, PutMode, PutTokens, Settings,
    barrier::{Barrier, RootKey},
    catalogue::Catalogue,
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Pacer, Pacing, TransportOptions},
};

use self::bare::Bare;
use crate::{
    cluster::{
        Common,
        backend::{Backend, Kind},
        fleet::{Ground, Instance, Plan, SEALING_KEY},
    },
    load::{self, Shape},
    report::Report,
    service::{self, ADMIN_KEY, end, listening, pinned},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Which store; by default PostgreSQL, Redis and Vault, one after the other.
    #[arg(long, value_enum)]
    store: Option<Kind>,
    /// How many rounds; each measures both sides once.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How many reads of each side in a round, in process.
    #[arg(long, default_value_t = 1000)]
    reads: usize,
    /// How long each side is loaded in a round over HTTP, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[command(flatten)]
    common: Common,
}

/// The bare handler.
#[derive(clap::Args)]
pub struct BareArguments {
    #[arg(long, value_enum)]
    store: Kind,
    /// The store's URL.
    #[arg(long)]
    url: String,
    /// How many bytes it answers.
    #[arg(long)]
    answer: usize,
}

/// So many connections are read in turn.
const CONNECTIONS: usize = 2_000;

/// What it may cost in process, in bare reads.
const AT_MOST: f64 = 2.0;
/// What must be left of the bare handler's throughput.
const AT_LEAST: f64 = 0.85;

const ACCESS_TOKEN: &str =
    "ya29.a0Ae4lvC0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    let kinds = arguments.store.map_or_else(|| vec![Kind::Postgres, Kind::Redis, Kind::Vault], |kind| vec![kind]);
    for kind in kinds {
        let mut ground = Ground::new(arguments.common.keep)?;
        let measured = measure(&arguments, kind, ground.path(), &mut report).await;
        if measured.is_err() {
            ground.keep();
        }
        measured.with_context(|| format!("{kind:?}"))?;
    }
    report.finish("the goals")
}

async fn measure(arguments: &Arguments, kind: Kind, ground: &Path, report: &mut Report) -> anyhow::Result<()> {
    let backend = Backend::start(kind, ground).await?;
    let store = bare::store(kind, &backend).await?;
    let engine = start(store.clone()).await?;
    for n in 0..CONNECTIONS {
        engine.connections().put(&Caller::Local, &id(n)?, tokens()?, PutMode::default()).await?;
    }
    let size = sealed_size(&*store).await?;
    let bare = Bare::connect(kind, &backend.store_url, &backend.environment()).await?;
    bare.fill(CONNECTIONS, size).await?;
    println!("{kind:?}: {CONNECTIONS} connections, their records have {size} sealed bytes");
    in_process(arguments, kind, &engine, &bare, report).await?;
    engine.shutdown(Duration::from_secs(5)).await;
    over_http(arguments, kind, &backend, ground, report).await
}

/// An engine whose L1 holds nothing.
async fn start(store: Arc<dyn Store>) -> anyhow::Result<Engine> {
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SystemEntropy);
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let transport = HyperTransport::new(clock.clone(), pacer.clone(), &TransportOptions::default())?;
    let parts = Parts {
        store,
        bus: None,
        shared_cache: None,
        counter: None,
        barrier: Barrier::new(&RootKey::parse(SEALING_KEY)?, &[], entropy.clone()),
        transport: Arc::new(transport),
        outbound: None,
        pacer: Some(pacer),
        catalogue: Catalogue::builtin(),
        journal_dir: None,
        clock,
        entropy,
    };
    let settings = Settings { cache_bytes: 0, ..Settings::new("http://localhost:7420".parse()?) };
    Ok(Engine::start(parts, settings).await?)
}

fn id(n: usize) -> anyhow::Result<ConnectionId> {
    Ok(format!("google/_default/s-{n:05}").parse()?)
}

fn tokens() -> anyhow::Result<PutTokens> {
    Ok(PutTokens {
        access_token: Some(ACCESS_TOKEN.into()),
        refresh_token: Given::Value("1//0gFakeRefreshToken0123456789012345678901234567890123456789".into()),
        expires_at: Some("2100-01-01T00:00:00Z".parse()?),
        scope: Some("https://www.googleapis.com/auth/gmail.send".to_owned()),
        token_type: None,
        display_name: None,
    })
}

async fn sealed_size(store: &dyn Store) -> anyhow::Result<usize> {
    let query =
        Query { scope: Scope::Every, kind: RecordKind::Connection, filter: Filter::All, limit: 1, cursor: None };
    let page = store.list(&query).await?;
    Ok(page.records.first().context("nothing was stored")?.sealed.len())
}

async fn in_process(
    arguments: &Arguments,
    kind: Kind,
    engine: &Engine,
    bare: &Bare,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rounds = if arguments.common.quick { 3 } else { arguments.rounds };
    let reads = if arguments.common.quick { 200 } else { arguments.reads };
    let before = engine.stats(&Caller::Local).await?.cache;
    let (mut of_bare, mut of_ours) = (Vec::new(), Vec::new());
    // The first round warms up and does not count.
    for round in 0..=rounds {
        let mut latency = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
        for n in 0..reads {
            let n = (round * reads + n) % CONNECTIONS;
            let began = Instant::now();
            bare.read(n).await?;
            latency.0.record(nanos(began))?;
        }
        for n in 0..reads {
            let id = id((round * reads + n) % CONNECTIONS)?;
            let began = Instant::now();
            engine.connections().token(&Caller::Local, &id, Duration::from_secs(60)).await?;
            latency.1.record(nanos(began))?;
        }
        if round > 0 {
            of_bare.push(latency.0.value_at_quantile(0.5));
            of_ours.push(latency.1.value_at_quantile(0.5));
        }
    }
    let after = engine.stats(&Caller::Local).await?.cache;
    let hits = after.hits - before.hits;
    ensure!(hits == 0, "{hits} reads were answered from memory: not what was to be measured");
    let (bare, ours) = (median(&mut of_bare) as f64 / 1e3, median(&mut of_ours) as f64 / 1e3);
    report.promise(
        &format!("{kind:?}: engine.token() at most {AT_MOST} bare reads at p50"),
        ours <= AT_MOST * bare,
        format!("{ours:.0} us beside {bare:.0} us: {:.2} ({rounds} rounds of {reads}, medians)", ours / bare),
    );
    Ok(())
}

async fn over_http(
    arguments: &Arguments,
    kind: Kind,
    backend: &Backend,
    ground: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rounds = if arguments.common.quick { 3 } else { arguments.rounds };
    let seconds = if arguments.common.quick { 0.5 } else { arguments.seconds };
    let binary = service::binary(arguments.common.tokenkeep.as_ref())?;
    let config = format!(
        "[store]\nurl = \"{}\"\n[sealing]\nkey = \"{SEALING_KEY}\"\n[cache]\nmax_mib = 0\n[log]\nlevel = \"warn\"\n",
        backend.store_url
    );
    let plan = Plan { binary, config, environment: backend.environment() };
    let instance = Instance::start(ground, "misses", plan).await?;
    let path = |n: usize| format!("/v1/connections/google/_default/s-{n:05}/token");
    let ours: Vec<Vec<u8>> = (0..CONNECTIONS).map(|n| load::request(&path(n), Some(ADMIN_KEY))).collect();
    let answer = instance.client()?.get(&path(0)).await?;
    let mut child = pinned(&std::env::current_exe()?, None)
        .args(["bare-read", "--store", &kind.word(), "--url", &backend.store_url])
        .args(["--answer", &answer.body.len().to_string()])
        .envs(backend.environment())
        .stdout(Stdio::piped())
        .spawn()
        .context("the bare handler")?;
    let bare_addr = listening(&mut child)?;
    let bare: Vec<Vec<u8>> = (0..CONNECTIONS).map(|n| load::request(&format!("/bare/{n}"), None)).collect();
    let addr = instance.addr()?;
    let shape = Shape { connections: 16, seconds, rate: None };
    let measured = tokio::task::spawn_blocking(move || {
        let (mut of_bare, mut of_ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            of_bare.push(load::in_turn(bare_addr, &bare, shape)?.per_second);
            of_ours.push(load::in_turn(addr, &ours, shape)?.per_second);
        }
        anyhow::Ok((of_bare, of_ours))
    })
    .await?;
    end(&mut child);
    let (mut of_bare, mut of_ours) = measured?;
    of_bare.sort_by(f64::total_cmp);
    of_ours.sort_by(f64::total_cmp);
    let (bare, ours) = (of_bare[rounds / 2], of_ours[rounds / 2]);
    report.promise(
        &format!("{kind:?}: over HTTP at least {AT_LEAST} of a bare handler"),
        ours >= AT_LEAST * bare,
        format!("{ours:.0}/s beside {bare:.0}/s: {:.2} ({rounds} rounds of {seconds} s, medians)", ours / bare),
    );
    Ok(())
}

/// The bare handler: one read, as many bytes.
pub async fn serve_bare(arguments: BareArguments) -> anyhow::Result<()> {
    let bare = Arc::new(Bare::connect(arguments.store, &arguments.url, &[]).await?);
    let body: Arc<str> = "x".repeat(arguments.answer).into();
    let handler = move |extract::Path(n): extract::Path<usize>| {
        let (bare, body) = (bare.clone(), body.clone());
        async move {
            match bare.read(n).await {
                Ok(()) => Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string())),
                Err(error) => {
                    eprintln!("a bare read failed: {error:#}");
                    Err(axum::http::StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/bare/{n}", get(handler))).await?;
    Ok(())
}

fn nanos(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}
