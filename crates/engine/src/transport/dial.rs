//! Name lookup and TCP.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokenkeep_core::ports::Clock;
use tokio::net::TcpStream;
use url::Host;

/// How long one address may keep us waiting before the next is tried beside it (RFC 8305 5).
const STAGGER: Duration = Duration::from_millis(250);

/// The addresses of `host`, best first, as the system's resolver orders them.
pub(super) async fn resolve(host: &Host, port: u16) -> Result<VecDeque<SocketAddr>, String> {
    match host {
        Host::Ipv4(address) => Ok([(*address, port).into()].into()),
        Host::Ipv6(address) => Ok([(*address, port).into()].into()),
        Host::Domain(name) => match tokio::net::lookup_host((name.as_str(), port)).await {
            Ok(addresses) => Ok(addresses.collect()),
            Err(error) => Err(format!("name lookup: {error}")),
        },
    }
}

/// The first connection that comes about. A dead address family costs a quarter of a second, not the whole time-out.
pub(super) async fn connect(mut addresses: VecDeque<SocketAddr>, clock: &dyn Clock) -> Result<TcpStream, String> {
    let mut attempts = FuturesUnordered::new();
    let mut reason = "it has no address that may be used".to_owned();
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.push(connect_to(address));
        } else if attempts.is_empty() {
            return Err(reason);
        }
        tokio::select! {
            biased;
            Some((address, result)) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => reason = format!("{address}: {error}"),
            },
            () = clock.sleep(STAGGER), if !addresses.is_empty() => {}
        }
    }
}

async fn connect_to(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    #[expect(clippy::disallowed_methods, reason = "the one place that opens connections to providers")]
    let result = TcpStream::connect(address).await;
    (address, result)
}

#[cfg(test)]
mod tests {
    use tokenkeep_testkit::ManualClock;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let clock = ManualClock::default();
        let stream = connect([closed, open].into(), &clock).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        let refused = connect([closed, closed].into(), &clock).await.unwrap_err();
        assert!(refused.starts_with(&closed.to_string()), "{refused}");
    }

    #[tokio::test]
    async fn an_address_is_needed() {
        assert!(connect(VecDeque::new(), &ManualClock::default()).await.is_err());
    }
}
