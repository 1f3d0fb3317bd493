//! The binary as its users have it: real processes, real files, a real socket.

mod connections;
mod credentials;
mod home;
mod instances;
mod issuing;
mod serve;
mod store;
