//! `[cache]`

use super::section::section;

section! {
    /// Tokens in memory, ready to be served.
    ONE "cache" Cache {
        /// How much memory they may take, in MiB.
        max_mib: u64 = 64, Number "64";
        /// Seconds a cached token is served without asking the store whether it is still the newest.
        soft_life: u64 = 5, Number "5";
    }
}
