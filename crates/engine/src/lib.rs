//! engine

pub mod barrier;
pub mod catalogue;
pub mod system;
