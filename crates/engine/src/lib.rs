//! engine

pub mod system;
