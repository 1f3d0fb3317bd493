//! The store, the cache, the bus and the counter in a real Redis, alone, in a cluster and with sentinels.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a failed test panics, and says why")]

mod bus;
mod cache;
mod cluster;
mod counter;
mod failover;
mod help;
mod operations;
mod refusals;
mod standalone;
