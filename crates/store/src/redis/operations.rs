//! A look at the servers, for people.

use std::{collections::BTreeMap, time::Duration};

use redis::{Cmd, Value};
use tokenkeep_core::ports::{Kind, StoreError};
use tokio::time::Instant;

use super::{
    connection::{Node, too_slow, within},
    error::{Failure, is_forbidden, reason},
    keys,
    link::Link,
    lists::parse,
    open::{self, OpenError},
    options::RedisOptions,
};

/// Looks, and changes nothing. What it answers holds no value, no identifier and no argument of any command.
#[derive(Debug)]
pub struct RedisOperations {
    link: Link,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Where it is.
    pub address: String,
    /// Fields of `INFO`, in a fixed order; those that it does not tell are left out.
    pub fields: Vec<(&'static str, String)>,
}

/// How many keys begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCount {
    /// What they begin with, after the prefix; `other` for all that tokenkeep does not write.
    pub kind: &'static str,
    /// How many there are.
    pub keys: u64,
    /// How many of them only remember a deletion.
    pub tombstones: u64,
}

/// Who is connected to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLine {
    /// The server.
    pub server: String,
    /// The client's address.
    pub address: String,
    /// The name it gave itself, if any.
    pub name: String,
    /// Its user.
    pub user: String,
    /// How long it has been connected.
    pub age: Duration,
    /// How long it has said nothing.
    pub idle: Duration,
}

/// A command that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowCall {
    /// The server.
    pub server: String,
    /// When it ran, in seconds since 1970-01-01 UTC.
    pub at: i64,
    /// How long it took.
    pub took: Duration,
    /// Its name, without what it was given.
    pub command: String,
}

/// How many keys are asked for at once.
const BITE: u32 = 1000;

/// The fields of `INFO` worth a look.
const FIELDS: [&str; 20] = [
    "redis_version",
    "valkey_version",
    "redis_mode",
    "role",
    "uptime_in_seconds",
    "connected_clients",
    "maxclients",
    "blocked_clients",
    "used_memory_human",
    "used_memory_peak_human",
    "maxmemory_human",
    "maxmemory_policy",
    "mem_fragmentation_ratio",
    "aof_enabled",
    "aof_last_write_status",
    "rdb_last_bgsave_status",
    "connected_slaves",
    "instantaneous_ops_per_sec",
    "evicted_keys",
    "rejected_connections",
];

