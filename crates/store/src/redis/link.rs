//! The way to whichever server has a shard, and to its successor.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use redis::{Cmd, ErrorKind, RedisError, Value};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    connection::{Connection, Node, too_slow, within},
    discovery,
    error::{Failure, code, is_moved, reason, refused},
    keys,
    metrics::RedisMetrics,
    options::RedisOptions,
    scripts::Script,
};

/// Which server has which shard.
pub(super) struct Map {
    /// By address.
    pub(super) nodes: BTreeMap<String, Arc<Node>>,
    /// The address of the owner of each shard.
    owners: Vec<String>,
}

impl Map {
    pub(super) fn owner(&self, shard: usize) -> Result<&Arc<Node>, RedisError> {
        let owner = self.owners.get(shard).and_then(|address| self.nodes.get(address));
        owner.ok_or_else(|| RedisError::from((ErrorKind::ClusterConnectionNotFound, "no server has the shard")))
    }
}

/// What finds the servers.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// There is one.
    Single,
    /// Sentinels tell which of them is the primary.
    Sentinel(String),
    /// Each knows which has which slot; the slot of each shard.
    Cluster(Vec<u16>),
}

/// All servers, and the way to each.
pub(super) struct Link {
    pub(super) options: RedisOptions,
    pub(super) kind: Kind,
    map: RwLock<Arc<Map>>,
    finding: AsyncMutex<()>,
    /// Whether the last write that waited for a replica waited in vain.
    lagging: AtomicBool,
    pub(super) metrics: RedisMetrics,
    /// Whether the server has `WAITAOF`, and is to be asked for it.
    pub(super) disk_wait: bool,
}

impl Link {
    /// With nobody found yet.
    pub(super) fn new(options: RedisOptions, kind: Kind, disk_wait: bool) -> Self {
        let map = RwLock::new(Arc::new(Map { nodes: BTreeMap::new(), owners: Vec::new() }));
        let (lagging, metrics) = (AtomicBool::new(false), RedisMetrics::new());
        Self { options, kind, map, finding: AsyncMutex::new(()), lagging, metrics, disk_wait }
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        match &self.kind {
            Kind::Cluster(slots) => slots.len(),
            Kind::Single | Kind::Sentinel(_) => 1,
        }
    }

    /// What all keys of a shard begin with.
    pub(super) fn prefix(&self, shard: usize) -> String {
        keys::shard_prefix(&self.options.prefix, shard, matches!(self.kind, Kind::Cluster(_)))
    }

    /// The shard in which `text` is looked for.
    pub(super) fn shard_of(&self, text: &str) -> usize {
        keys::shard_of(text, self.shards())
    }

    pub(super) fn map(&self) -> Arc<Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks something that changes nothing, a second time if need be.
    pub(super) async fn read(&self, shard: usize, command: &Cmd) -> Result<Value, Failure> {
        let (map, mut used) = (self.map(), None);
        let answer = within(self.options.read_timeout, self.read_patiently(shard, command, &mut used)).await;
        if let Some(answer) = answer {
            return answer;
        }
        if let Some((node, connection)) = used {
            node.distrust(&connection);
        }
        // One that hangs says nothing of its successor. This read has waited long enough; the next is to find it.
        self.find_again(&map).await;
        Err(Failure::NothingDone(reason(&too_slow())))
    }

