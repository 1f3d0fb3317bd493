//! What instances tell each other: that a connection changed, that one is gone, that a reply is held.

mod event;
mod heard;

use tokenkeep_core::InstanceId;
use tokio::sync::mpsc;

pub(crate) use self::{event::Event, heard::Ears};

/// How many events may wait to be told. More than that, and nobody can follow anyway: those who listen ask the store.
const QUEUE: usize = 16 * 1024;

/// Where every use case drops what others should hear of, after it is committed. Never waits, and does nothing where
/// there is no bus.
#[derive(Debug)]
pub(crate) struct Link {
    queue: Option<mpsc::Sender<Event>>,
}

impl Link {
    /// A link, and what is dropped into it. Without `connected` there is nobody to tell.
    pub(crate) fn new(connected: bool) -> (Self, mpsc::Receiver<Event>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue: connected.then_some(queue) }, waiting)
    }

    /// Tells the others, soon and at most once.
    pub(crate) fn send(&self, event: Event) {
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(event);
        }
    }

    /// The registry shows that instance at work: as long as it is not heard, nothing is taken for granted.
    pub(crate) fn peer_seen(&self, instance: InstanceId) {
        let _ = (self, instance);
    }

    /// That instance is surely gone: its silence means nothing any more.
    pub(crate) fn peer_gone(&self, instance: InstanceId) {
        let _ = (self, instance);
    }
}
