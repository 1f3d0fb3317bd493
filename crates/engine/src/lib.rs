//! engine

pub mod barrier;
pub mod system;
