//! The refresh storm: every connection is expired at once, and every instance is asked for every one of them.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::{StreamExt as _, stream};
use hyper::Method;
use jiff::Timestamp;
use serde_json::json;

use super::{
    Common,
    backend::{Backend, Kind, NEVER},
    fleet::{self, Ground, Instance},
    reads::{self, Seen},
    steady::Expected,
    upstream::{Seed, Upstream, path},
    verify,
};
use crate::{report::Report, service};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the instances keep their records.
    #[arg(long, value_enum)]
    store: Kind,
    /// How many connections expire at once; by default 10,000, or 1,000 on SQLite.
    #[arg(long)]
    connections: Option<usize>,
    #[command(flatten)]
    common: Common,
}

/// Seeded over so many HTTP connections.
const SEEDERS: usize = 32;

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let common = &arguments.common;
    let mut ground = Ground::new(common.keep)?;
    let result = storm(&arguments, ground.path()).await;
    if !matches!(&result, Ok(report) if report.is_good()) {
        ground.keep();
    }
    result?.finish("the storm's promises")
}

async fn storm(arguments: &Arguments, ground: &Path) -> anyhow::Result<Report> {
    let common = &arguments.common;
    let binary = service::binary(common.tokenkeep.as_ref())?;
    let backend = Backend::start(arguments.store, ground).await?;
    let upstream = Upstream::start().await;
    let usual = if common.quick { 200 } else { backend.usual_connections() };
    let count = arguments.connections.unwrap_or(usual);
    let numbers = seed(ground, &backend, &binary, &upstream, count).await?;
    println!("{count} connections are stored, all expired; {} instances start", common.instances);

    let plan = backend.plan(&binary, &upstream, 5);
    let began = Instant::now();
    let mut instances = fleet::start(ground, common.instances, &plan).await?;
    let started = began.elapsed();
    let doors = instances.iter().map(|i| Ok(reads::door(i.addr()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    let seen = reads::all_of(&doors, &numbers, Duration::from_mins(10)).await?;
    let took = began.elapsed();
    // What was served may still be on its way to the store: an orderly end waits for it.
    let ended = fleet::end(&mut instances).await?;

    let calls = upstream.provider.calls();
    println!(
        "{calls} upstream calls, {} reads in {:.1} s: {:.0} refreshes/s, {:.0} reads/s; {}",
        seen.served.len(),
        took.as_secs_f64(),
        calls as f64 / took.as_secs_f64(),
        seen.served.len() as f64 / took.as_secs_f64(),
        seen.latencies()
    );
    println!("start of {} instances {started:.1?}, their orderly end {ended:.1?}", common.instances);
    let mut report = Report::default();
    report.promise("exactly one upstream call for each connection", calls == count, format!("{calls} for {count}"));
    let twice = upstream.provider.spent_twice().len();
    report.promise("no refresh token was sent twice", twice == 0, twice);
    let reads = count * common.instances;
    report.promise(
        "every read was answered with a token",
        seen.served.len() == reads,
        format!("{} of {reads}", seen.served.len()),
    );
    report.promise("no read failed", seen.failures() == 0, format!("{:?}", seen.failed));
    check_served(&mut report, &upstream, &seen);
    check_store(&mut report, ground, &backend, &binary, &upstream, &numbers).await?;
    Ok(report)
}

/// Every token served must be one that the provider issued to that very connection, and be good.
pub fn check_served(report: &mut Report, upstream: &Upstream, seen: &Seen) {
    let family: HashMap<String, usize> =
        upstream.issued().into_iter().map(|issued| (issued.access_token, issued.family)).collect();
    let strange = seen.served.iter().filter(|(number, token)| family.get(token) != Some(number)).count();
    report.promise("every token served is that connection's own, and new", strange == 0, format!("{strange} strange"));
    let dead = seen.served.iter().filter(|(_, token)| !upstream.provider.is_access_live(token)).count();
    report.promise("the provider takes every token served", dead == 0, format!("{dead} refused"));
}

/// The store alone must hold what the provider issued last, and its refresh tokens must be good.
async fn check_store(
    report: &mut Report,
    ground: &Path,
    backend: &Backend,
    binary: &Path,
    upstream: &Upstream,
    numbers: &[usize],
) -> anyhow::Result<()> {
    let before = upstream.provider.calls();
    let mut witness = verify::witness(ground, backend, binary, upstream).await?;
    let found = verify::read(&witness, numbers).await?;
    let lost = verify::lost(upstream, &found, &HashSet::new());
    report.promise(
        "no rotated token is lost: the store alone serves the newest of each connection",
        lost.is_empty() && found.tokens.len() == numbers.len(),
        format!("{} lost {:?}", lost.len(), &lost[..lost.len().min(5)]),
    );
    let read = upstream.provider.calls() - before;
    report.promise("looking at the store refreshed nothing", read == 0, read);
    // A forced refresh joins one that finished under 10 s ago.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let good = verify::spend(&witness, numbers).await?;
    report.promise(
        "every refresh token in the store is good (each spent once more)",
        good == numbers.len() && upstream.provider.calls() - before == numbers.len(),
        format!("{good} of {}, {} calls", numbers.len(), upstream.provider.calls() - before),
    );
    witness.end().await?;
    Ok(())
}

/// Stores `count` connections whose access tokens are dead, through one instance, and ends it.
async fn seed(
    ground: &Path,
    backend: &Backend,
    binary: &Path,
    upstream: &Upstream,
    count: usize,
) -> anyhow::Result<Vec<usize>> {
    let mut seeder = Instance::start(ground, "seeder", backend.plan(binary, upstream, NEVER)).await?;
    let numbers = put_expired(&seeder, upstream, count).await?;
    seeder.end().await?;
    ensure!(upstream.provider.calls() == 0, "storing them refreshed something already");
    Ok(numbers)
}

/// Stores `count` connections whose access tokens died long ago.
pub async fn put_expired(instance: &Instance, upstream: &Upstream, count: usize) -> anyhow::Result<Vec<usize>> {
    let seeds = (0..count).map(|_| upstream.seed()).collect::<anyhow::Result<Vec<_>>>()?;
    let numbers: Vec<usize> = seeds.iter().map(|seed| seed.number).collect();
    let began = Instant::now();
    put_all(instance, seeds, "2020-01-01T00:00:00Z").await?;
    println!("stored {count} connections in {:.1} s", began.elapsed().as_secs_f64());
    Ok(numbers)
}

/// Stores `count` connections whose access tokens live for an hour; answers them with their tokens.
pub async fn put_fresh(instance: &Instance, upstream: &Upstream, count: usize) -> anyhow::Result<Expected> {
    let seeds = (0..count).map(|_| upstream.seed()).collect::<anyhow::Result<Vec<_>>>()?;
    let expected = seeds.iter().map(|seed| (seed.number, seed.access_token.clone())).collect();
    put_all(instance, seeds, &(Timestamp::now() + Duration::from_hours(1)).to_string()).await?;
    Ok(Expected::new(expected))
}

/// Puts `seeds` with access tokens that expire at that time.
async fn put_all(instance: &Instance, seeds: Vec<Seed>, expires_at: &str) -> anyhow::Result<()> {
    let mut lanes: Vec<Vec<Seed>> = (0..SEEDERS).map(|_| Vec::new()).collect();
    for (n, seed) in seeds.into_iter().enumerate() {
        lanes[n % SEEDERS].push(seed);
    }
    let puts = lanes.into_iter().map(|lane| async move {
        let mut client = instance.client()?;
        for seed in lane {
            let body = json!({
                "access_token": seed.access_token, "refresh_token": seed.refresh_token, "expires_at": expires_at,
            });
            let answer = client.send(Method::PUT, &path(seed.number), Some(&body)).await?;
            ensure!(answer.status.is_success(), "PUT: {} {}", answer.status, answer.text());
        }
        anyhow::Ok(())
    });
    let done: Vec<_> = stream::iter(puts.collect::<Vec<_>>()).buffer_unordered(SEEDERS).collect().await;
    done.into_iter().collect()
}
