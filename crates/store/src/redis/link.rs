//! The way to whichever server has a shard, and to its successor.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use redis::{Cmd, ConnectionAddr, ErrorKind, RedisError, Value};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    connection::{Connection, Node, within},
    error::{Failure, code, is_moved, reason, refused},
    keys,
    open::OpenError,
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
    /// Whether the server has `WAITAOF`, and is to be asked for it.
    pub(super) disk_wait: bool,
}

impl Link {
    /// With nobody found yet.
    pub(super) fn new(options: RedisOptions, kind: Kind, disk_wait: bool) -> Self {
        let map = RwLock::new(Arc::new(Map { nodes: BTreeMap::new(), owners: Vec::new() }));
        Self { options, kind, map, finding: AsyncMutex::new(()), lagging: AtomicBool::new(false), disk_wait }
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
        let mut used = None;
        let answer = within(self.options.read_timeout, self.read_patiently(shard, command, &mut used)).await;
        if answer.is_none()
            && let Some((node, connection)) = used
        {
            node.distrust(&connection);
        }
        answer.unwrap_or_else(|| Err(Failure::NothingDone("the server takes too long".into())))
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
                Written::InDoubt(reason) => return Err(Failure::InDoubt(reason)),
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
                None => return Written::Not(super::connection::too_slow()),
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

    /// Says once that what is written may be lost with the primary, and once that it is no longer so.
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
        let changed = !Arc::ptr_eq(&current, seen) || self.find().await.unwrap_or(false);
        drop(finding);
        changed
    }

    /// Finds the owner of every shard; answers whether one has changed.
    pub(super) async fn find(&self) -> Result<bool, RedisError> {
        let current = self.map();
        let owners = match &self.kind {
            Kind::Single => vec![self.options.url.seeds[0].clone()],
            Kind::Sentinel(name) => vec![primary_of(&self.options, name).await?],
            Kind::Cluster(slots) => self.owners_of(slots, &current).await?,
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

    async fn owners_of(&self, slots: &[u16], current: &Map) -> Result<Vec<ConnectionAddr>, RedisError> {
        let mut last = RedisError::from((ErrorKind::ClusterConnectionNotFound, "no server of the cluster answers"));
        // Those that are known now may be all that is left of those that were named.
        let known = current.nodes.values().map(|node| node.client.get_connection_info().addr().clone());
        for seed in known.chain(self.options.url.seeds.iter().cloned()) {
            match slots_at(&self.options, &seed).await {
                Ok(ranges) => {
                    let owner = |slot: &u16| ranges.iter().find(|(from, to, _)| (*from..=*to).contains(slot));
                    let owners: Option<Vec<_>> =
                        slots.iter().map(|slot| owner(slot).map(|(_, _, address)| address.clone())).collect();
                    match owners {
                        Some(owners) => return Ok(owners),
                        None => last = redis::make_extension_error("CLUSTERDOWN".into(), None),
                    }
                }
                Err(error) => last = error,
            }
        }
        Err(last)
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

/// Asks at `address` which server has which slots.
async fn slots_at(
    options: &RedisOptions,
    address: &ConnectionAddr,
) -> Result<Vec<(u16, u16, ConnectionAddr)>, RedisError> {
    let mut connection = ask_at(options, &options.client(address)?).await?;
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let value = within(options.connect_timeout, connection.ask(&command)).await;
    let ranges: Vec<(u16, u16, Vec<Value>)> = {
        let rows: Vec<Vec<Value>> = redis::from_redis_value(value.ok_or_else(super::connection::too_slow)??)?;
        let mut ranges = Vec::with_capacity(rows.len());
        for row in rows {
            let mut row = row.into_iter();
            let (Some(from), Some(to), Some(owner)) = (row.next(), row.next(), row.next()) else { continue };
            ranges.push((
                redis::from_redis_value(from)?,
                redis::from_redis_value(to)?,
                redis::from_redis_value(owner)?,
            ));
        }
        ranges
    };
    let mut owners = Vec::with_capacity(ranges.len());
    for (from, to, owner) in ranges {
        let mut owner = owner.into_iter();
        let host: Option<String> = owner.next().map(redis::from_redis_value).transpose()?.flatten();
        let port: u16 = owner.next().map(redis::from_redis_value).transpose()?.unwrap_or_default();
        // A server that does not know its own name is where it was asked.
        let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| match address {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => String::new(),
        });
        owners.push((from, to, options.address(&host, port)));
    }
    Ok(owners)
}

/// Asks the sentinels which server is the primary called `name`.
pub(super) async fn primary_of(options: &RedisOptions, name: &str) -> Result<ConnectionAddr, RedisError> {
    let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel answers"));
    for sentinel in &options.url.seeds {
        for authenticated in [true, false] {
            match primary_at(options, sentinel, authenticated, name).await {
                Ok(Some(address)) => return Ok(address),
                Ok(None) => {
                    last =
                        (ErrorKind::MasterNameNotFoundBySentinel, "the sentinels know no primary of that name").into();
                    break;
                }
                Err(error) => {
                    let unwelcome = error.kind() == ErrorKind::AuthenticationFailed || code(&error).is_some();
                    last = error;
                    if !unwelcome {
                        break;
                    }
                }
            }
        }
    }
    Err(last)
}

async fn primary_at(
    options: &RedisOptions,
    sentinel: &ConnectionAddr,
    authenticated: bool,
    name: &str,
) -> Result<Option<ConnectionAddr>, RedisError> {
    let mut connection = ask_at(options, &options.sentinel_client(sentinel, authenticated)?).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(name);
    let value = within(options.connect_timeout, connection.ask(&command)).await;
    let told: Option<(String, u16)> = redis::from_redis_value(value.ok_or_else(super::connection::too_slow)??)?;
    Ok(told.map(|(host, port)| options.address(&host, port)))
}

async fn ask_at(options: &RedisOptions, client: &redis::Client) -> Result<Connection, RedisError> {
    let opening = Connection::open(client, options.connect_timeout, |_| {});
    within(options.connect_timeout, opening).await.unwrap_or_else(|| Err(super::connection::too_slow()))
}

/// Connects to the first of the servers that were named, or to the primary that the sentinels tell.
pub(super) async fn first_contact(options: &RedisOptions) -> Result<Connection, OpenError> {
    let fail = |error: RedisError| OpenError::of(options, &error);
    if let Some(name) = &options.url.sentinel {
        let address = primary_of(options, name).await.map_err(fail)?;
        return ask_at(options, &options.client(&address).map_err(fail)?).await.map_err(fail);
    }
    let mut last = OpenError::Url;
    for seed in &options.url.seeds {
        match ask_at(options, &options.client(seed).map_err(fail)?).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = fail(error),
        }
    }
    Err(last)
}
