//! The HTTP face, asked as its users ask it. One binary: one room for each part of the surface.

#![expect(clippy::unwrap_used, reason = "a test that unwraps nothing fails, and says where")]

mod app;
mod bad_requests;
mod browser;
mod clients;
mod compat;
mod connect;
mod connections;
mod credentials;
mod fast_lane;
mod grants;
mod hostile;
mod instances;
mod issuer;
mod keys;
mod operations;
mod outages;
mod proxy;
mod serving;
mod sessions;
