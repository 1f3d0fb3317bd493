//! engine

pub mod barrier;
mod caller;
pub mod catalogue;
mod error;
pub mod journal;
pub mod records;
pub mod system;
pub mod transport;

pub use caller::Caller;
pub use error::{Blame, Error};
