//! The cases. Each is named after what holds if it passes.

pub mod claims;
pub mod crud;
pub mod faults;
pub mod lists;
pub mod races;
pub mod sweeping;
pub mod tombstones;
pub mod values;
