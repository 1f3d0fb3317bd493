//! Lists that come in pages (RFC 8288), as GitHub's do.

use http::{HeaderMap, header::LINK};
use url::Url;

/// Where a list goes on that was asked for at `asked`. Only on the same origin: the token is for no other.
pub(super) fn next_page(asked: &Url, headers: &HeaderMap) -> Option<Url> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let mut links = values.flat_map(|value| value.split('<').skip(1)).filter_map(|link| link.split_once('>'));
    let (target, _) = links.find(|(_, parameters)| is_next(parameters))?;
    asked.join(target).ok().filter(|next| next.origin() == asked.origin())
}

fn is_next(parameters: &str) -> bool {
    let mut named = parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('='));
    // The first one counts (RFC 8288 3.3).
    let rel = named.find(|(name, _)| name.trim().eq_ignore_ascii_case("rel"));
    rel.is_some_and(|(_, words)| {
        words.trim().trim_matches('"').split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn it_is_what_the_server_calls_next_and_on_the_same_origin() {
        let asked: Url = "https://api.example/user/orgs?per_page=100".parse().unwrap();
        for (link, next) in [
            ("<https://api.example/orgs?page=2>; rel=\"next\"", Some("https://api.example/orgs?page=2")),
            (
                "<https://api.example/a>; rel=\"prev\", <https://api.example/c>; rel=\"next\", <https://api.example/z>; rel=\"last\"",
                Some("https://api.example/c"),
            ),
            ("</orgs?page=2>;title=\"a, b\";REL=Next", Some("https://api.example/orgs?page=2")),
            ("<?page=2>; rel=\"last next\"", Some("https://api.example/user/orgs?page=2")),
            ("<https://api.example/a,b>; rel=next", Some("https://api.example/a,b")),
            ("<https://api.example/a>; rel=\"prev\"; rel=\"next\"", None),
            ("<https://api.example/a>; rel=\"nextish\"", None),
            ("<https://api.example/a>", None),
            ("<https://evil.example/orgs?page=2>; rel=\"next\"", None),
            ("<http://api.example/orgs?page=2>; rel=\"next\"", None),
            ("<https://api.example:8443/orgs>; rel=\"next\"", None),
            ("<//evil.example/orgs>; rel=\"next\"", None),
            ("<https://>; rel=\"next\"", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(LINK, HeaderValue::from_str(link).unwrap())]);
            assert_eq!(next_page(&asked, &headers).as_ref().map(Url::as_str), next, "{link}");
        }
        assert_eq!(next_page(&asked, &HeaderMap::new()), None);
    }
}
