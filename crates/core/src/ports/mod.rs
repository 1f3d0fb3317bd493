//! What the domain needs of the world. Each port has one small trait; whoever implements it knows nothing of tokens.

mod bus;
mod clock;
mod counter;
mod shared_cache;
mod store;
mod transport;

use std::{future::Future, pin::Pin};

pub use bus::{Bus, BusDescription, BusError, Subscription};
pub use clock::{Clock, Entropy};
pub use counter::{Counter, CounterError, Limit, Taken};
pub use shared_cache::{SharedCache, SharedCacheDescription, SharedCacheError};
pub use store::{
    Count, Cursor, Expect, Filter, Kind, LabelName, Page, Put, Query, Reach, Record, RecordKey, Scope, SealingKeyId,
    Store, StoreDescription, StoreError, Version,
};
pub use transport::{Connected, Endpoint, MAX_REPLY, Peers, Reply, Request, SendError, Transport, TransportError};

/// A boxed future, so that ports can stand behind `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
