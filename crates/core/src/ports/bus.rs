use std::fmt;

use super::BoxFuture;

/// Tells every instance what one of them did: at once, at most once, in no promised order.
///
/// A bus carries small sealed messages whose meaning it does not know. Nothing may depend on a message arriving: who
/// listens must notice when it hears nothing any more, and ask the store what it missed. A publisher hears its own
/// messages, too; that is how it knows that it is heard.
pub trait Bus: fmt::Debug + Send + Sync {
    /// What this bus is.
    fn describe(&self) -> BusDescription;

    /// Puts a message of at most [`BusDescription::max_message`] bytes on its way. `Ok` says that the broker took it,
    /// not that anybody heard it.
    fn publish<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), BusError>>;

    /// Begins to listen: what is published once this is answered is heard, for as long as the subscription lasts.
    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Subscription>, BusError>>;
}

/// Listening to a [`Bus`].
pub trait Subscription: fmt::Debug + Send {
    /// The next message, whoever sent it. After an error nothing is heard any more: subscribe again, and reckon with
    /// messages missed. May be dropped while waiting; no message is lost by that.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, BusError>>;
}

/// What a bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusDescription {
    /// `redis`, `postgres`, `memory`.
    pub name: &'static str,
    /// Where it is, for people; without credentials.
    pub location: String,
    /// The longest message it carries, in bytes.
    pub max_message: usize,
}

/// Why nothing was published, or nothing is heard. Try again later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the bus is unavailable: {reason}")]
pub struct BusError {
    /// For the log; never what was to be sent.
    pub reason: String,
}
