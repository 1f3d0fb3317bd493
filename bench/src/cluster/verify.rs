//! What the store holds when everything is over: read, and then spent, by an instance that has never seen anything
//! else: an empty data directory, no cache, no bus.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use anyhow::ensure;
use futures_util::{StreamExt as _, stream};
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::{
    backend::Backend,
    client::Client,
    fleet::Instance,
    upstream::{Upstream, path},
};

const AT_ONCE: usize = 48;

/// What a bare instance finds.
pub struct Found {
    /// The access token of each connection that has one to serve.
    pub tokens: HashMap<usize, String>,
    /// The other ones: status, reason.
    pub others: HashMap<usize, String>,
}

/// Reads every connection from the store.
pub async fn read(witness: &Instance, numbers: &[usize]) -> anyhow::Result<Found> {
    let answers = each(witness, numbers, Method::GET, "/token").await?;
    let mut found = Found { tokens: HashMap::new(), others: HashMap::new() };
    for (number, status, body) in answers {
        match body["access_token"].as_str() {
            Some(token) if status == StatusCode::OK => {
                found.tokens.insert(number, token.to_owned());
            }
            _ => {
                let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                found.others.insert(number, format!("{} {} {}", status.as_u16(), word("code"), word("reason")));
            }
        }
    }
    Ok(found)
}

/// Spends the refresh token that the store holds of each of them; answers how many were good.
pub async fn spend(witness: &Instance, numbers: &[usize]) -> anyhow::Result<usize> {
    let answers = each(witness, numbers, Method::POST, "/token/refresh").await?;
    let bad: Vec<_> = answers.iter().filter(|(_, status, _)| *status != StatusCode::OK).take(3).collect();
    if !bad.is_empty() {
        println!("  refused, for example: {bad:?}");
    }
    Ok(answers.iter().filter(|(_, status, _)| *status == StatusCode::OK).count())
}

async fn each(
    witness: &Instance,
    numbers: &[usize],
    method: Method,
    below: &str,
) -> anyhow::Result<Vec<(usize, StatusCode, Value)>> {
    let addr = witness.addr()?;
    let lanes = numbers.chunks(numbers.len().div_ceil(AT_ONCE).max(1)).map(|chunk| {
        let (chunk, method, below) = (chunk.to_vec(), method.clone(), Arc::<str>::from(below));
        async move {
            let mut client = Client::new(addr);
            let mut answers = Vec::new();
            for number in chunk {
                let answer = client.send(method.clone(), &format!("{}{below}", path(number)), None).await?;
                answers.push((number, answer.status, answer.json().unwrap_or_default()));
            }
            anyhow::Ok(answers)
        }
    });
    let lanes: Vec<_> = stream::iter(lanes.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
    let mut all = Vec::new();
    for lane in lanes {
        all.extend(lane?);
    }
    ensure!(all.len() == numbers.len(), "{} of {} were answered", all.len(), numbers.len());
    Ok(all)
}

/// Starts the witness.
pub async fn witness(ground: &Path, backend: &Backend, binary: &Path, upstream: &Upstream) -> anyhow::Result<Instance> {
    Instance::start(ground, "witness", backend.bare_plan(binary, upstream)).await
}

/// Connections whose newest tokens, as far as they reached anybody, are not what the store holds.
pub fn lost(upstream: &Upstream, found: &Found, excused: &HashSet<usize>) -> Vec<usize> {
    let newest = upstream.newest();
    let mut lost: Vec<usize> = newest
        .into_iter()
        .filter(|(number, issued)| !excused.contains(number) && found.tokens.get(number) != Some(&issued.access_token))
        .map(|(number, _)| number)
        .collect();
    lost.sort_unstable();
    lost
}
