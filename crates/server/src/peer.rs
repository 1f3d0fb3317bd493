//! Who is at the other end of a connection, and for whom it speaks.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use http::{Extensions, HeaderMap, HeaderName};
use ipnet::IpNet;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// The peer of a request; the local socket has none.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// Whether its `X-Forwarded-*` headers count.
    pub(crate) fn is_trusted(self, proxies: &BTreeSet<IpNet>) -> bool {
        is_one_of(proxies, self.0)
    }

    /// Who asks: the peer, or, where that is a trusted proxy, the last address that no trusted proxy has.
    pub(crate) fn speaks_for(self, headers: &HeaderMap, proxies: &BTreeSet<IpNet>) -> IpAddr {
        if !self.is_trusted(proxies) {
            return self.0;
        }
        let told = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = told.flat_map(|list| list.split(',')).map(str::trim).collect();
        let mut before = self.0;
        for hop in hops.into_iter().rev() {
            // What cannot be read was not written by a proxy that we trust.
            let Ok(address) = hop.parse::<IpAddr>().map(|address| address.to_canonical()) else { break };
            before = address;
            if !is_one_of(proxies, address) {
                break;
            }
        }
        before
    }
}

fn is_one_of(proxies: &BTreeSet<IpNet>, address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(&address))
}

/// The network that one customer has: of IPv6 a /64, for any address of it costs nothing.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        let proxies = BTreeSet::from(["10.0.0.1/32".parse().unwrap(), "10.0.0.2/31".parse().unwrap()]);
        let asks = |peer: &str, told: &'static str| {
            let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static(told))]);
            Peer(ip(peer)).speaks_for(&headers, &proxies).to_string()
        };
        assert_eq!(asks("192.0.2.9", "198.51.100.1"), "192.0.2.9");
        assert_eq!(asks("10.0.0.1", "198.51.100.1"), "198.51.100.1");
        // What a client wrote itself stands before what the proxy saw.
        assert_eq!(asks("10.0.0.1", "203.0.113.7, 198.51.100.1, 10.0.0.2"), "198.51.100.1");
        assert_eq!(asks("10.0.0.3", "198.51.100.1, 10.0.0.2"), "198.51.100.1");
        assert_eq!(asks("10.0.0.4", "198.51.100.1"), "10.0.0.4");
        assert_eq!(asks("10.0.0.1", "198.51.100.1, nonsense"), "10.0.0.1");
        assert_eq!(asks("10.0.0.1", "::ffff:198.51.100.1"), "198.51.100.1");
        assert_eq!(asks("10.0.0.1", ""), "10.0.0.1");
    }

    #[test]
    fn a_customer_is_one_network() {
        assert_eq!(network_of(ip("2001:db8:1:2:3:4:5:6")), network_of(ip("2001:db8:1:2::1")));
        assert_ne!(network_of(ip("2001:db8:1:2::1")), network_of(ip("2001:db8:1:3::1")));
        assert_ne!(network_of(ip("192.0.2.1")), network_of(ip("192.0.2.2")));
        assert_eq!(network_of(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
