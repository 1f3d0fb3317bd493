//! An instance that holds replies which it could not commit is killed for good, its disk included.
//!
//! Its way to PostgreSQL is cut in the middle of its exchanges, so that their replies lie in its journal and, as sealed
//! copies, in Redis. Then it is gone. With Redis, the others finish what it began. With Redis emptied, nobody knows what
//! became of the refresh tokens that it spent: the connections are *unresolved*, and nothing is spent a second time
//! before 120 s have passed.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokenkeep_testkit::Fault;

use super::{
    Common,
    backend::{Backend, Kind, NEVER, Servers},
    client::Client,
    fleet::{self, Ground, Instance},
    proxy::Proxy,
    storm::put_expired,
    upstream::{Upstream, path},
    verify,
};
use crate::{report::Report, service};

#[derive(clap::Args)]
pub struct Arguments {
    /// How many replies it holds.
    // Ten refusals at once would pause the integration, and who is refused then is not marked but asked again.
    #[arg(long, default_value_t = 9)]
    connections: usize,
    #[command(flatten)]
    common: Common,
}

/// Before that nobody may spend a strict refresh token again.
const SILENCE: Duration = Duration::from_secs(120);

/// A lease and a reader's patience, with room.
const LEASE_SEEN: Duration = Duration::from_secs(40);

/// How soon after the owner's last sign of life it must have happened, at the latest.
const RESOLVED_WITHIN: Duration = Duration::from_secs(200);

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    let mut good = true;
    for (what, scene) in [("with its copies in Redis", Copies::Stay), ("with Redis emptied", Copies::Vanish)] {
        println!("an instance is killed for good while it holds {} replies; {what}", arguments.connections);
        let mut ground = Ground::new(arguments.common.keep)?;
        let played = play(&arguments, ground.path(), scene, &mut report).await;
        good &= played.is_ok() && report.is_good();
        if !good {
            ground.keep();
        }
        played?;
    }
    report.finish("the promises about an instance that never comes back")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    Stay,
    Vanish,
}

/// Two instances that stay, and the replies that a third one took with it.
struct Scene {
    upstream: Upstream,
    backend: Backend,
    others: Vec<Instance>,
    numbers: Vec<usize>,
    died: Instant,
}

async fn play(arguments: &Arguments, ground: &Path, copies: Copies, report: &mut Report) -> anyhow::Result<()> {
    let scene = Scene::set(arguments, ground, copies).await?;
    match copies {
        Copies::Stay => scene.finished_by_others(arguments, ground, report).await,
        Copies::Vanish => scene.unresolved(arguments, report).await,
    }
}

impl Scene {
    async fn set(arguments: &Arguments, ground: &Path, copies: Copies) -> anyhow::Result<Self> {
        let binary = service::binary(arguments.common.tokenkeep.as_ref())?;
        let backend = Backend::start(Kind::Postgres, ground).await?;
        let upstream = Upstream::start().await;
        let plan = backend.plan(&binary, &upstream, NEVER);
        let others = fleet::start(ground, 2, &plan).await?;
        let port = backend
            .with(|servers| match servers {
                Servers::Postgres { postgres, .. } => Ok(postgres.port()),
                _ => anyhow::bail!("no PostgreSQL"),
            })
            .await?;
        let proxy = Proxy::before(port).await?;
        let by_way = Backend { store_url: proxy.url(&backend.store_url)?, ..backend.clone() };
        let mut victim = Instance::start(ground, "victim", by_way.plan(&binary, &upstream, NEVER)).await?;
        let numbers = put_expired(&others[0], &upstream, arguments.connections).await?;

        let gate = upstream.provider.hold(numbers.len(), Fault::default().held_after());
        let addr = victim.addr()?;
        let reads: Vec<_> = numbers.iter().map(|number| tokio::spawn(read(addr, *number))).collect();
        tokio::time::timeout(Duration::from_secs(30), gate.arrivals(numbers.len()))
            .await
            .context("its refreshes never reached the provider")?;
        proxy.cut();
        gate.release();
        for read in reads {
            let (status, body) = read.await??;
            ensure!(status == StatusCode::OK, "it should serve what lies in its journal: {status} {body}");
        }
        // The copies leave once the store is known not to answer.
        tokio::time::sleep(Duration::from_secs(5)).await;
        victim.kill().await?;
        let died = Instant::now();
        std::fs::remove_dir_all(victim.data_dir())?;
        if copies == Copies::Vanish {
            backend
                .with(|servers| match servers {
                    Servers::Postgres { redis, .. } => Ok(redis.command(&["FLUSHALL"])?),
                    _ => anyhow::bail!("no Redis"),
                })
                .await?;
        }
        ensure!(upstream.provider.calls() == numbers.len(), "{} calls before it died", upstream.provider.calls());
        Ok(Self { upstream, backend, others, numbers, died })
    }

