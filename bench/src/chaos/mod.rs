//! The fault matrix: what becomes of a rotated refresh token when a process is killed or frozen at each step.

pub mod child;
mod holding;
mod step;

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokenkeep_core::{Rotation, provider::Successor};
use tokenkeep_engine::system::SystemClock;
use tokenkeep_testkit::{Config, FakeProvider, Fault, Gate};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{ChildStdout, Command},
};

pub use step::Step;

use crate::report::Report;

#[derive(clap::Args)]
pub struct Arguments {
    /// Leaves out what takes longer than a few seconds (the freezes).
    #[arg(long)]
    quick: bool,
}

const WINDOW: Duration = Duration::from_secs(45);

/// A provider's way, as the catalogue writes it.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    toml: &'static str,
    rotation: Rotation,
}

const WAYS: [Way; 3] = [
    Way { name: "strict", toml: "\"strict\"", rotation: Rotation::Strict },
    Way {
        name: "grace",
        toml: "{ grace = { seconds = 45, successor = \"same\" } }",
        rotation: Rotation::Grace { window: WINDOW, successor: Successor::Same },
    },
    Way { name: "none", toml: "\"none\"", rotation: Rotation::None },
];

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    println!("kill -9 at every step of a refresh; then a new process on the same disk reads the token");
    for way in WAYS {
        for step in Step::ALL {
            report.note(&format!("{:7} killed at {step}", way.name), killed(way, step).await);
        }
    }
    println!("the store refuses the commit; then kill -9 and a new process");
    for way in WAYS {
        report.note(&format!("{:7} commit refused", way.name), commit_refused(way).await);
    }
    if !arguments.quick {
        println!("SIGSTOP with the provider's reply under way, across the deadline (12 s) and the lease (25 s)");
        let mut frozen = tokio::task::JoinSet::new();
        for way in WAYS {
            for seconds in [12, 25] {
                frozen.spawn(async move {
                    (format!("{:7} frozen for {seconds} s", way.name), self::frozen(way, seconds).await)
                });
            }
        }
        while let Some(joined) = frozen.join_next().await {
            let (name, result) = joined?;
            report.note(&name, result);
        }
    }
    report.finish("the fault matrix")
}

/// A provider, a data directory, and the refresh token that both begin with.
struct Scene {
    way: Way,
    provider: FakeProvider,
    dir: tempfile::TempDir,
    seed: String,
}

impl Scene {
    async fn new(way: Way) -> anyhow::Result<Self> {
        let provider = FakeProvider::start(Arc::new(SystemClock), Config::rotating(way.rotation)).await;
        let seed = provider.seed("alice").refresh_token.context("the fake provider gave no refresh token")?;
        Ok(Self { way, provider, dir: tempfile::tempdir()?, seed })
    }

    fn child(&self, more: &[&str]) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["child", "--rotation", self.way.toml, "--seed", &self.seed])
            .args(["--provider", self.provider.url("/").as_str()])
            .arg("--data-dir")
            .arg(self.dir.path())
            .args(more)
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().context("no stdout")?;
        Ok(Child { process, lines: BufReader::new(stdout).lines() })
    }

    /// What a new process on the same disk answers.
    async fn read_anew(&self) -> anyhow::Result<Value> {
        let mut child = self.child(&[])?;
        let read = child.read().await?;
        child.kill().await?;
        Ok(read)
    }

    /// Fails unless `read` is a token that the provider takes.
    fn is_good(&self, read: &Value) -> anyhow::Result<()> {
        let token = read["token"].as_str().with_context(|| format!("no token: {read}"))?;
        ensure!(self.provider.is_access_live(token), "the provider does not take the token that was served");
        Ok(())
    }

    fn spends(&self) -> u32 {
        self.provider.spends(&self.seed)
    }
}

struct Child {
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Child {
    async fn line(&mut self, prefix: &str) -> anyhow::Result<String> {
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Ok(rest.trim().to_owned());
                }
            }
            bail!("the child ended before it said `{prefix}`")
        });
        found.await.with_context(|| format!("the child never said `{prefix}`"))?
    }

    async fn read(&mut self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.line("read").await?)?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.process.wait().await?;
        Ok(())
    }
}

