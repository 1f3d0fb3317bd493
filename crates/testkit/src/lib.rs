//! What tokenkeep's tests share, so that none of them sleeps, guesses or hopes.
//!
//! - [`ManualClock`]: both clocks, told the time by the test.
//! - [`SeededEntropy`]: the same "random" bytes in every run.
//! - [`MemoryBus`] and [`MemoryCache`]: what several instances share, cut, lossy, held up or emptied as told.
//! - [`FakeProvider`]: an OAuth provider on a loopback port that rotates refresh tokens as told, fails as told, and
//!   remembers every token it ever saw.
//! - [`FakeApi`]: an API on a loopback port that answers as told and remembers what it was asked.
//! - [`FakeLogin`]: a provider without OAuth, where a user name and a password bring a token.
//! - [`Site`]: pages by https on `localhost`, for what strangers publish.
//! - [`vault::FakeVault`]: Vault's HTTP API on a loopback port, by the letter of its documentation, with its faults.
//!
//! ```
//! use std::time::Duration;
//! use tokenkeep_core::ports::Clock;
//! use tokenkeep_testkit::ManualClock;
//!
//! let clock = ManualClock::default();
//! let before = clock.now();
//! clock.advance(Duration::from_secs(60));
//! assert_eq!(clock.now().boot.since(before.boot), Duration::from_secs(60));
//! ```

mod api;
mod bus;
mod clock;
mod entropy;
mod login;
mod provider;
mod shared_cache;
mod site;
pub mod vault;

pub use api::{Asked, FakeApi};
/// The body of what a [`FakeApi`] is asked and answers.
pub use axum::body::Body as ApiBody;
pub use bus::MemoryBus;
pub use clock::ManualClock;
pub use entropy::SeededEntropy;
pub use login::{FakeLogin, LoginManner};
pub use provider::{
    Config, FakeProvider, FamilyView, Fault, FaultReply, GOTRUE_APIKEY, Gate, Issued, Outcome, Pause, RefreshView,
    RequiredAuth, TokenCall, serve,
};
pub use shared_cache::MemoryCache;
pub use site::Site;
pub use vault::FakeVault;
