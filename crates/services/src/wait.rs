//! Waiting for another process: the only place that knows of real time.

use std::time::{Duration, Instant};

use crate::Error;

/// How long a server may take to answer, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// What came of asking once.
pub(crate) enum Asked<T> {
    Done(T),
    /// Not yet, and why.
    NotYet(String),
    /// It never will.
    Never(Error),
}

/// Asks until it is done, or `patience` ends.
#[expect(clippy::disallowed_methods, reason = "another process is waited for, and it tells no other way")]
pub(crate) fn until<T>(patience: Duration, mut ask: impl FnMut() -> Asked<T>) -> Result<T, Error> {
    let began = Instant::now();
    loop {
        match ask() {
            Asked::Done(it) => return Ok(it),
            Asked::Never(error) => return Err(error),
            Asked::NotYet(why) if began.elapsed() > patience => {
                return Err(Error::new(format!("not within {} s: {why}", patience.as_secs())));
            }
            Asked::NotYet(_) => std::thread::sleep(PAUSE),
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Asked<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(it) => Asked::Done(it),
            Err(why) => Asked::NotYet(why.to_string()),
        }
    }
}
