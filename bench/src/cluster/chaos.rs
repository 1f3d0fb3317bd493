//! What breaks during a storm: an instance is killed and restarted, its servers are restarted, paused and failed over.
//! Meanwhile tokens that are fresh and cached are read without a pause.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use anyhow::bail;

use super::{
    Common,
    backend::{Backend, Kind, NEVER, Servers},
    fleet::{self, Ground, Instance, Plan},
    journals::{self, Kept},
    reads::{self, Door, Seen},
    steady::{self, Expected, Steady},
    storm::{check_served, put_expired, put_fresh},
    upstream::Upstream,
    verify,
};
use crate::{report::Report, service};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the instances keep their records.
    #[arg(long, value_enum, default_value = "postgres")]
    store: Kind,
    /// How many connections expire at once; by default 10,000, or 1,000 on SQLite.
    #[arg(long)]
    connections: Option<usize>,
    #[command(flatten)]
    common: Common,
}

/// Fresh tokens, read all the time.
const FRESH: usize = 100;

/// What happened, and when, in upstream calls.
struct Struck {
    what: String,
    after_calls: usize,
}

/// The instance that was killed and what it had made durable.
struct Killed {
    instance: Instance,
    after_calls: usize,
    journaled: Vec<Kept>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut ground = Ground::new(arguments.common.keep)?;
    let result = chaos(&arguments, ground.path()).await;
    if !matches!(&result, Ok(report) if report.is_good()) {
        ground.keep();
    }
    result?.finish("the promises under chaos")
}

