//! The Vault store: KV version 1 on a real server, version 2 and Transit on a fake that goes by Vault's documentation.

#![expect(clippy::unwrap_used, reason = "who supports a test may panic like it")]

mod conformance;
mod contract;
mod failures;
mod login;
mod refusals;
mod support;
mod sweeping;
mod transit;
