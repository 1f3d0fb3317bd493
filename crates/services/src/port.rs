//! Free ports on loopback.
//!
//! Harnesses run side by side, and a server that is down must find its port free when it is started again. So every
//! process takes blocks of ports for itself: whoever listens on a block's first port owns the others.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::{Mutex, PoisonError},
};

use crate::Error;

/// Below the ports that outgoing connections take, so that none of them takes a server's while it is down.
const PORTS: Range<u16> = 20_000..32_000;
const BLOCK: u16 = 20;

/// The ports that are ours and not given away yet, and what makes them ours.
struct Ours {
    ports: Range<u16>,
    guards: Vec<TcpListener>,
}

static OURS: Mutex<Ours> = Mutex::new(Ours { ports: 0..0, guards: Vec::new() });

/// Starts a server on a free port, and on another if a stranger was faster.
pub(crate) fn on_a_free_one<T>(start: impl Fn(u16) -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..5 {
        match start(free()) {
            Err(error) if error.is_port_taken() => {}
            answer => return answer,
        }
    }
    start(free())
}

/// A port that nobody listens on, and that no other harness will give to anybody.
pub fn free() -> u16 {
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match ours.ports.next() {
            Some(port) if listen(port).is_some() => return port,
            Some(_) => {}
            None => take_a_block(&mut ours),
        }
    }
}

fn take_a_block(ours: &mut Ours) {
    let blocks = (PORTS.end - PORTS.start) / BLOCK;
    // Every `RandomState` has other keys.
    let block = RandomState::new().hash_one(()) % u64::from(blocks);
    let first = PORTS.start + BLOCK * u16::try_from(block).expect("less than the number of blocks");
    if let Some(guard) = listen(first) {
        ours.guards.push(guard);
        ours.ports = first + 1..first + BLOCK;
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_away_twice() {
        let ports: Vec<u16> = (0..100).map(|_| free()).collect();
        let mut different = ports.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), ports.len());
        assert!(ports.iter().all(|port| listen(port - port % BLOCK).is_none()));
    }
}
