//! Readers: every instance is asked for every connection, in an order of its own.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use hyper::StatusCode;

use super::{client::Client, upstream::path};

/// Readers of one instance at a time.
const READERS: usize = 48;

/// What readers saw.
#[derive(Default)]
pub struct Seen {
    /// Every token served, by the connection's number.
    pub served: Vec<(usize, String)>,
    /// Answers that were no token, by their code.
    pub failed: HashMap<String, usize>,
    /// Connections that need their user, by number, and why.
    pub dead: HashMap<usize, String>,
    /// How often readers were told so.
    pub dead_answers: usize,
    /// Microseconds from the question to the answer, good or not.
    pub latency: Option<Histogram<u64>>,
}

impl Seen {
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    fn merge(&mut self, other: Seen) -> anyhow::Result<()> {
        self.served.extend(other.served);
        self.dead.extend(other.dead);
        self.dead_answers += other.dead_answers;
        for (code, count) in other.failed {
            *self.failed.entry(code).or_default() += count;
        }
        match (&mut self.latency, other.latency) {
            (Some(mine), Some(theirs)) => mine.add(theirs)?,
            (mine @ None, theirs) => *mine = theirs,
            _ => {}
        }
        Ok(())
    }

    /// `p50 12 ms, p99 40 ms, max 55 ms`.
    pub fn latencies(&self) -> String {
        let Some(latency) = &self.latency else { return "none".to_owned() };
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(0.5), at(0.99), latency.max() as f64 / 1000.0)
    }
}

/// Where an instance is found at the moment; `None` = it is not there.
pub type Door = Arc<Mutex<Option<SocketAddr>>>;

pub fn door(addr: SocketAddr) -> Door {
    Arc::new(Mutex::new(Some(addr)))
}

pub fn look(door: &Door) -> Option<SocketAddr> {
    *door.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks each instance for every connection until it has a token of it, or is told that only its user can help.
pub async fn all_of(doors: &[Door], numbers: &[usize], patience: Duration) -> anyhow::Result<Seen> {
    let deadline = Instant::now() + patience;
    let mut readers = tokio::task::JoinSet::new();
    for (seed, door) in doors.iter().enumerate() {
        let numbers = Arc::new(shuffled(numbers, seed as u64 + 1));
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..READERS {
            readers.spawn(reader(door.clone(), numbers.clone(), next.clone(), deadline));
        }
    }
    let mut seen = Seen::default();
    while let Some(reader) = readers.join_next().await {
        seen.merge(reader??)?;
    }
    Ok(seen)
}

async fn reader(
    door: Door,
    numbers: Arc<Vec<usize>>,
    next: Arc<AtomicUsize>,
    deadline: Instant,
) -> anyhow::Result<Seen> {
    let mut seen = Seen { latency: Some(Histogram::new(3)?), ..Seen::default() };
    let mut client: Option<Client> = None;
    while let Some(number) = numbers.get(next.fetch_add(1, SeqCst)).copied() {
        let path = format!("{}/token", path(number));
        loop {
            anyhow::ensure!(Instant::now() < deadline, "s-{number} was not answered in time: {:?}", seen.failed);
            let Some(addr) = look(&door) else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let mut asked = client.take().filter(|c| c.addr() == addr).unwrap_or_else(|| Client::new(addr));
            let began = Instant::now();
            let answer = asked.get(&path).await;
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
            if let Some(latency) = &mut seen.latency {
                latency.record(took)?;
            }
            client = Some(asked);
            let code = match answer {
                Ok(answer) if answer.status == StatusCode::OK => {
                    let token = answer.json()?["access_token"].as_str().context("200 without a token")?.to_owned();
                    seen.served.push((number, token));
                    break;
                }
                Ok(answer) => {
                    let body = answer.json().unwrap_or_default();
                    let code = body["code"].as_str().unwrap_or("?").to_owned();
                    if answer.status == StatusCode::FAILED_DEPENDENCY {
                        seen.dead.insert(number, body["reason"].as_str().unwrap_or("?").to_owned());
                        seen.dead_answers += 1;
                        break;
                    }
                    format!("{} {code}", answer.status.as_u16())
                }
                // Its process was killed under us: the reader turns to where it is next.
                Err(_) if look(&door) != Some(addr) => continue,
                Err(error) => format!("no answer ({error:#})"),
            };
            *seen.failed.entry(code).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(seen)
}

/// Fisher and Yates, by a small generator: the same order in every run.
fn shuffled(numbers: &[usize], seed: u64) -> Vec<usize> {
    let mut shuffled = numbers.to_vec();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for i in (1..shuffled.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let j = usize::try_from(state % (i as u64 + 1)).unwrap_or(0);
        shuffled.swap(i, j);
    }
    shuffled
}
