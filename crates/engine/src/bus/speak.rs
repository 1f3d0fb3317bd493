//! Telling the others: what waits goes together, and at least a sign of life four times a second.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{Event, Line, trust::HEARTBEAT, wire::build_message, within};
use crate::shared::Shared;

/// How many events are taken from the queue at once.
const BATCH: usize = 1024;
/// A broker that does not take a message by then will not help those who wait for the next one.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(1);

/// Tells what waits in the queue until this instance leaves; that it does is the last thing told.
pub(crate) async fn speak(line: Arc<Line>, shared: Arc<Shared>, mut waiting: mpsc::Receiver<Event>) {
    let mut speaker = Speaker { line, shared, number: 0 };
    let mut batch = Vec::new();
    let mut next_beat = speaker.shared.now().boot;
    loop {
        tokio::select! {
            _ = waiting.recv_many(&mut batch, BATCH) => {}
            () = speaker.shared.clock.sleep_until(next_beat) => {}
        }
        if speaker.line.overflown.swap(false, SeqCst) {
            // Not all of it can be told any more. A number is left out, and whoever listens asks the store.
            speaker.number += 1;
        }
        next_beat = speaker.shared.now().boot + HEARTBEAT;
        if let Some(last) = batch.iter().position(|event| *event == Event::Leaving) {
            return speaker.tell(&batch[..=last]).await;
        }
        speaker.tell(&batch).await;
        batch.clear();
    }
}

struct Speaker {
    line: Arc<Line>,
    shared: Arc<Shared>,
    /// Of the next message. One that could not be published uses its number up: whoever listens sees that it is
    /// missing, and asks the store.
    number: u64,
}

impl Speaker {
    async fn tell(&mut self, mut events: &[Event]) {
        let Shared { records, clock, metrics, .. } = &*self.shared;
        let room = self.line.bus.describe().max_message;
        loop {
            let (message, taken) = build_message(records.barrier(), self.line.own, self.number, events, room);
            self.line.trust().sending(self.number, clock.now().boot);
            self.number += 1;
            match within(&**clock, PUBLISH_DEADLINE, self.line.bus.publish(&message)).await {
                Ok(()) => {
                    metrics.bus_sent.inc();
                }
                Err(error) => {
                    metrics.bus_unsent.inc();
                    tracing::debug!(%error, "a message was not published");
                }
            }
            events = &events[taken..];
            if events.is_empty() {
                return;
            }
        }
    }
}
