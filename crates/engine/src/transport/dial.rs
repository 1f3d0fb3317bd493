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

/// A connection to whichever address answers first.
pub(super) async fn connect(addresses: VecDeque<SocketAddr>, clock: &dyn Clock) -> Result<TcpStream, String> {
    race(addresses, clock, async |address| {
        #[expect(clippy::disallowed_methods, reason = "the one place that opens connections to providers")]
        let connecting = TcpStream::connect(address);
        connecting.await
    })
    .await
}

/// The first success, each address getting a head start on the next: a dead address family costs a quarter of a
/// second, not the whole time-out.
async fn race<T>(
    mut addresses: VecDeque<SocketAddr>,
    clock: &dyn Clock,
    connect: impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> Result<T, String> {
    let attempt = async |address| (address, connect(address).await);
    let mut attempts = FuturesUnordered::new();
    let mut reason = "it has no address that may be used".to_owned();
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.push(attempt(address));
        } else if attempts.is_empty() {
            return Err(reason);
        }
        tokio::select! {
            biased;
            Some((address, result)) = attempts.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => reason = format!("{address}: {error}"),
            },
            () = clock.sleep(STAGGER), if !addresses.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokenkeep_testkit::ManualClock;
    use tokio::sync::Notify;

    use super::*;

    fn addresses(count: u16) -> VecDeque<SocketAddr> {
        (1..=count).map(|port| ([127, 0, 0, 1], port).into()).collect()
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[tokio::test]
    async fn a_refusal_moves_on_at_once() {
        let connect = async |address: SocketAddr| if address.port() == 3 { Ok(3) } else { Err(refused()) };
        let clock = ManualClock::default();
        assert_eq!(race(addresses(3), &clock, connect).await, Ok(3));
        let reason = race(addresses(2), &clock, connect).await.unwrap_err();
        assert!(reason.starts_with("127.0.0.1:2: "), "{reason}");
        assert!(race(addresses(0), &clock, connect).await.is_err());
    }

    #[tokio::test]
    async fn silence_moves_on_after_a_while() {
        let clock = ManualClock::default();
        let connect = async |address: SocketAddr| if address.port() == 1 { pending().await } else { Ok(2) };
        let (result, waited) = tokio::join!(race(addresses(2), &clock, connect), clock.advance_to_next_wake());
        assert_eq!((result, waited), (Ok(2), STAGGER));
    }

    #[tokio::test]
    async fn the_first_may_still_win() {
        let clock = ManualClock::default();
        let second_tried = Notify::new();
        let connect = async |address: SocketAddr| {
            if address.port() == 2 {
                second_tried.notify_one();
                pending::<()>().await;
            }
            second_tried.notified().await;
            Ok(1)
        };
        let (result, _) = tokio::join!(race(addresses(2), &clock, connect), clock.advance_to_next_wake());
        assert_eq!(result, Ok(1));
    }
}
