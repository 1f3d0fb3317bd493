//! From `/authorize` to the code: who is asked, who signs in, and who else may be on the way.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod application;
mod authorize;
mod consent;
mod identity;
mod outages;
mod rules;
mod support;
mod upstream;
