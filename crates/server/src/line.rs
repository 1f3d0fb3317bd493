//! The line to a client: what keeps it from being hung up on while an answer takes its time.
//!
//! A connection on which nothing moves is ended after a while. An answer that lasts (events that come when they come, a
//! call that takes minutes) holds the line for as long as it has nothing to send; what its client does not take holds
//! nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use http::Extensions;
use tokio::sync::watch;

/// The line that a request came by.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    holds: Arc<AtomicUsize>,
    closing: watch::Receiver<()>,
}

/// Holds a line until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    line: Line,
}

impl Line {
    /// `closing` changes when the server goes down.
    pub(crate) fn new(closing: watch::Receiver<()>) -> Self {
        Self { holds: Arc::default(), closing }
    }

    /// The line of a request; there is none where no socket is.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().cloned()
    }

    pub(crate) fn hold(self) -> Hold {
        self.holds.fetch_add(1, SeqCst);
        Hold { line: self }
    }

    /// Waits until the server goes down. Answers without an end of their own are to end then.
    pub(crate) async fn closing(mut self) {
        // An error means that the server is gone: that is the end, too.
        let _ = self.closing.changed().await;
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holds.load(SeqCst) > 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.line.holds.fetch_sub(1, SeqCst);
    }
}
