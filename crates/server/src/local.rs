//! The socket in the data directory: who connects is asked of the kernel, so that no key is copied about.

use std::io;

use tokio::net::UnixStream;

/// Whether the process at the other end runs as the user of this one, or as root, who may do anything here anyway.
pub(crate) fn is_owner(stream: &UnixStream) -> io::Result<bool> {
    Ok(may_enter(stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw()))
}

fn may_enter(peer: u32, owner: u32) -> bool {
    peer == owner || peer == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_process_is_let_in() {
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(is_owner(&stream).unwrap());
    }

    #[test]
    fn another_user_is_not() {
        assert!(may_enter(1000, 1000));
        assert!(may_enter(0, 1000));
        assert!(!may_enter(1001, 1000));
        assert!(!may_enter(1000, 0));
    }
}