    async fn read_patiently(
        &self,
        shard: usize,
        command: &Cmd,
        used: &mut Option<(Arc<Node>, Connection)>,
    ) -> Result<Value, Failure> {
        let mut tries = 0;
        loop {
            let map = self.map();
            let ask = async {
                let node = map.owner(shard)?;
                let mut connection = node.shared().await?;
                *used = Some((node.clone(), connection.clone()));
                connection.ask(command).await
            };
            match ask.await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    tries += 1;
                    if tries > TRIES || !self.may_succeed(&map, &error, tries).await {
                        return Err(Failure::NothingDone(reason(&error)));
                    }
                }
            }
        }
    }

    /// Runs a script that changes something, and waits until a replica has it if it is to be `kept`.
    pub(super) async fn write(&self, shard: usize, script: &Script, call: &Call, kept: bool) -> Result<Value, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let map = self.map();
            let error = match self.write_once(&map, shard, script, call, kept).await {
                Written::Done(value) => return Ok(value),
                Written::InDoubt(reason) => {
                    self.find_again(&map).await;
                    return Err(Failure::InDoubt(reason));
                }
                Written::Not(error) => error,
            };
            if tries > TRIES || !self.may_succeed(&map, &error, tries).await {
                return Err(refused(&error));
            }
        }
    }

    async fn write_once(&self, map: &Map, shard: usize, script: &Script, call: &Call, kept: bool) -> Written {
        let node = match map.owner(shard) {
            Ok(node) => node,
            Err(error) => return Written::Not(error),
        };
        let mut own = match node.own().await {
            Ok(own) => own,
            Err(error) => return Written::Not(error),
        };
        let (mut replicas, ask_again) = node.replicas.known();
        if replicas.is_none() {
            match within(self.options.read_timeout, own.connection.ask(&info_replication())).await {
                None => return Written::Not(too_slow()),
                Some(Err(error)) if code(&error).is_none() => return Written::Not(error),
                Some(answer) => replicas = Some(node.replicas.told(&answer)),
            }
        }
        let mut by_hash = true;
        loop {
            let mut commands = vec![script.command(call, by_hash)];
            let waits = if kept { self.waits(replicas.unwrap_or(0)) } else { Vec::new() };
            let (waiting, asking) = (waits.len(), ask_again && replicas.is_some());
            commands.extend(waits);
            commands.extend(asking.then(info_replication));
            let limit = self.options.write_timeout + self.options.replica_wait;
            let answers = match within(limit, own.connection.ask_all(commands)).await {
                None => return Written::InDoubt("the server takes too long to answer a write".into()),
                Some(Err(error)) => return Written::InDoubt(reason(&error)),
                Some(Ok(answers)) => answers,
            };
            let mut answers = answers.into_iter();
            let Some(first) = answers.next() else { return Written::InDoubt("no answer to a write".into()) };
            let waited: Vec<_> = answers.by_ref().take(waiting).collect();
            if let Some(info) = answers.next() {
                node.replicas.told(&info);
            }
            return match first {
                Err(error) if by_hash && code(&error) == Some("NOSCRIPT") => {
                    by_hash = false;
                    continue;
                }
                Err(error) => {
                    own.give_back();
                    if code(&error) == Some("READONLY") {
                        // What it answers from now on may be old; a new connection is made to a primary only.
                        node.close_all();
                    }
                    Written::Not(error)
                }
                Ok(value) => {
                    own.give_back();
                    self.note_waits(&waited);
                    Written::Done(value)
                }
            };
        }
    }

    fn waits(&self, replicas: u32) -> Vec<Cmd> {
        let mut waits = Vec::new();
        if replicas > 0 && !self.options.replica_wait.is_zero() {
            let mut wait = redis::cmd("WAIT");
            wait.arg(1).arg(milliseconds(self.options.replica_wait));
            waits.push(wait);
        }
        if self.disk_wait {
            let mut wait = redis::cmd("WAITAOF");
            wait.arg(1).arg(0).arg(milliseconds(self.options.write_timeout) / 2);
            waits.push(wait);
        }
        waits
    }

    /// Counts, and says once that what is written may be lost with the primary, and once that it is no longer so.
    fn note_waits(&self, waited: &[Result<Value, RedisError>]) {
        let acknowledged = |answer: &Result<Value, RedisError>| match answer {
            Ok(Value::Int(count)) => *count > 0,
            Ok(Value::Array(counts)) => matches!(counts.first(), Some(Value::Int(count)) if *count > 0),
            _ => false,
        };
        if waited.is_empty() {
            return;
        }
        let lagging = !waited.iter().all(acknowledged);
        self.metrics.waited(!lagging);
        if lagging != self.lagging.swap(lagging, Ordering::Relaxed) {
            if lagging {
                tracing::warn!("writes are not taken over in time: what was written since may be lost in a failover");
            } else {
                tracing::info!("writes are taken over in time again");
            }
        }
    }

    /// Whether it makes sense to ask again at once: on a new connection, or elsewhere.
    async fn may_succeed(&self, map: &Arc<Map>, error: &RedisError, tries: usize) -> bool {
        if is_moved(error) || error.kind() == ErrorKind::ClusterConnectionNotFound {
            return self.find_again(map).await;
        }
        if code(error).is_some() {
            return false;
        }
        (tries == 1 && error.is_connection_dropped() && !error.is_connection_refusal()) || self.find_again(map).await
    }

    /// Looks for the servers anew; answers whether that changed anything since `seen`.
    pub(super) async fn find_again(&self, seen: &Arc<Map>) -> bool {
        if matches!(self.kind, Kind::Single) {
            return false;
        }
        let finding = self.finding.lock().await;
        let current = self.map();
        let changed = if Arc::ptr_eq(&current, seen) {
            within(self.options.connect_timeout, self.find()).await.and_then(Result::ok).unwrap_or(false)
        } else {
            true
        };
        drop(finding);
        changed
    }

    /// Finds the owner of every shard; answers whether one has changed.
    pub(super) async fn find(&self) -> Result<bool, RedisError> {
        let current = self.map();
        let owners = match &self.kind {
            Kind::Single => vec![self.options.url.seeds[0].clone()],
            Kind::Sentinel(name) => vec![discovery::primary_of(&self.options, name).await?],
            Kind::Cluster(slots) => discovery::owners_of(&self.options, slots, &current).await?,
        };
        let mut nodes = BTreeMap::new();
        for owner in &owners {
            let node = match current.nodes.get(&owner.to_string()) {
                Some(node) => node.clone(),
                None => {
                    let client = self.options.client(owner)?;
                    Arc::new(Node::new(client, self.options.connect_timeout, self.options.connections))
                }
            };
            nodes.insert(owner.to_string(), node);
        }
        let owners: Vec<_> = owners.iter().map(ToString::to_string).collect();
        let changed = owners != current.owners;
        if changed {
            *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Map { nodes, owners });
        }
        Ok(changed)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("kind", &self.kind).field("options", &self.options).finish_non_exhaustive()
    }
}

/// How often something is tried again at once.
const TRIES: usize = 3;

enum Written {
    Done(Value),
    Not(RedisError),
    InDoubt(String),
}

/// What a script is called with.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.keys.push(key.into());
        self
    }

    pub(super) fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

fn info_replication() -> Cmd {
    let mut info = redis::cmd("INFO");
    info.arg("replication");
    info
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
