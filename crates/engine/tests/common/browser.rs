//! A browser, as far as a provider sees it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderMap, Method, header::LOCATION};
use tokenkeep_core::ports::{Endpoint, Peers, Reply, Request, Transport as _};
use tokenkeep_engine::transport::{HyperTransport, Pacer, Pacing, TransportOptions};
use url::Url;
use zeroize::Zeroizing;

/// What the provider sends the browser back with: the user of the fake provider says yes at once.
pub async fn at_provider(url: &Url) -> String {
    let reply = get(url).await;
    let location = reply.headers.get(LOCATION).expect("the provider sends the browser back").to_str().unwrap();
    Url::parse(location).unwrap().query().unwrap().to_owned()
}

pub async fn get(url: &Url) -> Reply {
    let clock = Arc::new(tokenkeep_testkit::ManualClock::default());
    let pacer = Arc::new(Pacer::new(clock.clone(), Pacing::default()));
    let transport = HyperTransport::new(clock, pacer, &TransportOptions::default()).unwrap();
    let endpoint = Endpoint { url: url.clone(), timeout: Duration::from_secs(5), peers: Peers::Any };
    let connected = transport.connect(&endpoint).await.unwrap();
    let (headers, body) = (HeaderMap::new(), Zeroizing::default());
    connected.send(Request { method: Method::GET, url: url.clone(), headers, body }, None).await.unwrap()
}

pub fn params(url: &Url) -> HashMap<String, String> {
    url.query_pairs().into_owned().collect()
}
