//! Where requests come in: the network, and the socket in the data directory.

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Listens on `address`.
pub(super) async fn tcp(address: SocketAddr) -> Result<TcpListener> {
    let hint = match address.port() {
        port @ 1..1024 => format!("ports below 1024 need rights; another than {port} is given with `--listen`"),
        _ => "another process may listen there; another port is given with `--listen ADDR:PORT`".to_owned(),
    };
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({hint})"))
}

/// Listens on the socket at `path`, for this user only; `None` if another process answers there: it keeps it.
pub(super) async fn unix(path: &Path) -> Result<Option<UnixListener>> {
    let failed = || format!("cannot listen on the socket {}", path.display());
    if is_answered(path).await {
        return Ok(None);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(failed),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(failed)?;
    // Until here the directory keeps others out; and whoever gets through is asked who they are.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(failed)?;
    Ok(Some(listener))
}

/// Whether a process is behind the socket; one that a dead process left is not.
pub(crate) async fn is_answered(path: &Path) -> bool {
    UnixStream::connect(path).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_somebody_answers_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = unix(&path).await.unwrap().expect("nobody was there");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(unix(&path).await.unwrap().is_none());
        drop(first);
        assert!(unix(&path).await.unwrap().is_some(), "what a dead process left is taken over");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_says_what_to_do() {
        let taken = tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = tcp(taken.local_addr().unwrap()).await.unwrap_err();
        assert!(format!("{error:#}").contains("--listen"), "{error:#}");
    }
}
