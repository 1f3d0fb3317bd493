//! Opening, and refusing to.

use redis::{Cmd, ErrorKind, RedisError, Value};

use super::{
    connection::{Connection, Greeting, Node, info_field, read_only, too_slow, within},
    discovery::first_contact,
    error::{code, is_forbidden, reason},
    link::{Call, Kind, Link},
    options::RedisOptions,
    scripts::PROBE,
};

/// The oldest server whose scripts, users and protocol are what this needs.
const OLDEST: (u32, u32) = (6, 2);

/// The first that has `WAITAOF`.
const WITH_WAITAOF: (u32, u32) = (7, 2);

/// The form of keys and values that this version writes.
const LAYOUT: &str = "1";

/// Why a Redis was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL cannot be understood. It is not repeated: it may hold a password.
    #[error(
        "this is no Redis URL. It reads redis://[user:password@]host[:port][/database], with several hosts for a \
         cluster, or redis+sentinel://[user:password@]host:port,host:port/primary, and rediss:// for TLS"
    )]
    Url,
    /// Nobody answers, or not in this way.
    #[error(
        "Redis at {location} cannot be reached: {reason}. See that it runs, that host and port are right, and that \
         the URL begins with rediss:// if, and only if, the server speaks TLS"
    )]
    Unreachable {
        /// Which.
        location: String,
        /// What stands in the way.
        reason: String,
    },
    /// The wrong user or password.
    #[error("Redis at {location} does not accept the user and password. Put those that it knows into the URL")]
    Credentials {
        /// Which.
        location: String,
    },
    /// The user may not do what is needed.
    #[error(
        "Redis at {location} does not let this user do what the store does. Give it all keys and channels that begin \
         with {prefix:?}, and the commands +@read +@write +@scripting +@transaction +@pubsub +@connection +time; \
         in a cluster +cluster|slots and +cluster|keyslot, too"
    )]
    Forbidden {
        /// Which.
        location: String,
        /// What keys begin with.
        prefix: String,
    },
    /// It takes no writes.
    #[error("Redis at {location} is a read-only replica. Name its primary, or the sentinels that know it")]
    ReadOnly {
        /// Which.
        location: String,
    },
    /// It throws keys away.
    #[error(
        "Redis at {location} throws keys away when it is full (maxmemory-policy {policy}), and tokens with them. Set \
         maxmemory-policy noeviction, or allow it if losing them does not matter"
    )]
    Evicts {
        /// Which.
        location: String,
        /// How.
        policy: String,
    },
    /// It keeps nothing on disk.
    #[error(
        "Redis at {location} keeps no append-only file: when it ends, every token is lost. Set appendonly yes, or \
         allow it if that does not matter"
    )]
    WithoutAof {
        /// Which.
        location: String,
    },
    /// It lacks what is used.
    #[error("Redis at {location} has version {found}, and at least {}.{} is needed", OLDEST.0, OLDEST.1)]
    TooOld {
        /// Which.
        location: String,
        /// What it says.
        found: String,
    },
    /// Several servers that have nothing to do with each other.
    #[error("Redis at {location} is no cluster, but several servers are named. Name one, or the sentinels")]
    NoCluster {
        /// Which.
        location: String,
    },
    /// Its keys are laid out in another way.
    #[error(
        "the keys with the prefix {prefix:?} in Redis at {location} are laid out as {found:?}, and here as {expected:?}. \
         Open them as what they were written as, or take another prefix"
    )]
    Layout {
        /// Which.
        location: String,
        /// What keys begin with.
        prefix: String,
        /// How they are.
        found: String,
        /// How they would be.
        expected: String,
    },
    /// It does not do what it should.
    #[error("Redis at {location} cannot be used: {reason}")]
    Unusable {
        /// Which.
        location: String,
        /// What stands in the way.
        reason: String,
    },
}

impl OpenError {
    /// What an error says of the server that was to be opened.
    pub(super) fn of(options: &RedisOptions, error: &RedisError) -> Self {
        let location = options.location();
        match code(error) {
            Some("NOAUTH" | "WRONGPASS") => Self::Credentials { location },
            _ if is_forbidden(error) => Self::Forbidden { location, prefix: options.prefix.clone() },
            Some("READONLY") => Self::ReadOnly { location },
            Some(_) => Self::Unusable { location, reason: reason(error) },
            None if error.kind() == ErrorKind::AuthenticationFailed => Self::Credentials { location },
            None if error.kind() == ErrorKind::RESP3NotSupported => {
                Self::TooOld { location, found: "5 or older".into() }
            }
            None => Self::Unreachable { location, reason: reason(error) },
        }
    }
}

/// What a server does with what it is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Keeping {
    /// Whether a write is on disk when it is answered.
    pub(super) durable: bool,
    /// What could not be found out.
    pub(super) unknown: bool,
}

/// Connects, and finds all servers. Demands nothing of them but that they can be used.
pub(super) async fn connect(options: RedisOptions) -> Result<Link, OpenError> {
    connect_and(options, Layout::Agree).await
}

