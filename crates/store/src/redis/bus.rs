//! Publish and subscribe.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use redis::{ErrorKind, PushInfo, PushKind, RedisError, Value};
use tokenkeep_core::ports::{BoxFuture, Bus, BusDescription, BusError, Subscription};
use tokio::sync::mpsc;

use super::{
    connection::{Connection, too_slow, within},
    error::reason,
    link::Link,
    open::{self, OpenError},
    options::RedisOptions,
};

/// A [`Bus`] on a channel of Redis; each subscription has a connection of its own.
#[derive(Clone, Debug)]
pub struct RedisBus {
    link: Arc<Link>,
}

/// How many messages wait for a listener. One that is further behind is better off asking the store.
const QUEUE: usize = 4096;

/// Redis itself takes half a gigabyte; whoever says that much has not understood what a bus is for.
const MAX_MESSAGE: usize = 64 * 1024;

impl RedisBus {
    /// Connects. What a [`Redis`](super::Redis) demands of a server to keep records is not demanded here.
    pub async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        Ok(Self { link: Arc::new(open::connect(options).await?) })
    }

    fn channel(&self) -> String {
        format!("{}bus", self.link.options.prefix)
    }

    /// Subscribes at the first server; a cluster passes messages on to all of its own.
    async fn listen(&self) -> Result<Listener, RedisError> {
        let map = self.link.map();
        let node = map.owner(0)?;
        let (sender, messages) = mpsc::channel(QUEUE);
        let sender = Mutex::new(Some(sender));
        let on_push = move |push: PushInfo| {
            let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            let heard = match (push.kind, push.data.into_iter().nth(1)) {
                (PushKind::Message, Some(Value::BulkString(message))) => {
                    sender.as_ref().is_some_and(|sender| sender.try_send(message).is_ok())
                }
                (PushKind::Disconnection, _) => false,
                _ => true,
            };
            if !heard {
                *sender = None;
            }
        };
        let mut connection = Connection::open(&node.client, self.link.options.connect_timeout, on_push).await?;
        let greeting = connection.greet().await?;
        if !greeting.primary && !greeting.cluster {
            return Err(super::connection::read_only());
        }
        connection.subscribe(&self.channel()).await?;
        Ok(Listener { messages, _connection: connection })
    }
}

impl Bus for RedisBus {
    fn describe(&self) -> BusDescription {
        BusDescription {
            name: "redis",
            location: format!("{} ({})", self.link.options.location(), self.channel()),
            max_message: MAX_MESSAGE,
        }
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            if message.len() > MAX_MESSAGE {
                return Err(BusError { reason: "the message is too long".into() });
            }
            let mut command = redis::cmd("PUBLISH");
            command.arg(self.channel()).arg(message);
            // Heard twice is no harm: it may be tried again like a read.
            let published = self.link.read(0, &command).await;
            published.map(drop).map_err(|failure| BusError { reason: failure.reason() })
        })
    }

    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Subscription>, BusError>> {
        Box::pin(async move {
            let mut tries = 0;
            loop {
                let map = self.link.map();
                let listening = within(self.link.options.connect_timeout * 2, self.listen()).await;
                match listening.unwrap_or_else(|| Err(too_slow())) {
                    Ok(listener) => return Ok(Box::new(listener) as Box<dyn Subscription>),
                    Err(error) => {
                        tries += 1;
                        // Another server may have become the primary meanwhile.
                        if tries > 1
                            || error.kind() == ErrorKind::AuthenticationFailed
                            || !self.link.find_again(&map).await
                        {
                            return Err(BusError { reason: reason(&error) });
                        }
                    }
                }
            }
        })
    }
}

struct Listener {
    messages: mpsc::Receiver<Vec<u8>>,
    _connection: Connection,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Subscription for Listener {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, BusError>> {
        Box::pin(async move {
            let ended = || BusError { reason: "the connection was lost, or the listener fell too far behind".into() };
            self.messages.recv().await.ok_or_else(ended)
        })
    }
}
