//! The servers of `tokenkeep-services`, started for people and for tests.

use std::{
    path::PathBuf,
    process::{self, Command, ExitCode},
    thread,
};

use anyhow::{Result, bail};
use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser};
use tokenkeep_services::{Kind, REDIS_PASSWORD, RedisAt, Running, SharedServers, VARIABLE};

use crate::{
    provision::{self, Missing},
    workspace::Workspace,
};

#[derive(Subcommand)]
pub(crate) enum Services {
    /// Start them, say where they are, and end them on Ctrl-C.
    Up(Up),
}

#[derive(Args)]
pub(crate) struct Up {
    /// Only these; all if none is named.
    #[arg(value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::name)).map(|name| kind(&name)))]
    servers: Vec<Kind>,
    /// Print what is written to `services.json` in the target folder instead of a table.
    #[arg(long)]
    json: bool,
}

fn kind(name: &str) -> Kind {
    Kind::ALL.into_iter().find(|kind| kind.name() == name).expect("one of the possible values")
}

pub(crate) fn run(workspace: &Workspace, Services::Up(up): &Services) -> Result<ExitCode> {
    if let Err(missing) = provision::services(workspace) {
        bail!("{missing}");
    }
    let chosen = if up.servers.is_empty() { &Kind::ALL } else { up.servers.as_slice() };
    let servers = SharedServers::start(chosen)?;
    let file = workspace.target("services.json");
    servers.write(&file)?;
    if up.json {
        println!("{}", serde_json::to_string_pretty(servers.running())?);
    } else {
        print!("{}", table(&rows(servers.running())));
        println!("\nTests and `tokenkeep_services::running()` find them by {}. Ctrl-C ends them.", file.display());
    }
    // Told to end, we exit from the thread that listens for it, and they end with us.
    loop {
        thread::park();
    }
}

/// Servers that run as long as this lives.
pub(crate) struct ForTests {
    _servers: SharedServers,
    file: PathBuf,
}

/// All of them, installed if need be.
pub(crate) fn for_tests(workspace: &Workspace) -> Result<Result<ForTests, Missing>> {
    if let Err(missing) = provision::services(workspace) {
        return Ok(Err(missing));
    }
    let servers = SharedServers::start(&Kind::ALL)?;
    // Of this run alone: others may be running theirs.
    let file = workspace.cache(&format!("services-{}.json", process::id()));
    servers.write(&file)?;
    print!("{}", table(&rows(servers.running())));
    Ok(Ok(ForTests { _servers: servers, file }))
}

impl ForTests {
    /// Tells the tests that `command` runs where the servers are.
    pub(crate) fn told_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(VARIABLE, &self.file)
    }
}

/// Name, address, and a line to connect with.
type Row = (&'static str, String, String);

fn rows(running: &Running) -> Vec<Row> {
    let Running { postgres, pgbouncer, redis, redis_cluster, vault, .. } = running;
    let loopback = |port: u16| format!("127.0.0.1:{port}");
    let row = |kind: Kind, address: String, connect: String| (kind.name(), address, connect);
    let rows = [
        postgres.get().map(|it| row(Kind::Postgres, loopback(it.port()), format!("psql {}", it.url("postgres")))),
        pgbouncer.get().map(|it| row(Kind::Pgbouncer, loopback(it.port()), format!("psql {}", it.url("postgres")))),
        redis.get().map(|it| row(Kind::Redis, it.address(), redis_cli(it, ""))),
        redis_cluster.get().and_then(|it| {
            let first = it.nodes().first()?;
            Some(row(Kind::RedisCluster, format!("{} ...", first.address()), redis_cli(first, " -c")))
        }),
        vault.get().map(|it| {
            let list = format!("curl -H 'X-Vault-Token: {}' -X LIST {}/v1/secret/", it.root_token(), it.address());
            row(Kind::Vault, loopback(it.port()), list)
        }),
    ];
    rows.into_iter().flatten().collect()
}

/// Not by URL: older versions of redis-cli take one without a user's name for one with an empty name.
fn redis_cli(redis: &RedisAt, options: &str) -> String {
    format!("redis-cli{options} -p {} --no-auth-warning --pass {REDIS_PASSWORD}", redis.port())
}

fn table(rows: &[Row]) -> String {
    let lines = rows.iter().map(|(name, address, connect)| format!("{name:<14} {address:<20} {connect}\n"));
    lines.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_can_be_named() {
        assert_eq!(Kind::ALL.map(|it| kind(it.name())), Kind::ALL);
    }
}
