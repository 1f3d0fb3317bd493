//! What we say of ourselves (RFC 8414) and of what we protect (RFC 9728). Every document is written once, at start: all
//! that is in it stands in the configuration, and nothing of it comes from a request.

use std::collections::BTreeSet;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use tokenkeep_engine::issuer::{IssuerSettings, ProtectedResource, Registration};
use tokenkeep_oauth::issuer::{
    metadata::{Offer, ResourceMetadata, ServerMetadata, resource_metadata_paths},
    scope::ScopeSet,
};
use url::Url;

use super::issuing::Issuing;
use crate::peer::Peer;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// For so long others go by what they read.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The documents, ready to be sent.
#[derive(Debug)]
pub(crate) struct Documents {
    server: Bytes,
    resources: Vec<Described>,
}

/// A resource's document, and where it is looked for.
#[derive(Debug)]
struct Described {
    /// `host`, or `host:port` where that is not the usual one.
    authority: String,
    /// The resource's own first, the root of its host last.
    paths: Vec<String>,
    document: Bytes,
}

impl Documents {
    pub(crate) fn new(settings: &IssuerSettings, token_exchange: bool) -> Self {
        let scopes = settings.resources.iter().fold(ScopeSet::default(), |all, one| all.union(&one.scopes));
        let mut signing: Vec<_> = settings.resources.iter().map(|one| settings.algorithm_of(one)).collect();
        signing.sort_unstable();
        signing.dedup();
        let offer = Offer {
            scopes: &scopes,
            registration: !matches!(settings.registration, Registration::Off),
            client_documents: true,
            token_exchange,
            signing: &signing,
        };
        let described = |known: &ProtectedResource| Described {
            authority: authority_of(&known.resource.url()),
            paths: resource_metadata_paths(&known.resource),
            document: written(&ResourceMetadata::new(
                &known.resource,
                &settings.url,
                &known.scopes,
                known.name.as_deref(),
            )),
        };
        Self {
            server: written(&ServerMetadata::new(&settings.url, offer)),
            resources: settings.resources.iter().map(described).collect(),
        }
    }

    /// Every path under which some resource's document is looked for.
    pub(crate) fn resource_paths(&self) -> BTreeSet<&str> {
        self.resources.iter().flat_map(|one| &one.paths).map(String::as_str).collect()
    }

    /// The document that is meant by `path` on `host`: a resource's own path says it better than the root that it
    /// shares. Where two are meant alike there is none: the wrong one would lead clients astray.
    fn of_resource(&self, path: &str, host: Option<&str>) -> Option<&Bytes> {
        let rank = |one: &Described| one.paths.iter().position(|known| known == path);
        let there: Vec<_> = self.resources.iter().filter_map(|one| Some((rank(one)?, one))).collect();
        let is_here = |one: &Described| host.is_some_and(|host| one.authority.eq_ignore_ascii_case(host));
        let here: Vec<_> = there.iter().filter(|(_, one)| is_here(one)).copied().collect();
        let meant = if here.is_empty() { there } else { here };
        let best = meant.iter().map(|(rank, _)| *rank).min()?;
        let mut best = meant.into_iter().filter(|(rank, _)| *rank == best);
        let (_, found) = best.next()?;
        best.next().is_none().then_some(&found.document)
    }
}

fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn written(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).expect("it is made of texts, lists and booleans").into()
}

/// What everybody may read, and keep for a while.
pub(crate) fn published(document: Bytes) -> Response {
    let mut response = document.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, CACHED);
    response
}

/// RFC 8414 3, OpenID Connect Discovery 1.0 section 4.
pub(crate) async fn server(issuing: Issuing) -> Response {
    published(issuing.documents.server.clone())
}

/// RFC 9728 3.
pub(crate) async fn resource(issuing: Issuing, request: Request) -> Response {
    let proxies = &issuing.issuer.settings().trusted_proxies;
    let told = Peer::of(request.extensions()).is_some_and(|peer| peer.is_trusted(proxies));
    let host = told.then(|| plain(request.headers(), &X_FORWARDED_HOST)).flatten();
    let host = host.or_else(|| plain(request.headers(), &header::HOST));
    let usual_port = |host: &'_ str| host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).map(str::to_owned);
    let host = host.map(|host| usual_port(host).unwrap_or_else(|| host.to_owned()));
    match issuing.documents.of_resource(request.uri().path(), host.as_deref()) {
        Some(document) => {
            let mut response = published(document.clone());
            // Hosts may share a path.
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("host"));
            response
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn plain<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
