//! Counting in this process.

use std::sync::{Arc, Mutex, PoisonError};

use tokenkeep_core::{
    Buckets,
    ports::{BoxFuture, Clock, Counter, CounterError, Limit, Taken},
};

/// A counter of one process, for where instances share none: each then grants the whole limit by itself.
#[derive(Debug)]
pub struct MemoryCounter {
    clock: Arc<dyn Clock>,
    buckets: Mutex<Buckets>,
}

impl MemoryCounter {
    /// With nothing taken yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, buckets: Mutex::default() }
    }
}

impl Counter for MemoryCounter {
    fn take<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<Taken, CounterError>> {
        Box::pin(async move {
            let now = self.clock.now().boot;
            Ok(self.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(bucket, limit, now))
        })
    }

    fn give_back<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<(), CounterError>> {
        Box::pin(async move {
            self.buckets.lock().unwrap_or_else(PoisonError::into_inner).give_back(bucket, limit);
            Ok(())
        })
    }
}
