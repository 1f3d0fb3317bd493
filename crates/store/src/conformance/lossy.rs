//! Stores that answer nothing, or lose what was to be answered.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokenkeep_core::ports::{Put, Store, StoreError};

use super::{Fixture, Outage};
use crate::layers::{Answer, Call, Layer, Layered, Pending};

/// A layer that answers every call with `unavailable` while it is broken, and makes none.
#[derive(Clone, Debug, Default)]
pub struct Breakable {
    broken: Arc<AtomicBool>,
}

impl Breakable {
    /// Breaks it, or mends it.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    /// A fixture of `store` that can be broken from outside: for stores that have no way to be broken by themselves.
    pub fn fixture(store: Arc<dyn Store>) -> Fixture {
        let layer = Self::default();
        let set = |broken| -> super::Hook {
            let layer = layer.clone();
            Box::new(move || {
                layer.set_broken(broken);
                Box::pin(std::future::ready(()))
            })
        };
        let outage = Outage { begin: set(true), end: set(false) };
        Fixture::new(Arc::new(Layered::around(store, layer))).with_outage(outage)
    }
}

impl Layer for Breakable {
    fn call<'a, T: Answer + 'a>(&'a self, _: Call, future: Pending<'a, T>) -> Pending<'a, T> {
        Box::pin(async move {
            if self.broken.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable { reason: "broken on purpose".into(), retry_after: None });
            }
            future.await
        })
    }
}

/// A layer that answers writes with `unknown`: of three in a row, the first is done but its reply is lost, the second
/// is answered, the third never arrives.
#[derive(Debug, Default)]
pub struct LosesReplies {
    writes: AtomicUsize,
}

impl Layer for LosesReplies {
    fn call<'a, T: Answer + 'a>(&'a self, _: Call, future: Pending<'a, T>) -> Pending<'a, T> {
        future
    }

    fn write<'a>(&'a self, _: Call, future: Pending<'a, Put>) -> Pending<'a, Put> {
        Box::pin(async move {
            match self.writes.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => future.await.map(|_| Put::Unknown),
                1 => future.await,
                _ => Ok(Put::Unknown),
            }
        })
    }
}