/// Brings a child to `step` and answers the gate that holds it at the provider, if it does.
async fn bring_to(scene: &Scene, step: Step, reads: &str) -> anyhow::Result<(Child, Option<Gate>)> {
    let gate = match step {
        // The provider never acts on it: its side dies with ours.
        Step::Arrived => Some(scene.provider.hold(1, Fault::cut_before().held_before())),
        Step::Processed => Some(scene.provider.hold_reply()),
        _ => None,
    };
    let name = step.to_string();
    let hold = ["--reads", reads, "--hold", name.as_str()];
    let mut child = scene.child(if step.at_provider() { &hold[..2] } else { &hold })?;
    match &gate {
        Some(gate) => tokio::time::timeout(PATIENCE, gate.arrived()).await.context("the request never came")?,
        None => {
            child.line("at").await?;
        }
    }
    Ok((child, gate))
}

async fn killed(way: Way, step: Step) -> anyhow::Result<String> {
    let scene = Scene::new(way).await?;
    let (mut child, gate) = bring_to(&scene, step, "1").await?;
    child.kill().await?;
    drop(gate);
    let began = Instant::now();
    let read = scene.read_anew().await?;
    let took = began.elapsed().as_millis();
    let recoverable = !step.provider_acted() || step.durable() || !matches!(way.rotation, Rotation::Strict);
    if recoverable {
        scene.is_good(&read)?;
    } else {
        ensure!(read["code"] == "reauth_required", "it should say reauth_required: {read}");
        ensure!(read["reason"] == "refresh_token_spent", "it should say why: {read}");
    }
    if step.durable() && !matches!(way.rotation, Rotation::None) {
        ensure!(scene.spends() == 1, "the refresh token was spent {} times", scene.spends());
    }
    let said = read["reason"].as_str().unwrap_or("a good token");
    Ok(format!("{said}, spent {} times, {took} ms with the new process's start", scene.spends()))
}

async fn commit_refused(way: Way) -> anyhow::Result<String> {
    let scene = Scene::new(way).await?;
    let mut child = scene.child(&["--refuse-commits", "--reads", "3", "--force"])?;
    let first = child.read().await?;
    scene.is_good(&first).context("the first read")?;
    let forced = child.read().await?;
    let again = child.read().await?;
    ensure!(again["token"] == first["token"], "another token after the first: {again}");
    ensure!(scene.provider.calls() == 1, "{} calls upstream, forced refresh: {forced}", scene.provider.calls());
    child.kill().await?;
    let read = scene.read_anew().await?;
    ensure!(read["token"] == first["token"], "the journal did not commit it: {read}");
    ensure!(scene.provider.calls() == 1, "it was refreshed again");
    Ok(format!("served, refreshed once, committed by the journal as generation {}", read["generation"]))
}

async fn frozen(way: Way, seconds: u64) -> anyhow::Result<String> {
    let scene = Scene::new(way).await?;
    let (mut owner, gate) = bring_to(&scene, Step::Processed, "2").await?;
    owner.signal(Signal::STOP)?;
    let mut other = scene.child(&["--reads", "1"])?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let meanwhile = scene.spends();
    if matches!(way.rotation, Rotation::Strict) {
        ensure!(meanwhile == 1, "spent {meanwhile} times while its owner was frozen");
    }
    drop(gate);
    owner.signal(Signal::CONT)?;
    let late = owner.read().await?;
    // Whoever waited was sent away; the exchange went on all the same.
    let after = owner.read().await?;
    scene.is_good(&after).context("the owner's next read")?;
    let theirs = other.read().await?;
    owner.kill().await?;
    other.kill().await?;
    let read = scene.read_anew().await?;
    scene.is_good(&read).context("afterwards")?;
    if matches!(way.rotation, Rotation::Strict) {
        ensure!(scene.spends() == 1, "spent {} times", scene.spends());
    }
    let said =
        |read: &Value| read["code"].as_str().map_or_else(|| format!("generation {}", read["generation"]), Into::into);
    Ok(format!("the owner got {}, another process {}; spent {} times", said(&late), said(&theirs), scene.spends()))
}
