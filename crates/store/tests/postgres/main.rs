//! The PostgreSQL store, its bus and its counter, on a real server and through a real pooler.

#![expect(clippy::unwrap_used, reason = "who supports a test may panic like it")]

mod bus;
mod conformance;
mod counter;
mod faults;
mod proxy;
mod refusals;
mod schema;
mod support;
