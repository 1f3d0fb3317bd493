//! SIGTERM and SIGINT: the first ends in order, the second at once.

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
};

/// Both signals, heard since this was made.
pub(super) struct Signals(Mutex<(Signal, Signal)>);

impl Signals {
    pub(super) fn listen() -> Result<Self> {
        let hear = |kind| signal(kind).context("signals cannot be heard");
        Ok(Self(Mutex::new((hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?))))
    }

    /// The name of the next one.
    pub(super) async fn first(&self) -> &'static str {
        let mut signals = self.0.lock().await;
        let (terminate, interrupt) = &mut *signals;
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }

    /// The one after that.
    pub(super) async fn second(&self) {
        self.first().await;
    }
}
