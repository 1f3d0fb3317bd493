//! Programs that none of us wrote, run by scripts of the harness that speak JSON, a line at a time.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::service::end;

/// A server of the harness.
pub struct Peer {
    _running: Running,
    said: BTreeMap<String, String>,
}

impl Peer {
    /// Waits until it says that it listens.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut started = Process::start(command)?;
        while let Some(said) = started.next()? {
            if said["event"] == "listening" {
                let texts = said.as_object().into_iter().flatten();
                let said = texts.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
                let Process { running, lines } = started;
                // Whatever else it says must not fill the pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { _running: running, said });
            }
        }
        bail!("{command:?} ended without saying where it listens")
    }

    pub fn said(&self, name: &str) -> anyhow::Result<&str> {
        self.said.get(name).map(String::as_str).with_context(|| format!("it did not say its {name}"))
    }
}

/// Ends with the harness.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

pub struct Process {
    running: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("BENCH_LOGS").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .with_context(|| format!("{command:?} cannot be started"))?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self { running: Running(child), lines })
    }

    pub fn line(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.lines.next().transpose()?)
    }

    /// The next line that is JSON.
    pub fn next(&mut self) -> anyhow::Result<Option<Value>> {
        while let Some(line) = self.line()? {
            if let Ok(said) = serde_json::from_str(&line) {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.running.0.wait()?)
    }
}
