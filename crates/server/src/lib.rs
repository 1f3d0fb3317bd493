//! tokenkeep's HTTP face: requests in, engine calls, answers out. It has no rule of its own beyond those of HTTP.
//!
//! To find who answers a URL, look at `router.rs`: every route is a line there, and every resource a file in `api/`. In
//! front of the router runs a [`FastLane`], which answers reads of cached tokens and nothing else; behind both stands one
//! engine. Errors become problem details (RFC 9457) in `problem.rs`, and nowhere else.
//!
//! ```no_run
//! use tokenkeep_server::{AppState, Limits, Listener, Settings, serve};
//!
//! # async fn example(engine: tokenkeep_engine::Engine) -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7420").await?;
//! let state = AppState::new(engine, Settings::default());
//! let stop = async { drop(tokio::signal::ctrl_c().await) };
//! serve(Listener::Tcp(listener), state, Limits::default(), stop).await
//! # }
//! ```

mod api;
mod auth;
mod body;
mod compat;
mod connect_page;
mod cookie;
mod extract;
mod fast_lane;
mod line;
mod local;
mod metrics;
mod oauth;
mod observe;
mod openapi;
mod pages;
mod peer;
mod problem;
mod progress;
mod protect;
mod proxy;
mod request_id;
mod router;
mod serve;
mod state;
mod token_reply;

pub use auth::Door;
pub use body::MAX_BODY;
pub use compat::{Companies, Compat};
pub use fast_lane::{FastLane, LaneBody, LaneFuture};
pub use openapi::openapi_json;
pub use protect::{Forward, Protected};
pub use router::{is_own_path, router};
pub use serve::{Limits, Listener, serve};
pub use state::{AppState, Settings};