impl RedisOperations {
    /// Connects, whatever the servers are like.
    pub async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        Ok(Self { link: open::connect_to_look(options).await? })
    }

    /// How long each server takes to answer.
    pub async fn ping(&self) -> Result<Vec<(String, Duration)>, StoreError> {
        let mut answers = Vec::new();
        for (address, node) in &self.link.map().nodes {
            // The first may have to connect.
            self.ask(node, &redis::cmd("PING")).await?;
            let start = Instant::now();
            self.ask(node, &redis::cmd("PING")).await?;
            answers.push((address.clone(), start.elapsed()));
        }
        Ok(answers)
    }

    /// What each server says of itself.
    pub async fn info(&self) -> Result<Vec<ServerInfo>, StoreError> {
        let mut servers = Vec::new();
        for (address, node) in &self.link.map().nodes {
            let text: String = parse(self.ask(node, &redis::cmd("INFO")).await?)?;
            let field = |name: &'static str| Some((name, super::connection::info_field(&text, name)?.to_owned()));
            servers
                .push(ServerInfo { address: address.clone(), fields: FIELDS.into_iter().filter_map(field).collect() });
        }
        Ok(servers)
    }

    /// How many keys of each kind begin with the prefix, those of which there are none left out. Walks over all keys of
    /// the servers (`SCAN`), so it takes a while where there are many; one may be counted twice while a server enlarges
    /// its table.
    pub async fn keys(&self) -> Result<Vec<KeyCount>, StoreError> {
        let mut counts: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        let prefix = &self.link.options.prefix;
        for node in self.link.map().nodes.values() {
            let mut cursor = String::from("0");
            loop {
                let mut command = redis::cmd("SCAN");
                command.arg(&cursor).arg("MATCH").arg(keys::pattern(prefix)).arg("COUNT").arg(BITE);
                let (next, found): (String, Vec<Vec<u8>>) = parse(self.ask(node, &command).await?)?;
                for key in found {
                    counts.entry(keys::name_of(prefix, &key)).or_default().0 += 1;
                }
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        for shard in 0..self.link.shards() {
            let prefix = self.link.prefix(shard);
            for kind in Kind::ALL.map(keys::kind_name) {
                let Some((_, tombstones)) = counts.get_mut(kind) else { continue };
                let mut command = redis::cmd("ZCARD");
                command.arg(format!("{prefix}dead:{kind}"));
                *tombstones += parse::<u64>(self.link.read(shard, &command).await?)?;
            }
        }
        Ok(counts.into_iter().map(|(kind, (keys, tombstones))| KeyCount { kind, keys, tombstones }).collect())
    }

    /// Who is connected.
    pub async fn clients(&self) -> Result<Vec<ClientLine>, StoreError> {
        let mut clients = Vec::new();
        let mut command = redis::cmd("CLIENT");
        command.arg("LIST");
        for (server, node) in &self.link.map().nodes {
            let text: String = parse(self.ask(node, &command).await?)?;
            clients.extend(text.lines().map(|line| client(server, line)));
        }
        Ok(clients)
    }

    /// The last `limit` commands that took long, of each server.
    pub async fn slowlog(&self, limit: u32) -> Result<Vec<SlowCall>, StoreError> {
        let mut calls = Vec::new();
        let mut command = redis::cmd("SLOWLOG");
        command.arg("GET").arg(limit);
        for (server, node) in &self.link.map().nodes {
            let entries: Vec<Vec<Value>> = parse(self.ask(node, &command).await?)?;
            for entry in entries {
                let [_, at, took, arguments, ..] = &entry[..] else { continue };
                let arguments: Vec<Vec<u8>> = parse(arguments.clone())?;
                calls.push(SlowCall {
                    server: server.clone(),
                    at: parse(at.clone())?,
                    took: Duration::from_micros(parse(took.clone())?),
                    command: command_name(&arguments),
                });
            }
        }
        Ok(calls)
    }

    async fn ask(&self, node: &Node, command: &Cmd) -> Result<Value, StoreError> {
        let answer = async { node.shared().await?.ask(command).await };
        let answer = within(self.link.options.read_timeout, answer).await.unwrap_or_else(|| Err(too_slow()));
        answer.map_err(|error| {
            let reason = if is_forbidden(&error) {
                format!("its user may not call {}, which the store itself does not need", words(command))
            } else {
                reason(&error)
            };
            Failure::NothingDone(reason).into()
        })
    }
}

/// The name of a command of ours: `INFO`, `CLIENT LIST`.
fn words(command: &Cmd) -> String {
    let words = command.args_iter().map_while(|word| match word {
        redis::Arg::Simple(word) => std::str::from_utf8(word).ok(),
        _ => None,
    });
    words.take_while(|word| word.bytes().all(|b| b.is_ascii_uppercase())).collect::<Vec<_>>().join(" ")
}

/// A line of `CLIENT LIST`.
fn client(server: &str, line: &str) -> ClientLine {
    let field = |name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().to_owned()
    };
    let seconds = |name: &str| Duration::from_secs(field(name).parse().unwrap_or_default());
    ClientLine {
        server: server.to_owned(),
        address: field("addr"),
        name: field("name"),
        user: field("user"),
        age: seconds("age"),
        idle: seconds("idle"),
    }
}

/// The first word, if it is one: whatever else was sent, as its name or otherwise, is nobody's business.
fn command_name(arguments: &[Vec<u8>]) -> String {
    let word = arguments.first().map(|word| String::from_utf8_lossy(word).to_ascii_uppercase()).unwrap_or_default();
    let plain = (1..=32).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'|');
    if plain { word } else { "?".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_shown_by_address_and_name() {
        let line = "id=3 addr=127.0.0.1:5 laddr=127.0.0.1:6 fd=8 name=x age=7 idle=1 flags=N user=alice cmd=get";
        let shown = client("s", line);
        assert_eq!((&*shown.address, &*shown.name, &*shown.user), ("127.0.0.1:5", "x", "alice"));
        assert_eq!((shown.age, shown.idle), (Duration::from_secs(7), Duration::from_secs(1)));
    }

    #[test]
    fn a_command_of_ours_is_called_by_its_name() {
        let mut scan = redis::cmd("SCAN");
        scan.arg("0").arg("MATCH");
        let mut clients = redis::cmd("CLIENT");
        clients.arg("LIST");
        assert_eq!([words(&scan), words(&clients)], ["SCAN", "CLIENT LIST"]);
    }

    #[test]
    fn of_a_command_only_its_name_is_shown() {
        assert_eq!(command_name(&[b"evalsha".to_vec(), b"sealed".to_vec()]), "EVALSHA");
        for other in [&b"\xff\x00"[..], b"", b"a b", &[b'a'; 33]] {
            assert_eq!(command_name(&[other.to_vec()]), "?");
        }
    }
}
