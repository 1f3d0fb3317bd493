//! engine

pub mod barrier;
pub mod records;
pub mod system;
pub mod transport;
