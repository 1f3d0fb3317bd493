//! Calls to providers' APIs, against APIs on real sockets.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod hosts;
mod lines;
mod support;
mod tokens;
