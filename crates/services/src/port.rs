//! Free ports on loopback.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

use crate::Error;

/// Below the ports that outgoing connections take, so that nobody takes a server's while it is down.
const PORTS: Range<u16> = 20_000..32_000;

/// Starts a server on a free port, and on another if somebody was faster.
pub(crate) fn on_a_free_one<T>(start: impl Fn(u16) -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..5 {
        match start(free()) {
            Err(error) if error.is_port_taken() => {}
            answer => return answer,
        }
    }
    start(free())
}

/// A port that nobody listens on at this moment.
pub(crate) fn free() -> u16 {
    std::iter::repeat_with(random)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("repeats for ever")
}

fn random() -> u16 {
    // Every `RandomState` has other keys.
    let random = RandomState::new().hash_one(()) % u64::from(PORTS.end - PORTS.start);
    PORTS.start + u16::try_from(random).expect("less than the number of ports")
}