async fn chaos(arguments: &Arguments, ground: &Path) -> anyhow::Result<Report> {
    let common = &arguments.common;
    let binary = service::binary(common.tokenkeep.as_ref())?;
    let backend = Backend::start(arguments.store, ground).await?;
    let upstream = Arc::new(Upstream::start().await);
    let usual = if common.quick { 500 } else { backend.usual_connections() };
    let count = arguments.connections.unwrap_or(usual);
    // Only readers refresh, until the killed instance comes back with a preloader: so the storm begins with them.
    let plan = backend.plan(&binary, &upstream, NEVER);
    let mut instances = fleet::start(ground, common.instances, &plan).await?;
    let expected = put_fresh(&instances[0], &upstream, FRESH).await?;
    let numbers = put_expired(&instances[1 % common.instances], &upstream, count).await?;
    println!("{count} connections are expired, {FRESH} are fresh");
    for instance in &instances {
        steady::warm(instance, &expected, Duration::from_secs(60)).await?;
    }
    let doors = instances.iter().map(|i| Ok(reads::door(i.addr()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let steady_doors = instances.iter().map(|i| Ok(reads::door(i.addr()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let steady = Steady::start(&steady_doors, &expected);
    let began = Instant::now();
    let victim = instances.remove(0);
    let killing = tokio::spawn(kill_and_restart(
        victim,
        backend.plan(&binary, &upstream, 5),
        [doors[0].clone(), steady_doors[0].clone()],
        expected.clone(),
        upstream.clone(),
        count * 15 / 100,
    ));
    let pause = Duration::from_secs(if common.quick { 3 } else { 20 });
    let striking = tokio::spawn(strike(backend.clone(), upstream.clone(), count, pause));
    let seen = reads::all_of(&doors, &numbers, Duration::from_mins(15)).await;
    let took = began.elapsed();
    let killed = killing.await??;
    let struck = striking.await??;
    let steadied = steady.end().await?;
    let seen = seen?;
    instances.insert(0, killed.instance);
    let ended = fleet::end(&mut instances).await?;

    for strike in &struck {
        println!("  after {} upstream calls: {}", strike.after_calls, strike.what);
    }
    println!(
        "{} upstream calls, {} reads answered in {:.1} s; sent away meanwhile: {:?}; {}; orderly end {ended:.1?}",
        upstream.provider.calls(),
        seen.served.len(),
        took.as_secs_f64(),
        seen.failed,
        seen.latencies(),
    );
    let kept = instances.iter().map(|i| journals::read(&i.data_dir())).collect::<anyhow::Result<Vec<_>>>()?.concat();
    let witness = verify::witness(ground, &backend, &binary, &upstream).await?;
    let found = verify::read(&witness, &numbers).await?;
    drop(witness);

    let mut report = Report::default();
    report.promise(
        "reads of fresh, cached tokens never fail",
        steadied.failures.is_empty() && steadied.good > 0,
        format!(
            "{} good, {} failed, slowest {:.0?} {:?}",
            steadied.good,
            steadied.failures.len(),
            steadied.slowest,
            &steadied.failures[..steadied.failures.len().min(5)]
        ),
    );
    check_served(&mut report, &upstream, &seen);
    let account = Account::of(&upstream, &seen, killed.after_calls, &killed.journaled, &kept);
    account.check(&mut report, &upstream, &found, &numbers, &struck);
    let reads = count * common.instances;
    let dead = seen.dead.len();
    report.promise(
        "everything recovered by itself: served, or said to need its user and why",
        found.tokens.len() + found.others.len() == count
            && found.others.values().all(|said| said.starts_with("424 reauth_required "))
            && seen.served.len() + seen.dead_answers == reads,
        format!(
            "{} served by the store, {} need their user; {dead} of them were told so by then",
            found.tokens.len(),
            found.others.len()
        ),
    );
    Ok(report)
}

/// kill -9, and a start on what is left.
async fn kill_and_restart(
    mut instance: Instance,
    plan: Plan,
    doors: [Door; 2],
    expected: Expected,
    upstream: Arc<Upstream>,
    after: usize,
) -> anyhow::Result<Killed> {
    upstream.provider.called(after).await;
    for door in &doors {
        *door.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    instance.kill().await?;
    let after_calls = upstream.provider.calls();
    let journaled = journals::read(&instance.data_dir())?;
    println!(
        "  {} was killed with {} replies in its journal, after {after_calls} calls",
        instance.name,
        journaled.len()
    );
    // Its start must not depend on everything being well; it is tried like a supervisor would.
    let began = Instant::now();
    instance.plan = plan;
    while let Err(error) = instance.restart().await {
        anyhow::ensure!(began.elapsed() < Duration::from_mins(2), "it never started again: {error:#}");
        println!("  {} did not start: {error:#}", instance.name);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("  {} is back after {:.1} s", instance.name, began.elapsed().as_secs_f64());
    let [storm, steady] = doors;
    *storm.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance.addr()?);
    // Fresh *and cached*: it has to read them once first.
    steady::warm(&instance, &expected, Duration::from_mins(2)).await?;
    *steady.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance.addr()?);
    Ok(Killed { instance, after_calls, journaled })
}

/// Breaks the servers, one way after the other.
async fn strike(
    backend: Backend,
    upstream: Arc<Upstream>,
    count: usize,
    pause: Duration,
) -> anyhow::Result<Vec<Struck>> {
    let mut struck = Vec::new();
    let mut note = |what: String| struck.push(Struck { what, after_calls: upstream.provider.calls() });
    match backend.kind {
        Kind::Sqlite | Kind::Vault => {}
        Kind::Postgres => {
            upstream.provider.called(count * 35 / 100).await;
            note("Redis was restarted".into());
            backend.with(|servers| Ok(postgres(servers)?.1.restart()?)).await?;
            upstream.provider.called(count * 55 / 100).await;
            note(format!("PostgreSQL was stopped for {pause:?}, then restarted"));
            backend
                .with(|servers| {
                    postgres(servers)?.0.pause();
                    Ok(())
                })
                .await?;
            tokio::time::sleep(pause).await;
            backend
                .with(|servers| {
                    postgres(servers)?.0.resume();
                    Ok(postgres(servers)?.0.restart()?)
                })
                .await?;
        }
        Kind::Redis => {
            upstream.provider.called(count * 50 / 100).await;
            note("Redis was killed and started again".into());
            backend
                .with(|servers| match servers {
                    Servers::Redis(redis) => {
                        redis.kill();
                        Ok(redis.restart()?)
                    }
                    _ => bail!("not a Redis"),
                })
                .await?;
        }
        Kind::RedisSentinel => {
            upstream.provider.called(count * 40 / 100).await;
            note("the primary was killed; the Sentinels made its replica the primary".into());
            backend
                .with(|servers| match servers {
                    Servers::Sentinel(sentinel) => {
                        let killed = sentinel.kill_primary()?;
                        Ok(sentinel.until_failed_over(killed)?)
                    }
                    _ => bail!("no Sentinels"),
                })
                .await?;
        }
        Kind::RedisCluster => {
            upstream.provider.called(count * 40 / 100).await;
            note("a primary of the Cluster was killed; its replica took over".into());
            backend
                .with(|servers| match servers {
                    Servers::Cluster(cluster) => {
                        let killed = cluster.kill_primary_of(0)?;
                        Ok(cluster.until_failed_over(0, killed)?)
                    }
                    _ => bail!("no Cluster"),
                })
                .await?;
        }
    }
    Ok(struck)
}

fn postgres(servers: &Servers) -> anyhow::Result<(&tokenkeep_services::Postgres, &tokenkeep_services::Redis)> {
    match servers {
        Servers::Postgres { postgres, redis } => Ok((postgres, redis)),
        _ => bail!("no PostgreSQL"),
    }
}

/// Which reply reached whom.
struct Account {
    /// The upstream calls of each connection, by their place in the provider's log.
    calls: HashMap<usize, Vec<usize>>,
    /// Connections whose reply was on its way to the killed process, and had been neither made durable nor served.
    died_on_the_way: HashSet<usize>,
    /// What lies in the journals at the end.
    kept: HashMap<usize, Vec<Kept>>,
}

impl Account {
    fn of(upstream: &Upstream, seen: &Seen, kill: usize, at_kill: &[Kept], at_end: &[Kept]) -> Self {
        let calls = upstream.calls_by_number();
        let newest = upstream.newest();
        let durable: HashSet<&str> = at_kill.iter().chain(at_end).map(|kept| kept.access_token.as_str()).collect();
        let served: HashSet<&str> = seen.served.iter().map(|(_, token)| token.as_str()).collect();
        let died_on_the_way = calls
            .iter()
            .filter(|(number, places)| {
                let token = newest.get(*number).map(|issued| issued.access_token.as_str());
                places.first().is_some_and(|first| *first < kill)
                    && token.is_none_or(|token| !durable.contains(token) && !served.contains(token))
            })
            .map(|(number, _)| *number)
            .collect();
        Self { calls, died_on_the_way, kept: journals::by_number(at_end.iter().cloned()) }
    }

    fn check(
        &self,
        report: &mut Report,
        upstream: &Upstream,
        found: &verify::Found,
        numbers: &[usize],
        struck: &[Struck],
    ) {
        let died = self.died_on_the_way.len();
        println!("{died} calls were on their way to the killed process: nobody received their replies");
        let lost = verify::lost(upstream, found, &self.died_on_the_way);
        report.promise(
            "no rotated token that was received is lost",
            lost.is_empty(),
            format!("{} lost {:?}", lost.len(), &lost[..lost.len().min(5)]),
        );
        let needing: Vec<_> = found.others.keys().filter(|number| !self.died_on_the_way.contains(number)).collect();
        report.promise(
            "only those whose reply died with the process need their user",
            needing.is_empty(),
            format!("{} others {:?}", needing.len(), &needing[..needing.len().min(5)]),
        );
        let (mut unexplained, mut by_failover, mut by_kill) = (Vec::new(), 0, 0);
        for number in numbers {
            let places = self.calls.get(number).map_or(&[][..], Vec::as_slice);
            let [first, .., last] = places else { continue };
            let between =
                struck.iter().find(|s| s.what.contains("primary") && (*first..=*last).contains(&s.after_calls));
            if self.died_on_the_way.contains(number) {
                by_kill += places.len() - 1;
            } else if let Some(strike) = between {
                by_failover += places.len() - 1;
                let attempts: Vec<_> =
                    self.kept.get(number).into_iter().flatten().map(|k| k.attempt.as_str()).collect();
                println!(
                    "  s-{number}: calls {places:?}, with the failover after {}; attempts whose replies are kept: {attempts:?}",
                    strike.after_calls
                );
            } else {
                unexplained.push(*number);
            }
        }
        println!(
            "asked again after the reply died with the process: {by_kill}; after the failover lost the intent: {by_failover}"
        );
        report.promise(
            "no upstream call was made that nothing explains",
            unexplained.is_empty(),
            format!("{} {:?}", unexplained.len(), &unexplained[..unexplained.len().min(5)]),
        );
        let at_once = upstream.provider.max_in_flight();
        report.promise("no refresh token was in flight twice at once", at_once <= 1, format!("{at_once} at most"));
    }
}
