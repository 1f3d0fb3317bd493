//! The refresh state machine.
