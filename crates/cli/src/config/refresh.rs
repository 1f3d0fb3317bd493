//! `[refresh]`

use super::section::section;

section! {
    /// When and how hard tokens are refreshed.
    ONE "refresh" Refresh {
        /// Seconds before expiry at which a refresh is due, where the provider's catalogue entry says nothing. Never
        /// more than a fraction of the token's life.
        margin: u64 = 300, Number "300";
        /// Seconds between two looks at what is due.
        interval: u64 = 5, Number "5";
        /// How many refreshes run at once on our own account; those that a caller waits for come on top.
        concurrency: usize = 64, Number "64";
    }
}
