//! What the domain needs of the world. Each port has one small trait; whoever implements it knows nothing of tokens.

mod clock;
mod store;
mod transport;

use std::{future::Future, pin::Pin};

pub use clock::{Clock, Entropy};
pub use store::{
    Count, Cursor, Expect, Filter, Kind, LabelName, Page, Put, Query, Record, RecordKey, Scope, SealingKeyId, Store,
    StoreDescription, StoreError, Version,
};
pub use transport::{Connected, Endpoint, Reply, Request, SendError, Transport, TransportError};

/// A boxed future, so that ports can stand behind `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
