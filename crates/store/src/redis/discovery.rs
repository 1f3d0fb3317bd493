//! Who has what at the moment: as the servers of a cluster say, or the sentinels.

use std::collections::BTreeMap;

use redis::{ConnectionAddr, ErrorKind, RedisError, Value};
use tokio::task::JoinSet;

use super::{
    connection::{Connection, too_slow, within},
    error::code,
    link::Map,
    open::OpenError,
    options::RedisOptions,
};

/// Asks all at once, and takes the first answer: some may hang.
async fn first_of<T: Send + 'static, F: Future<Output = Result<T, RedisError>> + Send + 'static>(
    nobody: RedisError,
    questions: impl Iterator<Item = F>,
) -> Result<T, RedisError> {
    let mut asked: JoinSet<_> = questions.collect();
    let mut last = nobody;
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            // It panicked; the others may still answer.
            Err(_) => {}
        }
    }
    Err(last)
}

/// Which server of the cluster has each of the slots.
pub(super) async fn owners_of(
    options: &RedisOptions,
    slots: &[u16],
    current: &Map,
) -> Result<Vec<ConnectionAddr>, RedisError> {
    // Those that are known now may be all that is left of those that were named.
    let known = current.nodes.values().map(|node| node.client.get_connection_info().addr().clone());
    let all: BTreeMap<_, _> =
        known.chain(options.url.seeds.iter().cloned()).map(|address| (address.to_string(), address)).collect();
    let nobody = (ErrorKind::ClusterConnectionNotFound, "no server of the cluster answers").into();
    let questions = all.into_values().map(|address| {
        let (options, slots) = (options.clone(), slots.to_vec());
        async move {
            let ranges = slots_at(&options, &address).await?;
            let owner = |slot: &u16| {
                let range = ranges.iter().find(|(from, to, _)| (*from..=*to).contains(slot));
                range.map(|(_, _, address)| address.clone())
            };
            let owners: Option<Vec<_>> = slots.iter().map(owner).collect();
            owners.ok_or_else(|| redis::make_extension_error("CLUSTERDOWN".into(), None))
        }
    });
    first_of(nobody, questions).await
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
        let rows: Vec<Vec<Value>> = redis::from_redis_value(value.ok_or_else(too_slow)??)?;
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
    let nobody = (ErrorKind::EmptySentinelList, "no sentinel answers").into();
    let questions = options.url.seeds.iter().map(|sentinel| {
        let (options, sentinel, name) = (options.clone(), sentinel.clone(), name.to_owned());
        async move {
            let told = match primary_at(&options, &sentinel, true, &name).await {
                // Many sentinels have neither users nor a password.
                Err(error) if error.kind() == ErrorKind::AuthenticationFailed || code(&error).is_some() => {
                    primary_at(&options, &sentinel, false, &name).await?
                }
                told => told?,
            };
            let unknown = (ErrorKind::MasterNameNotFoundBySentinel, "the sentinels know no primary of that name");
            told.ok_or_else(|| unknown.into())
        }
    });
    first_of(nobody, questions).await
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
    let told: Option<(String, u16)> = redis::from_redis_value(value.ok_or_else(too_slow)??)?;
    Ok(told.map(|(host, port)| options.address(&host, port)))
}

async fn ask_at(options: &RedisOptions, client: &redis::Client) -> Result<Connection, RedisError> {
    let opening = Connection::open(client, options.connect_timeout, |_| {});
    within(options.connect_timeout, opening).await.unwrap_or_else(|| Err(too_slow()))
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
