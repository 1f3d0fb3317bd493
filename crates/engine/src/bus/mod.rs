//! What instances tell each other: that a connection changed, that one is gone, that a reply is held.
//!
//! [`Link`] is where use cases drop what the others should hear of; [`speak`] tells it, [`listen`] hears what the
//! others tell, [`trust`] judges whether that is all there is to hear, and [`heard`] is what it does here. What was
//! not heard is asked of the store by [`catch_up`].

mod catch_up;
mod event;
mod heard;
mod listen;
mod speak;
mod trust;
mod wire;

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokenkeep_core::{
    Boot, InstanceId,
    ports::{Bus, BusError, Clock, Entropy},
    refresh::Listening,
};
use tokio::sync::{Notify, mpsc};

use self::trust::Trust;
pub(crate) use self::{event::Event, heard::Ears, listen::listen, speak::speak};
use crate::cache::Lease;

/// How many events may wait to be told. More than that, and nobody can follow anyway: those who listen ask the store.
const QUEUE: usize = 16 * 1024;

/// Where every use case drops what others should hear of, after it is committed. Never waits, and does nothing where
/// there is no bus. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    line: Option<Arc<Line>>,
    lease: Arc<Lease>,
}

/// This instance's end of the bus.
#[derive(Debug)]
pub(crate) struct Line {
    bus: Arc<dyn Bus>,
    own: InstanceId,
    queue: mpsc::Sender<Event>,
    overflown: AtomicBool,
    trust: Mutex<Trust>,
    lease: Arc<Lease>,
    clock: Arc<dyn Clock>,
    /// Something changed that the listener should look at.
    woken: Notify,
}

/// This instance's end of the bus, and what is to be told over it.
pub(crate) type Unspoken = (Arc<Line>, mpsc::Receiver<Event>);

impl Link {
    /// A link to `bus`, and what is dropped into it. What was changed within `reach` before now matters, too. Without a bus there is nobody to tell.
    pub(crate) fn new(
        bus: Option<Arc<dyn Bus>>,
        own: InstanceId,
        clock: Arc<dyn Clock>,
        reach: Duration,
    ) -> (Self, Option<Unspoken>) {
        let lease = Arc::<Lease>::default();
        let Some(bus) = bus else { return (Self { line: None, lease }, None) };
        let (queue, waiting) = mpsc::channel(QUEUE);
        let line = Arc::new(Line {
            bus,
            own,
            queue,
            overflown: AtomicBool::new(false),
            trust: Mutex::new(Trust::new(own, clock.now().boot, reach)),
            lease: lease.clone(),
            clock,
            woken: Notify::new(),
        });
        (Self { line: Some(line.clone()), lease }, Some((line, waiting)))
    }

    /// Whether there is anybody to tell.
    pub(crate) fn is_connected(&self) -> bool {
        self.line.is_some()
    }

    /// Until when this instance is told of everything.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Tells the others, soon and at most once. After [`Event::Leaving`] nothing is told any more.
    pub(crate) fn send(&self, event: Event) {
        if let Some(line) = &self.line
            && line.queue.try_send(event).is_err()
            && !line.overflown.swap(true, SeqCst)
        {
            tracing::warn!("more happens than can be told: the other instances will ask the store");
        }
    }

    /// Since when the bus has been heard without a gap, for whoever draws conclusions from silence on it. A subscription
    /// that stands and echoes that come back are enough: a silent peer is what is to be noticed.
    pub(crate) fn listening(&self) -> Listening {
        let Some(line) = &self.line else { return Listening::NoBus };
        let since = line.trust().hearing_since(line.clock.now().boot);
        since.map_or(Listening::Deaf, Listening::Since)
    }

    /// How many instances there are with this one, as far as is known; `None` = without a bus it is not.
    pub(crate) fn instances(&self) -> Option<NonZeroU32> {
        let others = u32::try_from(self.line.as_ref()?.trust().peers()).unwrap_or(u32::MAX);
        Some(NonZeroU32::MIN.saturating_add(others))
    }

    /// The registry shows that instance at work: as long as it is not heard, nothing is taken for granted.
    pub(crate) fn peer_seen(&self, instance: InstanceId) {
        self.tell_trust(|trust, now| trust.peer_seen(instance, now));
    }

    /// That instance is surely gone: its silence means nothing any more.
    pub(crate) fn peer_gone(&self, instance: InstanceId) {
        self.tell_trust(|trust, _| trust.peer_gone(instance));
    }

    fn tell_trust(&self, tell: impl FnOnce(&mut Trust, Boot)) {
        if let Some(line) = &self.line {
            tell(&mut line.trust(), line.clock.now().boot);
            line.woken.notify_one();
        }
    }
}

impl Line {
    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the bus answer within `deadline`.
async fn within<T>(
    clock: &dyn Clock,
    deadline: Duration,
    call: impl Future<Output = Result<T, BusError>>,
) -> Result<T, BusError> {
    let over = clock.sleep(deadline);
    tokio::select! {
        biased;
        answer = call => answer,
        () = over => Err(BusError { reason: format!("no answer within {deadline:?}") }),
    }
}

/// A part of `most` that differs from instance to instance, so that not all of them do the same thing at once.
fn jitter(entropy: &dyn Entropy, most: Duration) -> Duration {
    let mut random = [0; 2];
    entropy.fill(&mut random);
    most * u32::from(u16::from_be_bytes(random)) / (u32::from(u16::MAX) + 1)
}

#[cfg(test)]
mod overflow_tests;
