//! `store info|keys|clients|slowlog`: a look at the Redis that is the store, and at the one in front of the store. The
//! configuration says where they are; no server is asked, so that this works while none can start.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, anyhow, bail};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokenkeep_core::ports::{Clock, Entropy, StoreError};
use tokenkeep_engine::system::{SystemClock, SystemEntropy};
use tokenkeep_store::redis::{ClientLine, KeyCount, RedisOperations, ServerInfo, SlowCall};

use super::{Context, health, times::relative};
use crate::{
    args::{self, Store},
    out,
    serve::{backends::Opening, store::Choice},
};

pub(super) async fn run(context: &Context, command: Store) -> Result<ExitCode> {
    let (name, instead) = match &command {
        Store::Ping => return health::ping(context).await,
        Store::Info(_) => ("info", "`tokenkeep health` and `tokenkeep doctor` look at any store"),
        Store::Keys(_) => ("keys", "`tokenkeep stats` counts what is in any store"),
        Store::Clients(_) => ("clients", "`tokenkeep instances` lists who serves from any store"),
        Store::Slowlog { .. } => ("slowlog", "`tokenkeep store ping` asks any store whether it answers"),
    };
    let mut redises = Redises::find(context, name, instead).await?;
    match command {
        Store::Ping => {}
        Store::Info(output) => info(redises.ask(servers).await?, output.json)?,
        Store::Keys(output) => keys(redises.ask(RedisOperations::keys).await?, output.json)?,
        Store::Clients(output) => clients(redises.ask(RedisOperations::clients).await?, output.json)?,
        Store::Slowlog { limit, output } => {
            slowlog(redises.ask(async |redis| redis.slowlog(limit).await).await?, output.json)?;
        }
    }
    for problem in &redises.problems {
        out::note(format_args!("error: {problem}"));
    }
    Ok(if redises.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every Redis that is configured. One that does not answer is told of, and does not hide the other.
struct Redises {
    found: Vec<Redis>,
    problems: Vec<String>,
}

struct Redis {
    /// What it is for: `store` or `cache`.
    role: &'static str,
    location: String,
    look: RedisOperations,
}

/// What was answered, and what the Redis is for that answered it.
type Answers<T> = Vec<(&'static str, T)>;

impl Redises {
    /// Connects to them.
    async fn find(context: &Context, name: &str, instead: &str) -> Result<Self> {
        if context.global.url.is_some() {
            let why = "looks at the Redis that this machine's configuration names, and asks no server: leave out --url";
            return Err(args::wrong(format_args!("`store {name}` {why}")).into());
        }
        let (config, dir) = context.config()?;
        let choice = Choice::make(&config, &context.environment, &dir)?;
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let opening = Opening { config: &config, environment: &context.environment, clock: &clock, entropy: &entropy };
        let configured = opening.redises(&choice)?;
        if configured.is_empty() {
            let Choice { place, chosen_by } = choice;
            bail!(
                "`store {name}` looks at a Redis, but the store here is {place} ({chosen_by}), with no Redis in front of \
                 it; {instead}"
            );
        }
        let mut redises = Self { found: Vec::new(), problems: Vec::new() };
        for (role, url) in configured {
            match RedisOperations::connect(opening.redis_options(&url)?).await {
                Ok(look) => redises.found.push(Redis { role, location: url.to_string(), look }),
                Err(error) => redises.problems.push(format!("{role}: {error}")),
            }
        }
        Ok(redises)
    }

    /// What each of them answers; an error if none does.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFn(&RedisOperations) -> Result<Vec<T>, StoreError>,
    ) -> Result<Answers<T>> {
        let (mut answers, mut answered) = (Vec::new(), false);
        for Redis { role, location, look } in &self.found {
            match question(look).await {
                Ok(some) => {
                    answered = true;
                    answers.extend(some.into_iter().map(|one| (*role, one)));
                }
                Err(StoreError::Unavailable { reason, .. }) => {
                    self.problems.push(format!("{role}: {location}: {reason}"));
                }
                Err(error) => self.problems.push(format!("{role}: {location}: {error}")),
            }
        }
        if answered { Ok(answers) } else { Err(anyhow!(self.problems.join("; "))) }
    }
}

/// What each server says of itself, and how long it takes to answer.
async fn servers(redis: &RedisOperations) -> Result<Vec<(ServerInfo, Duration)>, StoreError> {
    // Both go through the servers in the same order.
    let delays = redis.ping().await?.into_iter().map(|(_, delay)| delay);
    Ok(redis.info().await?.into_iter().zip(delays).collect())
}

fn info(servers: Answers<(ServerInfo, Duration)>, json: bool) -> Result<()> {
    if json {
        return list(&servers, |(server, delay)| {
            let fields = server.fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
            let fields: Map<_, _> = fields.collect();
            json!({"server": server.address, "answers_in_ms": milliseconds(*delay), "info": fields})
        });
    }
    for (role, (server, delay)) in servers {
        out::line(format_args!("{role} · {}", out::printable(server.address)))?;
        out::line(format_args!("  {:<25} {} ms", "answers in", milliseconds(delay)))?;
        for (name, value) in server.fields {
            out::line(format_args!("  {name:<25} {}", out::printable(value)))?;
        }
    }
    Ok(())
}

fn keys(counts: Answers<KeyCount>, json: bool) -> Result<()> {
    if json {
        return list(
            &counts,
            |KeyCount { kind, keys, tombstones }| json!({"kind": kind, "keys": keys, "tombstones": tombstones}),
        );
    }
    if counts.is_empty() {
        out::note("No key begins with the prefix that is configured.");
        return Ok(());
    }
    let rows = counts.into_iter().map(|(role, KeyCount { kind, keys, tombstones })| {
        [role.to_owned(), kind.to_owned(), keys.to_string(), tombstones.to_string()]
    });
    out::table(["REDIS", "KIND", "KEYS", "TOMBSTONES"], rows)
}

fn clients(clients: Answers<ClientLine>, json: bool) -> Result<()> {
    if json {
        return list(&clients, |ClientLine { server, address, name, user, age, idle }| {
            json!({
                "server": server, "address": address, "user": user, "name": name,
                "connected_seconds": age.as_secs(), "idle_seconds": idle.as_secs(),
            })
        });
    }
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let rows = clients.into_iter().map(|(role, ClientLine { server, address, name, user, age, idle })| {
        let seconds = |time: Duration| format!("{} s", time.as_secs());
        [role.to_owned(), server, address, user, or_none(name), seconds(age), seconds(idle)]
    });
    out::table(["REDIS", "SERVER", "CLIENT", "USER", "NAME", "CONNECTED", "IDLE"], rows)
}

fn slowlog(calls: Answers<SlowCall>, json: bool) -> Result<()> {
    let at = |at: i64| Timestamp::from_second(at).ok();
    if json {
        return list(&calls, |call| {
            let SlowCall { server, at: second, took, command } = call;
            json!({"server": server, "at": at(*second), "took_ms": milliseconds(*took), "command": command})
        });
    }
    if calls.is_empty() {
        out::note("No command took longer than Redis tolerates (its `slowlog-log-slower-than`).");
        return Ok(());
    }
    let rows = calls.into_iter().map(|(role, SlowCall { server, at: second, took, command })| {
        [role.to_owned(), server, relative(at(second)), format!("{} ms", milliseconds(took)), command]
    });
    out::table(["REDIS", "SERVER", "WHEN", "TOOK", "COMMAND"], rows)
}

/// A JSON list of what `value` makes of each, and what the Redis is for that said so.
fn list<T>(answers: &Answers<T>, value: impl Fn(&T) -> Value) -> Result<()> {
    let entries = answers.iter().map(|(role, answer)| {
        let mut entry = value(answer);
        entry["redis"] = json!(role);
        entry
    });
    out::json(&entries.collect::<Vec<_>>())
}

/// Milliseconds, and three digits of their fractions.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
