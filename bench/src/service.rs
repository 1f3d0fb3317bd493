//! A `tokenkeep serve` of our own, in a temporary directory, ended with whoever started it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};

pub const ADMIN_KEY: &str = "tk_bench0000000000000000000000000000000000000000";

pub struct Service {
    process: Child,
    pub addr: SocketAddr,
    #[expect(dead_code, reason = "kept for as long as the process runs")]
    dir: tempfile::TempDir,
}

impl Service {
    /// Starts `binary` with `config`, on `core` if one is named.
    pub fn start(binary: &Path, config: &str, core: Option<usize>) -> anyhow::Result<Self> {
        Self::start_at(binary, config, core, "127.0.0.1:0")
    }

    /// The same at an address that is known beforehand, where others must be told of it.
    pub fn start_at(binary: &Path, config: &str, core: Option<usize>, listen: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("tokenkeep.toml");
        std::fs::write(&file, config)?;
        let mut command = pinned(binary, core);
        command
            .args(["serve", "--listen", listen, "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .env("TOKENKEEP_ADMIN_KEY", ADMIN_KEY)
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("BENCH_LOGS").is_some() { Stdio::inherit() } else { Stdio::null() });
        let mut process = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let addr = listening(&mut process)?;
        Ok(Self { process, addr, dir })
    }
}

impl Service {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Ends a process of ours.
pub fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

/// `binary`, on one core only if one is named.
pub fn pinned(binary: &Path, core: Option<usize>) -> Command {
    match core {
        None => Command::new(binary),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).arg(binary);
            command
        }
    }
}

/// The client stays off the core of the servers, and so does everything that it starts and does not pin.
pub fn pin_to_another_core(theirs: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = rustix::thread::CpuSet::new();
    for core in (0..cores).filter(|core| *core != theirs || cores == 1) {
        set.set(core);
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("the client could not be pinned: {error}");
    }
}

/// Waits for the line in which a process says where it listens.
pub fn listening(process: &mut Child) -> anyhow::Result<SocketAddr> {
    let stdout = process.stdout.take().context("no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next().transpose()? {
        let address = line.split_whitespace().find_map(|word| {
            word.trim_start_matches("http://").trim_end_matches(['/', ',', '.']).parse::<SocketAddr>().ok()
        });
        if let Some(address) = address {
            // Whatever else it says must not fill the pipe.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(address);
        }
    }
    bail!("it ended without saying where it listens")
}

/// The release binary beside ours, or the one named.
pub fn binary(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("tokenkeep"),
    };
    if !path.is_file() {
        bail!("{} is not there; build it with `cargo build --release`, or name it with --tokenkeep", path.display());
    }
    Ok(path)
}
