//! Hearing the others, and judging whether everything was heard.

use std::{sync::Arc, time::Duration};

use tokenkeep_core::{
    Boot,
    ports::{BoxFuture, BusError, Subscription},
};

use super::{
    Ears, Event, Line,
    catch_up::catch_up,
    jitter,
    trust::{CatchUp, Doubt, SILENCE, Turn},
    wire::parse_message,
    within,
};
use crate::shared::Shared;

const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(5);
/// A broker that is gone is tried again after this, and then after twice as long, ...
const RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Listens for ever.
pub(crate) async fn listen(line: Arc<Line>, shared: Arc<Shared>, ears: Ears) {
    let mut listener = Listener { line, shared, ears, subscribed: Boot::default(), catching_up: None };
    let mut failures = 0_u32;
    loop {
        let clock = listener.shared.clock.clone();
        let error = match within(&*clock, SUBSCRIBE_DEADLINE, listener.line.bus.subscribe()).await {
            Ok(subscription) => {
                failures = 0;
                listener.listen(subscription).await
            }
            Err(error) => error,
        };
        listener.shared.conditions.bus.lost(clock.now().boot, &error);
        let wait = RETRY.saturating_mul(1 << failures.min(6)).min(LONGEST_RETRY);
        failures += 1;
        clock.sleep(wait + jitter(&*listener.shared.entropy, wait)).await;
    }
}

struct Listener {
    line: Arc<Line>,
    shared: Arc<Shared>,
    ears: Ears,
    subscribed: Boot,
    catching_up: Option<(CatchUp, BoxFuture<'static, ()>)>,
}

enum Came {
    Message(Vec<u8>),
    CaughtUp,
    /// Time to look whether everybody is still heard, or a hint to do so.
    Look,
}

impl Listener {
    /// Listens for as long as the subscription lasts.
    async fn listen(&mut self, mut subscription: Box<dyn Subscription>) -> BusError {
        self.subscribed = self.shared.now().boot;
        self.line.trust().subscribed(self.subscribed);
        loop {
            match self.next(&mut *subscription).await {
                Ok(Came::Message(message)) => self.hear(&message),
                Ok(Came::CaughtUp) => self.caught_up(),
                Ok(Came::Look) => {}
                Err(error) => {
                    self.line.trust().deaf();
                    self.judge();
                    return error;
                }
            }
            self.judge();
        }
    }

    async fn next(&mut self, subscription: &mut dyn Subscription) -> Result<Came, BusError> {
        let look_at = self.line.trust().holds_until().unwrap_or(self.shared.now().boot + SILENCE);
        let caught_up = async {
            match &mut self.catching_up {
                Some((_, under_way)) => under_way.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What was said comes before the time that passed meanwhile.
            biased;
            message = subscription.next() => message.map(Came::Message),
            () = caught_up => Ok(Came::CaughtUp),
            () = self.line.woken.notified() => Ok(Came::Look),
            () = self.shared.clock.sleep_until(look_at) => Ok(Came::Look),
        }
    }

    /// What it says is done before it counts as heard: trust never runs ahead of what it is about.
    fn hear(&mut self, bytes: &[u8]) {
        let Some(message) = parse_message(self.shared.records.barrier(), bytes) else {
            self.shared.metrics.bus_foreign.inc();
            return;
        };
        self.shared.metrics.bus_received.inc();
        let own = message.from == self.line.own;
        let leaves = message.events.contains(&Event::Leaving);
        if !own {
            for event in message.events {
                self.ears.heard(message.from, event);
            }
        }
        let mut trust = self.line.trust();
        let before = trust.missing();
        let new = trust.heard(message.from, message.number, self.shared.now().boot);
        if new && leaves && !own {
            trust.left(message.from);
        }
        self.shared.metrics.bus_lost.inc_by(trust.missing() - before);
    }

    fn caught_up(&mut self) {
        let Some((number, _)) = self.catching_up.take() else { return };
        self.line.trust().caught_up(number);
    }

    /// Compares what is heard with what should be, and acts on it.
    fn judge(&mut self) {
        let now = self.shared.now().boot;
        let (mut turns, doubt) = (Vec::new(), {
            let trust = self.line.trust();
            trust.doubt(now)
        });
        {
            let mut trust = self.line.trust();
            while let Some(turn) = trust.turn(now) {
                turns.push(turn);
            }
            self.line.lease.set(trust.holds_until());
        }
        let condition = &self.shared.conditions.bus;
        match doubt {
            None => condition.well(now),
            // At first nobody can have been heard yet.
            Some(doubt) if now.since(self.subscribed) >= SILENCE => condition.lost(now, &doubt),
            Some(_) => {}
        }
        for turn in turns {
            match turn {
                Turn::Trusting => {
                    self.shared.metrics.bus_trusting.set(1);
                }
                Turn::Cautious(doubt) => {
                    self.shared.metrics.bus_trusting.set(0);
                    if doubt != Doubt::Behind {
                        condition.lost(now, &doubt);
                    }
                    tracing::debug!(%doubt, "cached tokens are compared with the store");
                }
                Turn::CatchUp { number, gap } => {
                    let (shared, ears) = (self.shared.clone(), self.ears.clone());
                    self.catching_up = Some((number, Box::pin(async move { catch_up(&shared, &ears, gap).await })));
                }
            }
        }
    }
}