    /// Reads all of them at all of the others: how many tokens, and what else was said.
    async fn read_all(&self) -> anyhow::Result<(usize, Vec<String>)> {
        let newest = self.upstream.newest();
        let (mut good, mut else_said) = (0, Vec::new());
        for instance in &self.others {
            let addr = instance.addr()?;
            let reads: Vec<_> = self.numbers.iter().map(|number| tokio::spawn(read(addr, *number))).collect();
            for (reading, number) in reads.into_iter().zip(&self.numbers) {
                let (status, body) = reading.await??;
                let token = newest.get(number).map(|issued| issued.access_token.as_str());
                if status == StatusCode::OK && body["access_token"].as_str() == token {
                    good += 1;
                } else {
                    let code = body["code"].as_str().unwrap_or("no code");
                    else_said.push(format!("{} {code}", status.as_u16()));
                }
            }
        }
        else_said.sort_unstable();
        else_said.dedup();
        Ok((good, else_said))
    }

    async fn finished_by_others(
        mut self,
        arguments: &Arguments,
        ground: &Path,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let wanted = self.numbers.len() * self.others.len();
        let (good, said) = loop {
            let (good, said) = self.read_all().await?;
            if good == wanted || self.died.elapsed() > Duration::from_secs(60) {
                break (good, said);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        report.promise(
            "the others serve what it had received",
            good == wanted,
            format!("{good} of {wanted} reads, {:.1} s after it died {said:?}", self.died.elapsed().as_secs_f64()),
        );
        let calls = self.upstream.provider.calls();
        report.promise("nothing was spent again", calls == self.numbers.len(), format!("{calls} calls"));
        fleet::end(&mut self.others).await?;
        let binary = service::binary(arguments.common.tokenkeep.as_ref())?;
        let witness = verify::witness(ground, &self.backend, &binary, &self.upstream).await?;
        let found = verify::read(&witness, &self.numbers).await?;
        let lost = verify::lost(&self.upstream, &found, &std::collections::HashSet::new());
        report.promise("the store holds them", lost.is_empty(), format!("{} lost", lost.len()));
        Ok(())
    }

    async fn unresolved(self, arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
        // As long as its lease lasts, the others believe that it is at work.
        let (good, said) = loop {
            let (good, said) = self.read_all().await?;
            if said == ["503 unresolved"] || self.died.elapsed() > LEASE_SEEN {
                break (good, said);
            }
        };
        report.promise(
            "once its lease is over, readers are told that it is unresolved",
            good == 0 && said == ["503 unresolved"],
            format!("{good} tokens, {said:?}, {:.1} s after it died", self.died.elapsed().as_secs_f64()),
        );
        let (_, told) = read(self.others[0].addr()?, self.numbers[0]).await?;
        report.promise("and why", told["detail"].as_str().is_some_and(|why| !why.is_empty()), &told["detail"]);
        let status = self.status(self.numbers[0]).await?;
        report.promise("its status says so", status["status"] == "unresolved", &status);
        let watched = if arguments.common.quick { Duration::from_secs(45) } else { RESOLVED_WITHIN };
        let before = self.numbers.len();
        let mut spent_after = None;
        while self.died.elapsed() < watched && spent_after.is_none() {
            self.read_all().await?;
            spent_after = (self.upstream.provider.calls() > before).then(|| self.died.elapsed());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        report.promise(
            "nothing is spent a second time before 120 s",
            spent_after.is_none_or(|after| after >= SILENCE),
            spent_after.map_or_else(
                || format!("not within {watched:?}"),
                |after| format!("after {:.1} s", after.as_secs_f64()),
            ),
        );
        if arguments.common.quick {
            return Ok(());
        }
        report.promise("then it is tried, and the provider's word stands", spent_after.is_some(), "");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (_, said) = self.read_all().await?;
        let status = self.status(self.numbers[0]).await?;
        println!(
            "  afterwards: readers get {said:?}; the status is {} with {}",
            status["status"], status["last_error"]
        );
        let calls = self.upstream.provider.calls();
        report.promise("each was tried once more", calls <= 2 * before, format!("{calls} calls for {before}"));
        Ok(())
    }

    async fn status(&self, number: usize) -> anyhow::Result<Value> {
        let mut client = self.others[0].client()?;
        client.send(Method::GET, &path(number), None).await?.json()
    }
}

async fn read(addr: std::net::SocketAddr, number: usize) -> anyhow::Result<(StatusCode, Value)> {
    let answer = Client::new(addr).get(&format!("{}/token", path(number))).await?;
    Ok((answer.status, answer.json()?))
}
