//! The processes under test: each a `tokenkeep serve` with a data directory of its own.

use std::{
    fs::OpenOptions,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::client::Client;
use crate::service::ADMIN_KEY;

/// The root key of all instances: 32 bytes of 7.
pub const SEALING_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// How long a start, and an orderly end, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an instance is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    /// Its configuration without data directory and address.
    pub config: String,
    /// Variables for it.
    pub environment: Vec<(&'static str, String)>,
}

/// One instance, running or not. What is left of it when it ends stays on disk, as on a machine.
pub struct Instance {
    pub name: String,
    pub plan: Plan,
    dir: PathBuf,
    running: Option<Running>,
}

struct Running {
    process: Child,
    addr: SocketAddr,
}

impl Instance {
    /// Starts one below `base`, and waits until it listens.
    pub async fn start(base: &Path, name: &str, plan: Plan) -> anyhow::Result<Self> {
        let dir = base.join(name);
        std::fs::create_dir_all(&dir)?;
        let mut instance = Self { name: name.to_owned(), plan, dir, running: None };
        instance.restart().await?;
        Ok(instance)
    }

    /// Starts it again on what it left behind.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "{} runs already", self.name);
        let file = self.dir.join("tokenkeep.toml");
        std::fs::write(&file, &self.plan.config)?;
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut process = Command::new(&self.plan.binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(self.data_dir())
            .env("TOKENKEEP_ADMIN_KEY", ADMIN_KEY)
            .envs(self.plan.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.plan.binary.display()))?;
        let addr = tokio::time::timeout(PATIENCE, listening(&mut process)).await.context("it never listened").flatten();
        let addr = addr.with_context(|| format!("{}; its log is {}", self.name, self.last_words()))?;
        self.running = Some(Running { process, addr });
        Ok(())
    }

    pub fn addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.running.as_ref().with_context(|| format!("{} does not run", self.name))?.addr)
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.addr()?))
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log.jsonl")
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let process = self.running.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = process.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    /// kill -9.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        if let Some(mut running) = self.running.take() {
            running.process.wait().await?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it did; answers how long that took.
    pub async fn end(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.signal(Signal::TERM)?;
        let Some(mut running) = self.running.take() else { return Ok(Duration::ZERO) };
        let status = tokio::time::timeout(PATIENCE, running.process.wait()).await;
        let status = status.with_context(|| format!("{} does not end", self.name))??;
        ensure!(status.success(), "{} ended with {status}; its log: {}", self.name, self.last_words());
        Ok(began.elapsed())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Reads what it says until it says where it listens, and goes on reading, so that the pipe never fills.
async fn listening(process: &mut Child) -> anyhow::Result<SocketAddr> {
    let mut lines = BufReader::new(process.stdout.take().context("no stdout")?).lines();
    while let Some(line) = lines.next_line().await? {
        let word = |word: &str| word.trim_start_matches("http://").trim_end_matches(['/', ',', '.']).parse().ok();
        if let Some(addr) = line.split_whitespace().find_map(word) {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(addr);
        }
    }
    bail!("it ended without saying where it listens")
}

/// Starts `count` at the same moment.
pub async fn start(base: &Path, count: usize, plan: &Plan) -> anyhow::Result<Vec<Instance>> {
    let names: Vec<String> = (0..count).map(|n| format!("instance-{n}")).collect();
    let starting = names.iter().map(|name| Instance::start(base, name, plan.clone()));
    futures_util::future::try_join_all(starting).await
}

/// Ends all of them in order, at the same moment.
pub async fn end(instances: &mut [Instance]) -> anyhow::Result<Duration> {
    let took = futures_util::future::try_join_all(instances.iter_mut().map(Instance::end)).await?;
    Ok(took.into_iter().max().unwrap_or_default())
}

/// A directory for data and logs: removed at the end, or kept.
pub struct Ground {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Ground {
    pub fn new(keep: bool) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tokenkeep-bench-").tempdir()?;
        if keep {
            let path = dir.keep();
            println!("data and logs stay in {}", path.display());
            return Ok(Self { dir: None, path });
        }
        Ok(Self { path: dir.path().to_owned(), dir: Some(dir) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What went wrong is looked for in the logs: they stay.
    pub fn keep(&mut self) {
        if let Some(dir) = self.dir.take() {
            println!("data and logs stay in {}", dir.keep().display());
        }
    }
}
