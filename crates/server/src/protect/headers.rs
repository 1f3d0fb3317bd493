//! What the server behind is told, and what it may say.
//!
//! It believes what we say of the user, so nothing of that kind gets past us. It need not know of origins, cookies and
//! browsers: who comes has shown a token, which no page can make a browser show.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokenkeep_engine::proxy::strip_hop_by_hop;
use url::{Position, Url};

use super::MCP_SESSION_ID;
use crate::peer::X_FORWARDED_FOR;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What a message asks for, beside the message itself.
const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// Asks proxies in front of us not to hold events back (nginx).
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a client cannot say of itself. Servers behind CGI-like interfaces take `_` for `-`, so it is compared as such.
const SPOOFS: [&str; 5] = ["x-user-", "x-auth-", "x-forwarded-", "x-original-", "x-tokenkeep-"];

/// What is between the client and us: its credentials, its browser, and how the message travels.
const OURS: [&str; 13] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "host",
    "origin",
    "referer",
    "forwarded",
    "x-real-ip",
    "remote-user",
    "x-remote-user",
    "expect",
    "content-length",
    "alt-used",
];

/// What concerns all of our origin, of which the server behind is a part.
const OF_THE_ORIGIN: [HeaderName; 5] = [
    header::SET_COOKIE,
    header::ALT_SVC,
    header::STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("service-worker-allowed"),
];

/// Leaves what the server behind may be told by a client.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    let refused: Vec<HeaderName> = headers.keys().filter(|name| is_withheld(name)).cloned().collect();
    for name in refused {
        headers.remove(name);
    }
}

/// Leaves nothing that could be taken for `name`.
pub(super) fn remove_alike(headers: &mut HeaderMap, name: &HeaderName) {
    let alike: Vec<HeaderName> = headers.keys().filter(|other| folded(other) == folded(name)).cloned().collect();
    for name in alike {
        headers.remove(name);
    }
}

fn folded(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

fn is_withheld(raw: &HeaderName) -> bool {
    let name = folded(raw);
    let begins = |prefix: &str| name.starts_with(prefix);
    OURS.contains(&name.as_str())
        // Only by its own name was it asked whose session that is.
        || (name == MCP_SESSION_ID.as_str() && *raw != MCP_SESSION_ID)
        || SPOOFS.iter().copied().any(begins)
        || begins("sec-fetch-")
        || begins("access-control-")
}

/// Says where the client is, and where it thinks that it speaks to.
pub(super) fn put_forwarded(headers: &mut HeaderMap, client: Option<IpAddr>, public: &Url) {
    let text = |text: &str| HeaderValue::from_str(text).ok();
    let said = [
        (X_FORWARDED_FOR, client.and_then(|address| text(&address.to_string()))),
        (X_FORWARDED_PROTO, text(public.scheme())),
        (X_FORWARDED_HOST, text(&public[Position::BeforeHost..Position::BeforePath])),
    ];
    headers.extend(said.into_iter().filter_map(|(name, value)| Some((name, value?))));
}

/// Leaves what the server behind may say to a client.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in &OF_THE_ORIGIN {
        headers.remove(name);
    }
    // Who may read the answer is ours to say.
    let of_browsers: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in of_browsers {
        headers.remove(name);
    }
}

/// Whether a client asks to listen, for as long as it likes: by `GET`, and since MCP's revision of 2026-07-28 by a
/// `POST` that says so.
pub(super) fn is_to_listen(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET || headers.get(MCP_METHOD).is_some_and(|named| named == "subscriptions/listen")
}

/// Whether it is a stream of events, which may never end; then whoever is in front of us is told, too.
pub(super) fn is_event_stream(headers: &mut HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"));
    if is {
        headers.entry(X_ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
    }
    is
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(names: &[&'static str]) -> Vec<String> {
        let headers = names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
        let mut headers: HeaderMap = headers.collect();
        strip_request(&mut headers);
        headers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn nobody_says_who_they_are_themselves() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-user-id",
            "x_user_id",
            "x-user_name",
            "x-auth-scope",
            "x-auth-token",
            "x-auth-request-user",
            "x-forwarded-for",
            "x-forwarded-user",
            "x_forwarded_host",
            "x-original-url",
            "x-real-ip",
            "forwarded",
            "remote-user",
            "remote_user",
            "x-tokenkeep-host",
            "host",
            "origin",
            "sec-fetch-site",
            "expect",
            "content-length",
            "access-control-request-method",
            "connection",
            "upgrade",
            "te",
            "transfer-encoding",
            "mcp_session_id",
            "mcp-session_id",
        ] {
            assert!(left(&[name]).is_empty(), "{name}");
        }
    }

    #[test]
    fn what_mcp_needs_gets_through() {
        let needed = [
            "mcp-session-id",
            "mcp-protocol-version",
            "mcp-method",
            "last-event-id",
            "accept",
            "content-type",
            "user-agent",
            "traceparent",
            "x-request-id",
        ];
        assert_eq!(left(&needed).len(), needed.len());
    }

    #[test]
    fn the_server_behind_speaks_for_itself_only() {
        let mut headers = HeaderMap::new();
        for name in
            ["set-cookie", "strict-transport-security", "access-control-allow-origin", "x-own", "mcp-session-id"]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        strip_response(&mut headers);
        let left: std::collections::BTreeSet<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["mcp-session-id", "x-own"].into());
    }
}
