//! Who our clients are, and how they come to be, change and go.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod by_itself;
mod by_the_operator;
mod grants_of_clients;
mod published;
mod secrets;
mod support;
