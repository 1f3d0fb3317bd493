//! One server: the connections that reads share, and those that a write has to itself.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Cmd, ErrorKind, PushInfo, PushKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit},
    time::Instant,
};

/// Waits for `future` no longer than `limit`.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

/// A connection that knows when it has ended.
#[derive(Clone)]
pub(super) struct Connection {
    inner: MultiplexedConnection,
    ended: Arc<AtomicBool>,
}

/// What a server says of itself when it is greeted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) version: String,
    pub(super) cluster: bool,
    pub(super) primary: bool,
}

impl Connection {
    /// Connects. `on_push` is told what the server sends unasked.
    pub(super) async fn open(
        client: &redis::Client,
        timeout: Duration,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            // Whoever asks waits as long as it likes.
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    flag.store(true, Ordering::Release);
                }
                on_push(push);
                Ok::<(), std::convert::Infallible>(())
            });
        let inner = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { inner, ended })
    }

    /// Whether it is known to have ended. What is asked of it then was never sent.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.inner).await
    }

    /// Asks several things in one go; each is answered for itself.
    pub(super) async fn ask_all(&mut self, commands: Vec<Cmd>) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let mut pipeline = redis::Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.ignore_errors().query_async(&mut self.inner).await
    }

    pub(super) async fn subscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        self.inner.subscribe(channel).await
    }

    pub(super) async fn greet(&mut self) -> Result<Greeting, RedisError> {
        let told: Vec<(String, Value)> = redis::cmd("HELLO").query_async(&mut self.inner).await?;
        let text = |name: &str| {
            let value = told.iter().find(|(field, _)| field == name).map(|(_, value)| value);
            value.and_then(|value| redis::from_redis_value_ref::<String>(value).ok()).unwrap_or_default()
        };
        Ok(Greeting { version: text("version"), cluster: text("mode") == "cluster", primary: text("role") == "master" })
    }
}

/// One server.
pub(super) struct Node {
    pub(super) client: redis::Client,
    connect_timeout: Duration,
    /// One, so that reads travel together; it carries more than a core can ask.
    shared: Shared,
    idle: Mutex<Vec<Connection>>,
    own: Semaphore,
    pub(super) replicas: Replicas,
}

/// One connection for many, made when it is needed.
#[derive(Default)]
struct Shared {
    current: Mutex<Option<Connection>>,
    /// How many attempts to connect have ended.
    attempts: AtomicUsize,
    /// Held by who connects; how the last attempt failed.
    failed: AsyncMutex<Option<RedisError>>,
}

impl Node {
    pub(super) fn new(client: redis::Client, connect_timeout: Duration, connections: usize) -> Self {
        Self {
            client,
            connect_timeout,
            shared: Shared::default(),
            idle: Mutex::default(),
            own: Semaphore::new(connections.saturating_sub(1).max(1)),
            replicas: Replicas::default(),
        }
    }

    /// A connection that others use, too.
    pub(super) async fn shared(&self) -> Result<Connection, RedisError> {
        self.shared.connection(async || self.connect().await).await
    }

    /// Lets nobody else have a connection that did not answer in time: it may be cut without anybody having noticed.
    pub(super) fn distrust(&self, connection: &Connection) {
        self.shared.current().take_if(|current| Arc::ptr_eq(&current.ended, &connection.ended));
    }

    /// Has whoever asks next connect anew.
    pub(super) fn close_all(&self) {
        self.shared.current().take();
        self.idle().clear();
    }

    /// A connection of one's own.
    pub(super) async fn own(&self) -> Result<Own<'_>, RedisError> {
        let permit = within(self.connect_timeout, self.own.acquire())
            .await
            .and_then(Result::ok)
            .ok_or_else(|| RedisError::from((ErrorKind::Client, "all connections are in use")))?;
        loop {
            let idle = self.idle().pop();
            match idle {
                Some(connection) if connection.has_ended() => {}
                Some(connection) => return Ok(Own { connection, node: self, _permit: permit }),
                None => return Ok(Own { connection: self.connect().await?, node: self, _permit: permit }),
            }
        }
    }

    /// Only a primary is taken: a replica's answers may be old.
    async fn connect(&self) -> Result<Connection, RedisError> {
        let connecting = async {
            let mut connection = Connection::open(&self.client, self.connect_timeout, |_| {}).await?;
            let greeting = connection.greet().await?;
            // A node of a cluster says where its keys are.
            if greeting.primary || greeting.cluster { Ok(connection) } else { Err(read_only()) }
        };
        within(self.connect_timeout, connecting).await.unwrap_or_else(|| Err(too_slow()))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    async fn connection(
        &self,
        connect: impl AsyncFnOnce() -> Result<Connection, RedisError>,
    ) -> Result<Connection, RedisError> {
        if let Some(connection) = self.usable() {
            return Ok(connection);
        }
        let before = self.attempts.load(Ordering::Acquire);
        let mut failed = self.failed.lock().await;
        if let Some(connection) = self.usable() {
            return Ok(connection);
        }
        // Who waited while another tried in vain does not try again: else all would, one after the other.
        if let Some(error) = failed.as_ref().filter(|_| self.attempts.load(Ordering::Acquire) != before) {
            return Err(error.clone());
        }
        let connected = connect().await;
        *failed = connected.as_ref().err().cloned();
        *self.current() = connected.as_ref().ok().cloned();
        self.attempts.fetch_add(1, Ordering::AcqRel);
        connected
    }

    fn usable(&self) -> Option<Connection> {
        self.current().as_ref().filter(|connection| !connection.has_ended()).cloned()
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

/// What is known of a server's replicas.
#[derive(Default)]
pub(super) struct Replicas {
    known: Mutex<Option<(Instant, u32)>>,
}

/// How long that is believed.
const REPLICAS_FOR: Duration = Duration::from_secs(5);

impl Replicas {
    /// How many there were when it was last told, and whether to ask again.
    pub(super) fn known(&self) -> (Option<u32>, bool) {
        match *self.known.lock().unwrap_or_else(PoisonError::into_inner) {
            None => (None, true),
            Some((at, count)) => (Some(count), at.elapsed() > REPLICAS_FOR),
        }
    }

    /// Takes what `INFO replication` said. Who may not ask counts none.
    pub(super) fn told(&self, info: &Result<Value, RedisError>) -> u32 {
        let text = info.as_ref().ok().and_then(|value| redis::from_redis_value_ref::<String>(value).ok());
        let count = text.and_then(|text| info_field(&text, "connected_slaves")?.parse().ok()).unwrap_or(0);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), count));
        count
    }
}

/// A field of what `INFO` says.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

/// A connection of one's own. If it is not [given back](Own::give_back) it is closed.
pub(super) struct Own<'a> {
    pub(super) connection: Connection,
    node: &'a Node,
    _permit: SemaphorePermit<'a>,
}

impl Own<'_> {
    /// For the next one; only when all that was asked has been answered.
    pub(super) fn give_back(self) {
        self.node.idle().push(self.connection);
    }
}

pub(super) fn read_only() -> RedisError {
    redis::make_extension_error("READONLY".into(), None)
}

pub(super) fn too_slow() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
