//! How connections come to be, and who may bring that about.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod alone;
mod browser;
mod confirm;
mod device;
mod integrations;
mod keys;
mod support;
