//! Which URL of the server behind a request is meant for. Whatever could be read as another path than it looks like
//! leads nowhere: the server behind may read it differently from us.

use http::Uri;
use percent_encoding::percent_decode;
use url::{Position, Url};

/// What `asked` means behind `own`, the path that the server whose address is `upstream` has here.
pub(super) fn target(own: &str, upstream: &Url, asked: &Uri) -> Option<Uri> {
    let rest = asked.path().strip_prefix(own)?;
    if !is_plain(rest) {
        return None;
    }
    let path = match rest {
        "" => upstream.path().to_owned(),
        rest => format!("{}{rest}", upstream.path().trim_end_matches('/')),
    };
    let query = asked.query().map(|query| format!("?{query}")).unwrap_or_default();
    Uri::try_from(format!("{}{path}{query}", &upstream[..Position::BeforePath])).ok()
}

/// Where a redirect of the server behind leads when it is followed here, at `public`; `None` = elsewhere, as it stands.
pub(super) fn location(upstream: &Url, public: &Url, said: &str) -> Option<String> {
    let meant = upstream.join(said).ok().filter(|meant| meant.origin() == upstream.origin())?;
    let below = upstream.path().trim_end_matches('/');
    let rest = meant[Position::BeforePath..].strip_prefix(below)?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then(|| format!("{public}{rest}"))
}

/// Whether it is made of segments that everybody reads alike: none is empty but the last, none goes up.
fn is_plain(rest: &str) -> bool {
    let Some(below) = rest.strip_prefix('/') else { return rest.is_empty() };
    let mut segments = below.split('/').rev();
    let last = segments.next().unwrap_or_default();
    (last.is_empty() || is_name(last)) && segments.all(|segment| !segment.is_empty() && is_name(segment))
}

/// How often over something may be percent-encoded. Each time costs us as much as the first.
const DECODED_AT_MOST: usize = 4;

/// Some decode twice, some cut off what follows a `;`, and to some a backslash is a slash.
fn is_name(segment: &str) -> bool {
    let Some(name) = decoded(segment) else { return false };
    let bare = name.split(|b| *b == b';').next().unwrap_or_default();
    !matches!(bare, b"." | b"..") && !name.iter().any(|b| matches!(b, b'/' | b'\\') || b.is_ascii_control())
}

/// What is left when there is nothing more to decode.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut name = segment.as_bytes().to_vec();
    for _ in 0..DECODED_AT_MOST {
        let decoded: Vec<u8> = percent_decode(&name).collect();
        if decoded == name {
            return Some(name);
        }
        name = decoded;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(upstream: &str, asked: &str) -> Option<String> {
        let upstream = Url::parse(upstream).unwrap();
        target("/mcp", &upstream, &asked.parse().unwrap()).map(|uri| uri.to_string())
    }

    #[test]
    fn a_path_here_is_a_path_there() {
        for (upstream, asked, meant) in [
            ("http://localhost:3000/mcp", "/mcp", "http://localhost:3000/mcp"),
            ("http://localhost:3000/mcp", "/mcp/", "http://localhost:3000/mcp/"),
            ("http://localhost:3000/mcp/", "/mcp", "http://localhost:3000/mcp/"),
            ("http://localhost:3000/mcp/", "/mcp/a?b=/../c", "http://localhost:3000/mcp/a?b=/../c"),
            ("http://localhost:3000", "/mcp", "http://localhost:3000/"),
            ("http://localhost:3000", "/mcp/a/b", "http://localhost:3000/a/b"),
            ("https://h.example/x/y", "/mcp/a%20b/...;v=1", "https://h.example/x/y/a%20b/...;v=1"),
            ("http://h.example/mcp", "/mcp/100%25/%252561", "http://h.example/mcp/100%25/%252561"),
            ("http://[::1]:3000/mcp", "http://evil.example/mcp/a", "http://[::1]:3000/mcp/a"),
        ] {
            assert_eq!(of(upstream, asked).as_deref(), Some(meant), "{asked}");
        }
    }

    #[test]
    fn a_path_that_could_mean_another_leads_nowhere() {
        for hostile in [
            "/mcp/..",
            "/mcp/../admin",
            "/mcp/.",
            "/mcp/a/../../admin",
            "/mcp/%2e%2e/admin",
            "/mcp/.%2E/admin",
            "/mcp/%252e%252e/admin",
            "/mcp/%25252e%25252e/admin",
            "/mcp/..%2fadmin",
            "/mcp/..%5cadmin",
            "/mcp/a%2fb",
            "/mcp/a%5Cb",
            "/mcp/..;/admin",
            "/mcp/..;x=y/admin",
            "/mcp/..%3bx/admin",
            "/mcp//evil.example/x",
            "/mcp/a//b",
            "/mcp/%00",
            "/mcp/a%0d%0aX-User-Id:%20root",
            "/mcpx",
            "/mcp%2f..",
            "/other",
            "/",
            "/mcp/%25252561",
            &format!("/mcp/%{}", "25".repeat(15_000)),
        ] {
            assert_eq!(of("http://localhost:3000/mcp", hostile), None, "{hostile}");
        }
    }

    #[test]
    fn a_redirect_behind_is_one_here() {
        let upstream = Url::parse("http://localhost:3000/inner").unwrap();
        let public = Url::parse("https://h.example/mcp").unwrap();
        for (said, meant) in [
            ("http://localhost:3000/inner/", Some("https://h.example/mcp/")),
            ("/inner/a?b#c", Some("https://h.example/mcp/a?b#c")),
            ("/inner?x", Some("https://h.example/mcp?x")),
            ("inner", Some("https://h.example/mcp")),
            ("/innermost", None),
            ("/elsewhere", None),
            ("http://localhost:3001/inner", None),
            ("https://elsewhere.example/inner", None),
        ] {
            assert_eq!(location(&upstream, &public, said).as_deref(), meant, "{said}");
        }
    }
}
