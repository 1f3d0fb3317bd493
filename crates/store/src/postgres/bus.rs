//! Telling all instances through the database.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sqlx::{
    Acquire as _, PgPool, Row as _,
    postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions},
};
use tokenkeep_core::ports::{BoxFuture, Bus, BusDescription, BusError, StoreError, Subscription};
use tokio::time::timeout;

use super::{
    error::reason,
    open,
    session::{Access, Session},
    statement::{Statement, Value},
};

/// The channel. Channels belong to a database, like the schema of the same name.
const CHANNEL: &str = "tokenkeep";

/// PostgreSQL carries up to 7,999 bytes of text: our mark, and the message in base64.
const MAX_MESSAGE: usize = (7_999 - 1) / 4 * 3;

/// What a payload begins with: a message, or the question whether anybody hears.
const MESSAGE: char = 'm';
const PROBE: char = 'p';

/// A bus over `NOTIFY` and `LISTEN` of the database of a [`Postgres`](super::Postgres) store.
///
/// To publish is one statement of its own, by any connection: it is on its way when the statement is answered, and no
/// record waits for it. To listen takes a connection for itself, which must lead to the server directly: a pooler in
/// transaction mode would bring what it hears to anybody, in the midst of other answers. So [`Bus::subscribe`] refuses
/// to listen through one (see [`listen_url`](super::PostgresOptions::listen_url)), and sends itself something first, to
/// know that it hears what is published.
#[derive(Clone, Debug)]
pub struct PostgresBus {
    session: Arc<Session>,
    listen: Option<PgConnectOptions>,
    place: String,
    patience: Duration,
}

impl PostgresBus {
    /// `listen`: how to connect to the server itself, if that is known. `patience`: how long to wait for a connection,
    /// and for one's own voice.
    pub(super) fn new(
        session: Arc<Session>,
        listen: Option<PgConnectOptions>,
        place: String,
        patience: Duration,
    ) -> Self {
        Self { session, listen, place, patience }
    }

    async fn notify(&self, payload: &str) -> Result<(), BusError> {
        let notify = Statement::new("SELECT 1 FROM pg_notify('tokenkeep', $1)", vec![Value::Text(payload)]);
        match self.session.run(&notify, Access::Write).await.map_err(StoreError::from) {
            Ok(_) => Ok(()),
            Err(StoreError::Unavailable { reason, .. } | StoreError::Corrupt { reason }) => Err(BusError { reason }),
        }
    }

    async fn listen(&self) -> Result<Listening, BusError> {
        let pooler = |place: &str| BusError {
            reason: format!(
                "a pooler in transaction mode at {place} lets nobody listen. Give the server's own address as listen_url"
            ),
        };
        let listen = self.listen.clone().ok_or_else(|| pooler(&self.place))?;
        let heard_at = open::place(&listen);
        // A pool, since that is what a listener is made from; of the one connection that it needs.
        let pool: PgPool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.patience)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(open::with_settings(&listen, self.patience));
        let mut listener = match PgListener::connect_with(&pool).await {
            Err(error) if open::refuses_settings(&error) => return Err(pooler(&heard_at)),
            connected => connected.map_err(|e| failed(&e))?,
        };
        // What is missed meanwhile would be missed in silence.
        listener.eager_reconnect(false);
        let connection = listener.acquire().await.map_err(|e| failed(&e))?;
        if !open::keeps_settings(connection, self.patience).await.map_err(|e| failed(&e))? {
            return Err(pooler(&heard_at));
        }
        listener.listen(CHANNEL).await.map_err(|e| failed(&e))?;
        let drawn = sqlx::query("SELECT gen_random_uuid()::text").persistent(false).fetch_one(&mut listener).await;
        let probe: String = drawn.and_then(|row| row.try_get(0)).map_err(|e| failed(&e))?;
        let mut listening = Listening { listener, lost: false };
        let probe = format!("{PROBE}{probe}");
        self.notify(&probe).await?;
        match timeout(self.patience, listening.until(&probe)).await {
            Ok(heard) => heard.map(|()| listening),
            Err(_) => Err(BusError {
                reason: format!("what is sent to {} is not heard at {heard_at}. Is it the same database?", self.place),
            }),
        }
    }
}

impl Bus for PostgresBus {
    fn describe(&self) -> BusDescription {
        BusDescription { name: "postgres", location: self.place.clone(), max_message: MAX_MESSAGE }
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            if message.len() > MAX_MESSAGE {
                return Err(BusError { reason: format!("a message of {} bytes is too long", message.len()) });
            }
            let mut payload = String::from(MESSAGE);
            BASE64_STANDARD.encode_string(message, &mut payload);
            self.notify(&payload).await
        })
    }

    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Subscription>, BusError>> {
        Box::pin(async move { Ok(Box::new(self.listen().await?) as Box<dyn Subscription>) })
    }
}

struct Listening {
    listener: PgListener,
    lost: bool,
}

impl Listening {
    async fn payload(&mut self) -> Result<PgNotification, BusError> {
        let gone = || BusError { reason: "the connection that listened is gone".into() };
        if self.lost {
            return Err(gone());
        }
        // Safe to drop: a message is taken off the stream whole, without waiting in between.
        let heard = self.listener.try_recv().await;
        self.lost = !matches!(heard, Ok(Some(_)));
        heard.map_err(|e| failed(&e))?.ok_or_else(gone)
    }

    async fn until(&mut self, probe: &str) -> Result<(), BusError> {
        while self.payload().await?.payload() != probe {}
        Ok(())
    }

    async fn message(&mut self) -> Result<Vec<u8>, BusError> {
        loop {
            let heard = self.payload().await?;
            // Others' probes, and whatever else somebody says on this channel, are no messages.
            let message = heard.payload().strip_prefix(MESSAGE).map(|text| BASE64_STANDARD.decode(text));
            if let Some(Ok(message)) = message {
                return Ok(message);
            }
        }
    }
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Subscription for Listening {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, BusError>> {
        Box::pin(self.message())
    }
}

fn failed(error: &sqlx::Error) -> BusError {
    BusError { reason: reason(error) }
}
