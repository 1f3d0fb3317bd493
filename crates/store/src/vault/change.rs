//! Changing one record: read, decide, write if nothing came between.
//!
//! # How a record is removed for good
//! Version 2 compares and swaps by a number that it counts up with each version of a secret. Its deletion of a whole
//! secret compares nothing, and the numbers start again after it. So a sweep goes three steps, each some time after
//! the one before:
//!
//! 1. What has expired is replaced, by compare-and-swap, with a mark, *swept*. It counts as absent; who wants to create
//!    a record there replaces the mark, and the numbers go on.
//! 2. A mark that has rested for [`REST`] is replaced, by compare-and-swap, with another, *doomed*. Nobody may write
//!    there any more.
//! 3. Whoever doomed it removes the secret at once, or not at all. If it never does, another may doom it again after a
//!    further [`REST`].
//!
//! A write that was decided on before step 1 meets another number for as long as the mark rests, and gives up long
//! before that ([`STALE`]). What is not guaranteed: a process that freezes between its last look at the clock and
//! sending the removal, and for longer than [`REST`], removes what others have meanwhile put there; so does one whose
//! wall clock is off by as much.
//!
//! Version 1 has one writer, which holds a lock and removes at once.

use std::time::Duration;

use jiff::Timestamp;
use tokenkeep_core::{
    ports::{Put, StoreError},
    time::after,
};

use super::{
    error::Failure,
    kv::{Found, Kv, STALE, Written},
    options::KvVersion,
    secret::Secret,
};
use crate::records;

/// How long the marks of a sweep stay: many times what a write may be old, and what Vault lets a request take.
pub(super) const REST: Duration = Duration::from_secs(5 * 60);
/// How often others may be faster than we are, before we say that it does not work.
const TRIES: usize = 64;

/// What was done.
pub(super) enum Change {
    /// What was there is replaced by this.
    Written(Secret),
    /// It was left; this is it.
    Left(Found),
}

/// Replaces what is at `path` by what `decide` makes of it, and asks it again for as long as somebody else was faster.
/// `known` is what was there a moment ago: with version 2 it need not be read again before it is tried.
pub(super) async fn change(
    kv: &Kv,
    path: &str,
    known: Option<Found>,
    decide: impl Fn(Option<&Secret>) -> Option<Secret>,
) -> Result<Change, Failure> {
    let mut turn = kv.turn(path).await?;
    let mut known = known.filter(|_| kv.version == KvVersion::V2);
    for _ in 0..TRIES {
        let found = match known.take() {
            Some(known) => known,
            None => kv.read(path).await.map_err(Failure::NothingDone)?,
        };
        let Some(secret) = decide(found.secret.as_ref()) else { return Ok(Change::Left(found)) };
        if kv.write(&mut turn, path, &secret, &found).await? == Written::Done {
            return Ok(Change::Written(secret));
        }
    }
    Err(Failure::nothing_done("others change this record faster than it can be written"))
}

/// The answer to a write that failed.
pub(super) fn put_failed(failure: Failure) -> Result<Put, StoreError> {
    match failure {
        Failure::NothingDone(error) => Err(error),
        Failure::InDoubt(error) => {
            tracing::debug!(reason = %error, "the answer to a write was lost; it may have been done");
            Ok(Put::Unknown)
        }
    }
}

/// Whether a sweep at `now` has anything to do with it.
pub(super) fn is_garbage(secret: Option<&Secret>, now: Timestamp) -> bool {
    is_expired(secret, now) || has_rested(secret, now)
}

/// Does what a sweep at `now` does with `found` at `path`; whether it took a record.
pub(super) async fn sweep(kv: &Kv, path: &str, found: Found, now: Timestamp) -> Result<bool, StoreError> {
    match kv.version {
        KvVersion::V1 => sweep_v1(kv, path, now).await,
        KvVersion::V2 => sweep_v2(kv, path, found, now).await,
    }
}

async fn sweep_v1(kv: &Kv, path: &str, now: Timestamp) -> Result<bool, StoreError> {
    let mut turn = kv.turn(path).await?;
    let is_garbage = is_garbage(kv.read(path).await?.secret.as_ref(), now);
    if is_garbage {
        kv.remove(&mut turn, path).await?;
    }
    Ok(is_garbage)
}

async fn sweep_v2(kv: &Kv, path: &str, found: Found, now: Timestamp) -> Result<bool, StoreError> {
    let marked = change(kv, path, Some(found), |there| is_expired(there, now).then_some(Secret::Swept(now)));
    let left = match marked.await? {
        Change::Written(_) => return Ok(true),
        Change::Left(found) => found,
    };
    let begun = kv.session.now();
    let doomed = change(kv, path, Some(left), |there| has_rested(there, now).then_some(Secret::Doomed(now)));
    if matches!(doomed.await?, Change::Written(_)) && kv.session.now().since(begun) <= STALE {
        let mut turn = kv.turn(path).await?;
        kv.remove(&mut turn, path).await?;
    }
    Ok(false)
}

fn is_expired(secret: Option<&Secret>, now: Timestamp) -> bool {
    secret.and_then(Secret::record).is_some_and(|record| records::is_expired(record, now))
}

fn has_rested(secret: Option<&Secret>, now: Timestamp) -> bool {
    matches!(secret, Some(Secret::Swept(at) | Secret::Doomed(at)) if after(*at, REST) <= now)
}