/// The same, and nothing is noted there.
pub(super) async fn connect_to_look(options: RedisOptions) -> Result<Link, OpenError> {
    connect_and(options, Layout::Read).await
}

/// What is done about how a cluster's keys are laid out.
#[derive(Clone, Copy)]
enum Layout {
    /// It is noted, unless it was.
    Agree,
    /// Only what was noted counts.
    Read,
}

async fn connect_and(options: RedisOptions, layout: Layout) -> Result<Link, OpenError> {
    let mut connection = first_contact(&options).await?;
    let greeting = ask(&options, connection.greet()).await?;
    if version(&greeting).is_some_and(|version| version < OLDEST) {
        return Err(OpenError::TooOld { location: options.location(), found: greeting.version });
    }
    let kind = if let Some(name) = &options.url.sentinel {
        Kind::Sentinel(name.clone())
    } else if greeting.cluster {
        let shards = shards(&options, &mut connection, layout).await?;
        Kind::Cluster(slots(&options, &mut connection, shards).await?)
    } else if options.url.seeds.len() > 1 {
        return Err(OpenError::NoCluster { location: options.location() });
    } else {
        Kind::Single
    };
    if !greeting.cluster && !greeting.primary {
        return Err(OpenError::of(&options, &read_only()));
    }
    let disk_wait = options.disk_wait && version(&greeting).is_some_and(|version| version >= WITH_WAITAOF);
    let link = Link::new(options, kind, disk_wait);
    link.find().await.map_err(|error| OpenError::of(&link.options, &error))?;
    Ok(link)
}

/// Refuses servers that would lose what a store is given, and users that may not do what it does.
pub(super) async fn check(link: &Link) -> Result<Keeping, OpenError> {
    let mut keeping = Keeping { durable: true, unknown: false };
    for node in link.map().nodes.values() {
        let one = check_node(&link.options, node).await?;
        keeping.durable &= one.durable;
        keeping.unknown |= one.unknown;
    }
    for shard in 0..link.shards() {
        let probe = Call::default().key(format!("{}probe", link.prefix(shard)));
        let error = match probe_at(link, shard, &probe).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        return Err(OpenError::of(&link.options, &error));
    }
    Ok(Keeping { durable: keeping.durable || link.disk_wait, ..keeping })
}

async fn probe_at(link: &Link, shard: usize, probe: &Call) -> Result<(), RedisError> {
    let map = link.map();
    let mut own = map.owner(shard)?.own().await?;
    let answer = within(link.options.write_timeout, own.connection.ask(&PROBE.command(probe, false))).await;
    answer.ok_or_else(too_slow)??;
    own.give_back();
    Ok(())
}

async fn check_node(options: &RedisOptions, node: &Node) -> Result<Keeping, OpenError> {
    let location = || options.location();
    let mut connection = node.shared().await.map_err(|error| OpenError::of(options, &error))?;
    let policy = setting(options, &mut connection, "maxmemory-policy", ("memory", "maxmemory_policy")).await?;
    let aof = setting(options, &mut connection, "appendonly", ("persistence", "aof_enabled")).await?;
    let fsync = setting(options, &mut connection, "appendfsync", ("persistence", "-")).await?;
    if let Some(policy) = policy.as_ref().filter(|policy| *policy != "noeviction" && !options.allow_eviction) {
        return Err(OpenError::Evicts { location: location(), policy: policy.clone() });
    }
    let kept = aof.as_deref().map(|aof| matches!(aof, "yes" | "1"));
    if kept == Some(false) && !options.allow_without_aof {
        return Err(OpenError::WithoutAof { location: location() });
    }
    Ok(Keeping {
        durable: kept == Some(true) && fsync.as_deref() == Some("always"),
        unknown: policy.is_none() || kept.is_none(),
    })
}

/// How the server is set: as `CONFIG` says, or as `INFO` does where that is forbidden, or nobody knows.
async fn setting(
    options: &RedisOptions,
    connection: &mut Connection,
    name: &str,
    (section, field): (&str, &str),
) -> Result<Option<String>, OpenError> {
    let mut config = redis::cmd("CONFIG");
    config.arg("GET").arg(name);
    match within(options.read_timeout, connection.ask(&config)).await {
        Some(Ok(value)) => {
            let told: Vec<(String, String)> = redis::from_redis_value(value).unwrap_or_default();
            if let Some((_, value)) = told.into_iter().next() {
                return Ok(Some(value));
            }
        }
        // Those who run a Redis for others forbid or rename the command.
        Some(Err(error)) if code(&error).is_some() => {}
        Some(Err(error)) => return Err(OpenError::of(options, &error)),
        None => return Err(OpenError::of(options, &too_slow())),
    }
    let mut info = redis::cmd("INFO");
    info.arg(section);
    let told = within(options.read_timeout, connection.ask(&info)).await.and_then(Result::ok);
    let told = told.and_then(|value| redis::from_redis_value::<String>(value).ok());
    Ok(told.and_then(|text| Some(info_field(&text, field)?.to_owned())))
}

