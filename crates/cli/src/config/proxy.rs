//! `[proxy]`

use super::section::section;

section! {
    /// How providers' APIs are called; docs/proxy.md explains the limits and what happens when an API fails.
    ONE "proxy" Proxy {
        /// Seconds that a call waits at most for what the provider allows, before it is answered with 429.
        max_wait: u64 = 10, Number "10";
        /// After how many failures in a row (5xx, or no answer) an API is left alone; 0 = never.
        circuit_failures: u32 = 5, Number "5";
        /// Seconds before one call finds out whether it is back.
        circuit_cool_down: u64 = 10, Number "10";
    }
}
