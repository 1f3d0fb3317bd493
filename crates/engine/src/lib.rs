//! engine

pub mod barrier;
mod caller;
mod error;
pub mod records;
pub mod system;

pub use caller::Caller;
pub use error::{Blame, Error};
