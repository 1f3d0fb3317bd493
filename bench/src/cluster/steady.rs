//! Readers of tokens that are fresh and cached: whatever breaks meanwhile, none of their reads may fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hyper::StatusCode;
use tokio::task::JoinSet;

use super::{
    client::Client,
    fleet::Instance,
    reads::{Door, look},
    upstream::path,
};

/// Between two reads of one instance: some hundred a second, so that the storm has the machine to itself.
const PAUSE: Duration = Duration::from_millis(5);

/// What they saw.
#[derive(Default)]
pub struct Steadied {
    pub good: u64,
    /// What was answered instead of a token, by instance and second.
    pub failures: Vec<String>,
    pub slowest: Duration,
}

pub struct Steady {
    enough: Arc<AtomicBool>,
    readers: JoinSet<anyhow::Result<Steadied>>,
}

/// A connection and the token it must be answered with.
pub type Expected = Arc<Vec<(usize, String)>>;

/// Reads every one of them once, so that the instance has it in memory. What cannot be read now is tried again.
pub async fn warm(instance: &Instance, expected: &Expected, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    let mut client = instance.client()?;
    for (number, token) in expected.iter() {
        loop {
            let answer = client.get(&format!("{}/token", path(*number))).await;
            match answer {
                Ok(answer) if answer.status == StatusCode::OK => {
                    ensure!(answer.json()?["access_token"] == token.as_str(), "s-{number} has another token");
                    break;
                }
                other => {
                    let said = other.map_or_else(|e| format!("{e:#}"), |a| format!("{} {}", a.status, a.text()));
                    ensure!(Instant::now() < deadline, "{} cannot read s-{number}: {said}", instance.name);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    Ok(())
}

impl Steady {
    /// Begins to read at every door.
    pub fn start(doors: &[Door], expected: &Expected) -> Self {
        let enough = Arc::<AtomicBool>::default();
        let mut readers = JoinSet::new();
        for (index, door) in doors.iter().enumerate() {
            readers.spawn(read(index, door.clone(), expected.clone(), enough.clone()));
        }
        Self { enough, readers }
    }

    /// Ends it, and answers what was seen.
    pub async fn end(mut self) -> anyhow::Result<Steadied> {
        self.enough.store(true, SeqCst);
        let mut all = Steadied::default();
        while let Some(seen) = self.readers.join_next().await {
            let seen = seen.context("a reader broke")??;
            all.good += seen.good;
            all.slowest = all.slowest.max(seen.slowest);
            all.failures.extend(seen.failures);
        }
        Ok(all)
    }
}

async fn read(index: usize, door: Door, expected: Expected, enough: Arc<AtomicBool>) -> anyhow::Result<Steadied> {
    let mut seen = Steadied::default();
    let began = Instant::now();
    let mut client: Option<Client> = None;
    for (number, token) in expected.iter().cycle() {
        if enough.load(SeqCst) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let Some(addr) = look(&door) else { continue };
        let mut asking = client.take().filter(|c| c.addr() == addr).unwrap_or_else(|| Client::new(addr));
        let asked = Instant::now();
        let answer = asking.get(&format!("{}/token", path(*number))).await;
        // Killed, on purpose, while it was asked.
        if answer.is_err() && look(&door) != Some(addr) {
            continue;
        }
        client = Some(asking);
        seen.slowest = seen.slowest.max(asked.elapsed());
        let wrong = match answer {
            Ok(answer) if answer.status != StatusCode::OK => format!("{} {}", answer.status, answer.text()),
            Ok(answer) if answer.json()?["access_token"] != token.as_str() => "another token".to_owned(),
            Ok(_) => {
                seen.good += 1;
                continue;
            }
            Err(error) => format!("{error:#}"),
        };
        seen.failures.push(format!("instance-{index} after {:.1} s: {wrong}", began.elapsed().as_secs_f64()));
    }
    Ok(seen)
}
