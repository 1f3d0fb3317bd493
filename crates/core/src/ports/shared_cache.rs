use std::{fmt, time::Duration};

use super::BoxFuture;

/// Sealed copies that instances leave for each other, between their own memory and the store (L2).
///
/// Whatever is in it may vanish at any time, and nothing may be lost by that. Each copy has a rank; a copy never takes
/// the place of one of a higher rank, nor goes below a floor that was raised. So what is known to be outdated cannot
/// come back, whoever is late.
pub trait SharedCache: fmt::Debug + Send + Sync {
    /// What this cache is.
    fn describe(&self) -> SharedCacheDescription;

    /// The copy under `key`, a text of 1 to 1,024 bytes that is no secret; `None` if there is none, or a floor.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, SharedCacheError>>;

    /// Leaves a copy for `life` at most, unless a higher rank or floor is there; answers whether it did. A copy of the
    /// same rank is replaced; a floor of the same rank gives way.
    fn put<'a>(
        &'a self,
        key: &'a str,
        rank: u64,
        sealed: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, SharedCacheError>>;

    /// Under each key, drops the copy of a lower rank than the one given, and for `life` lets none in. What is of that
    /// rank or a higher one stays. After an error some may have been raised.
    fn raise<'a>(&'a self, floors: &'a [(String, u64)], life: Duration) -> BoxFuture<'a, Result<(), SharedCacheError>>;

    /// Whether it answers at present.
    fn ping(&self) -> BoxFuture<'_, Result<(), SharedCacheError>>;
}

/// What a shared cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedCacheDescription {
    /// `redis`, `memory`.
    pub name: &'static str,
    /// Where it is, for people; without credentials.
    pub location: String,
}

/// Why it did not answer. It says nothing about what is in it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the shared cache is unavailable: {reason}")]
pub struct SharedCacheError {
    /// For the log; never a copy.
    pub reason: String,
}