/// Notes how keys are laid out, and refuses another layout.
pub(super) async fn agree_on_layout(link: &Link) -> Result<(), OpenError> {
    // In a cluster it was read, and if need be written, before the shards were.
    if matches!(link.kind, Kind::Cluster(_)) {
        return Ok(());
    }
    let map = link.map();
    let node = map.owner(0).map_err(|error| OpenError::of(&link.options, &error))?;
    let mut connection = node.shared().await.map_err(|error| OpenError::of(&link.options, &error))?;
    let expected = format!("{LAYOUT} whole");
    let found = layout(&link.options, &mut connection, &expected).await?;
    if found == expected { Ok(()) } else { Err(other_layout(&link.options, found, expected)) }
}

fn other_layout(options: &RedisOptions, found: String, expected: String) -> OpenError {
    OpenError::Layout { location: options.location(), prefix: options.prefix.clone(), found, expected }
}

/// How keys are laid out: as it is noted, or as is noted now.
async fn layout(options: &RedisOptions, connection: &mut Connection, wanted: &str) -> Result<String, OpenError> {
    let mut set = redis::cmd("SET");
    set.arg(format!("{}layout", options.prefix)).arg(wanted).arg("NX");
    ask(options, connection.ask(&set)).await?;
    Ok(noted_layout(options, connection).await?.unwrap_or_default())
}

async fn noted_layout(options: &RedisOptions, connection: &mut Connection) -> Result<Option<String>, OpenError> {
    let mut get = redis::cmd("GET");
    get.arg(format!("{}layout", options.prefix));
    parse(options, ask(options, connection.ask(&get)).await?)
}

/// How many shards the cluster is divided into.
async fn shards(options: &RedisOptions, connection: &mut Connection, how: Layout) -> Result<usize, OpenError> {
    let wanted = format!("{LAYOUT} shards {}", options.shards.max(1));
    let found = {
        // The note is in whichever slot its name has.
        let key = format!("{}layout", options.prefix);
        let mut keyslot = redis::cmd("CLUSTER");
        keyslot.arg("KEYSLOT").arg(&key);
        let slot: u16 = parse(options, ask(options, connection.ask(&keyslot)).await?)?;
        let link = Link::new(options.clone(), Kind::Cluster(vec![slot]), false);
        link.find().await.map_err(|error| OpenError::of(options, &error))?;
        let map = link.map();
        let node = map.owner(0).map_err(|error| OpenError::of(options, &error))?;
        let mut connection = node.shared().await.map_err(|error| OpenError::of(options, &error))?;
        match how {
            Layout::Agree => layout(options, &mut connection, &wanted).await?,
            Layout::Read => noted_layout(options, &mut connection).await?.unwrap_or_else(|| wanted.clone()),
        }
    };
    let count = found.strip_prefix(LAYOUT).and_then(|rest| rest.strip_prefix(" shards ")?.parse::<usize>().ok());
    count.filter(|count| (1..=1000).contains(count)).ok_or_else(|| other_layout(options, found, wanted))
}

/// The slot of each shard.
async fn slots(options: &RedisOptions, connection: &mut Connection, shards: usize) -> Result<Vec<u16>, OpenError> {
    let commands = (0..shards).map(|shard| {
        let mut keyslot = redis::cmd("CLUSTER");
        keyslot.arg("KEYSLOT").arg(super::keys::shard_prefix(&options.prefix, shard, true));
        keyslot
    });
    let commands: Vec<Cmd> = commands.collect();
    let answers = ask(options, connection.ask_all(commands)).await?;
    let slot = |answer: Result<Value, RedisError>| parse(options, answer.map_err(|e| OpenError::of(options, &e))?);
    answers.into_iter().map(slot).collect()
}

fn parse<T: redis::FromRedisValue>(options: &RedisOptions, value: Value) -> Result<T, OpenError> {
    redis::from_redis_value(value).map_err(|error| OpenError::of(options, &error.into()))
}

async fn ask<T>(options: &RedisOptions, answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, OpenError> {
    let answer = within(options.connect_timeout, answer).await.unwrap_or_else(|| Err(too_slow()));
    answer.map_err(|error| OpenError::of(options, &error))
}

/// The first two numbers of a server's version; servers that have another numbering are taken at their word.
fn version(greeting: &Greeting) -> Option<(u32, u32)> {
    let mut numbers = greeting.version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let of = |text: &str| version(&Greeting { version: text.into(), ..Greeting::default() });
        assert!(of("6.0.16").unwrap() < OLDEST && of("6.2.0").unwrap() >= OLDEST && of("10.0.1").unwrap() >= OLDEST);
        assert!(of("7.0.15").unwrap() < WITH_WAITAOF && of("7.2.4").unwrap() >= WITH_WAITAOF);
        assert_eq!(of("unstable"), None);
    }
}
