use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokenkeep_core::ports::{BoxFuture, Bus, BusDescription, BusError, Subscription};
use tokio::sync::mpsc;

/// A [`Bus`] in memory, and each of its misfortunes at the test's command. Clones are the same bus.
///
/// Several engines share one broker by [`attached`](Self::attached): each has a line of its own that can be cut,
/// lossy or held up, while the others go on.
#[derive(Clone, Debug, Default)]
pub struct MemoryBus {
    broker: Arc<Mutex<Broker>>,
    line: Arc<Mutex<Line>>,
}

/// What all lines share.
#[derive(Debug, Default)]
struct Broker {
    down: bool,
    listeners: Vec<Listener>,
    messages: Vec<Vec<u8>>,
}

/// A subscription, and the line it is on.
type Listener = (Arc<Mutex<Line>>, mpsc::UnboundedSender<Vec<u8>>);

/// What happens between one instance and the broker.
#[derive(Debug, Default)]
struct Line {
    cut: bool,
    /// How many messages on their way to this listener get lost.
    losing: usize,
    /// What waits to be heard, while the line is held.
    held: Option<VecDeque<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(reason: &str) -> BusError {
    BusError { reason: reason.to_owned() }
}

impl MemoryBus {
    /// The longest message, in bytes; small, so that splitting is tested.
    pub const MAX_MESSAGE: usize = 4096;

    /// The same broker over another line: what one more instance holds.
    #[must_use]
    pub fn attached(&self) -> Self {
        Self { broker: self.broker.clone(), line: Arc::default() }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        lock(&self.broker).listeners.len()
    }

    /// Ends the broker: whoever listens is told, nothing is taken.
    pub fn go_down(&self) {
        let mut broker = lock(&self.broker);
        broker.down = true;
        broker.listeners.clear();
    }

    /// Brings the broker back. It remembers nothing.
    pub fn come_up(&self) {
        lock(&self.broker).down = false;
    }

    /// Cuts this line: its listeners are told, nothing is taken over it.
    pub fn cut(&self) {
        lock(&self.line).cut = true;
        lock(&self.broker).listeners.retain(|(line, _)| !Arc::ptr_eq(line, &self.line));
    }

    /// Mends this line.
    pub fn mend(&self) {
        lock(&self.line).cut = false;
    }

    /// Loses the next `count` messages on their way to the listeners on this line, whoever sends them.
    pub fn lose(&self, count: usize) {
        lock(&self.line).losing += count;
    }

    /// From now on nothing comes through to the listeners on this line until it is [released](Self::release).
    pub fn hold(&self) {
        lock(&self.line).held.get_or_insert_default();
    }

    /// Lets through what was held, in order.
    pub fn release(&self) {
        let held = lock(&self.line).held.take().unwrap_or_default();
        let broker = lock(&self.broker);
        for message in held {
            broker.to(&self.line, &message);
        }
    }

    /// Everything that was ever published.
    pub fn published(&self) -> Vec<Vec<u8>> {
        lock(&self.broker).messages.clone()
    }

    /// Publishes any bytes, as whoever has access to the broker can.
    pub fn inject(&self, message: &[u8]) {
        lock(&self.broker).deliver(message);
    }
}

impl Broker {
    fn deliver(&mut self, message: &[u8]) {
        self.messages.push(message.to_vec());
        for (line, listener) in &self.listeners {
            let mut line = lock(line);
            if line.losing > 0 {
                line.losing -= 1;
            } else if let Some(held) = &mut line.held {
                held.push_back(message.to_vec());
            } else {
                // A listener that left hears nothing.
                let _ = listener.send(message.to_vec());
            }
        }
        self.listeners.retain(|(_, listener)| !listener.is_closed());
    }

    fn to(&self, line: &Arc<Mutex<Line>>, message: &[u8]) {
        for (_, listener) in self.listeners.iter().filter(|(on, _)| Arc::ptr_eq(on, line)) {
            let _ = listener.send(message.to_vec());
        }
    }
}

impl Bus for MemoryBus {
    fn describe(&self) -> BusDescription {
        BusDescription { name: "memory", location: "this process".to_owned(), max_message: Self::MAX_MESSAGE }
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            assert!(message.len() <= Self::MAX_MESSAGE, "a message of {} bytes", message.len());
            if lock(&self.line).cut {
                return Err(unavailable("the line is cut"));
            }
            let mut broker = lock(&self.broker);
            if broker.down {
                return Err(unavailable("the broker is down"));
            }
            broker.deliver(message);
            Ok(())
        })
    }

    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Subscription>, BusError>> {
        Box::pin(async move {
            if lock(&self.line).cut {
                return Err(unavailable("the line is cut"));
            }
            let mut broker = lock(&self.broker);
            if broker.down {
                return Err(unavailable("the broker is down"));
            }
            let (listener, messages) = mpsc::unbounded_channel();
            broker.listeners.push((self.line.clone(), listener));
            Ok(Box::new(Listening(messages)) as Box<dyn Subscription>)
        })
    }
}

#[derive(Debug)]
struct Listening(mpsc::UnboundedReceiver<Vec<u8>>);

impl Subscription for Listening {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, BusError>> {
        Box::pin(async move { self.0.recv().await.ok_or_else(|| unavailable("the broker ended the subscription")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_line_has_its_own_misfortunes() {
        let (one, two) = (MemoryBus::default(), MemoryBus::default());
        let two_on_one = one.attached();
        drop(two);
        let mut heard_by_one = one.subscribe().await.unwrap();
        let mut heard_by_two = two_on_one.subscribe().await.unwrap();

        one.publish(b"a").await.unwrap();
        two_on_one.lose(1);
        one.publish(b"b").await.unwrap();
        two_on_one.hold();
        one.publish(b"c").await.unwrap();
        for message in [b"a", b"b", b"c"] {
            assert_eq!(heard_by_one.next().await.unwrap(), message);
        }
        assert_eq!(heard_by_two.next().await.unwrap(), b"a");
        two_on_one.release();
        assert_eq!(heard_by_two.next().await.unwrap(), b"c");

        two_on_one.cut();
        assert!(heard_by_two.next().await.is_err() && two_on_one.publish(b"d").await.is_err());
        one.publish(b"e").await.unwrap();
        assert_eq!(heard_by_one.next().await.unwrap(), b"e");
        one.go_down();
        assert!(heard_by_one.next().await.is_err() && one.subscribe().await.is_err());
    }
}
