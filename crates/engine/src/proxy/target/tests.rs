use super::*;

fn hosts() -> Vec<ApiHost> {
    ["api.example.com", "uploads.example.com:8443", "http://localhost:3000"]
        .into_iter()
        .map(|host| ApiHost::parse(host).unwrap())
        .collect()
}

fn go(uri: &Uri, picked: &[&[u8]]) -> Result<String, Refusal> {
    let picked: Vec<_> = picked.iter().map(|value| HeaderValue::from_bytes(value).unwrap()).collect();
    target(&hosts(), uri, &picked).map(|(_, uri)| uri.to_string())
}

/// As a request to us, with what follows the connection in its path.
fn path(raw: &str) -> Result<String, Refusal> {
    let (path, query) = raw.split_once('?').map_or((raw, None), |(path, query)| (path, Some(query)));
    let path = path_and_query(path, query).ok_or(Refusal::Path("is none"))?;
    go(&Uri::from(path), &[])
}

fn picked(values: &[&[u8]]) -> Result<String, Refusal> {
    go(&Uri::from_static("/me"), values)
}

const API: &str = "https://api.example.com";

#[test]
fn what_is_plain_goes_there_byte_for_byte() {
    for raw in [
        "/",
        "/v1/me",
        "/v1/me/",
        "/v1/me?x=1&y=%2F..%2F&z=%0d%0a&q=100%",
        "/?",
        "/a//b",
        "/projects/group%2Fproject/repository/files/src%2Fmain.rs",
        "/a%20b/c%25d/%C3%A9/%E2%82%AC",
        "/a;v=1/b;c=2",
        "/@user/:thing/~x/!$&'()*+,=",
        "/...",
        "/.well-known/openid-configuration",
        "/a/.hidden/..name/name../x.y",
        "/a%5Cb",
        "/a%23b/c%3Fd",
        "/http://elsewhere.example/",
        "/https:%2F%2Felsewhere.example%2F",
        "/a?next=//elsewhere.example/..",
        "/user@elsewhere.example",
        "/:443/",
        "/{id}/a|b",
        "/a%252F/50%2525",
    ] {
        assert_eq!(path(raw), Ok(format!("{API}{raw}")), "{raw}");
    }
    assert_eq!(path(""), Ok(format!("{API}/")));
    assert_eq!(path("?x=1"), Ok(format!("{API}/?x=1")));
    // A fragment is never sent (RFC 9110 4.2.5).
    assert_eq!(path("/a#@elsewhere.example/b"), Ok(format!("{API}/a")));
    let long = format!("/{}", "x".repeat(60_000));
    assert_eq!(path(&long), Ok(format!("{API}{long}")));
}

#[test]
fn what_could_lead_elsewhere_goes_nowhere() {
    for raw in [
        "/..",
        "/.",
        "/../",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/a/%2e%2e/b",
        "/a/%2E%2E/b",
        "/a/.%2e/b",
        "/a/%2e/b",
        "/a%2F..%2Fb",
        "/a%2f%2e%2e%2fb",
        "/a%5C..%5Cb",
        "/a%5c%2e%2e",
        "/a/..%5Cb",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/%2e%2e;/b",
        "/a/..%3Bx/b",
        "/a/..%3Fx",
        "/a/..%23x",
        "/a/..%20/b",
        "/a/%252e%252e/b",
        "/a/%25252e%25252e/b",
        "/a%252F..%252Fb",
        "/a/%EF%BC%8E%EF%BC%8E/b",
        "/a/%E2%80%A5/b",
        "/a/%E2%80%A4./b",
        "/a%EF%BC%8F..%EF%BC%8Fb",
        "/a/%c0%ae%c0%ae/b",
        "/a%c0%af..%c0%afb",
        "/%ff",
        "//elsewhere.example/",
        "///elsewhere.example/",
        "/%2Felsewhere.example/",
        "/%2f%2felsewhere.example",
        "/%5Celsewhere.example/",
        "/%5c%5celsewhere.example/",
        "/%252Felsewhere.example/",
        "/%EF%BC%8Felsewhere.example",
        "/\\elsewhere.example/",
        "/a\\..\\b",
        "/a%0d%0aHost:%20elsewhere.example",
        "/a%0Ab",
        "/a%00",
        "/a%00.json",
        "/a%7fb",
        "/a%C2%85b",
        "/a%250d%250ab",
        "/a%",
        "/a%4",
        "/a%zz",
        "/%2525252525252e",
        "/é",
        "/\u{ff0e}\u{ff0e}/a",
        "/a\rb",
        "/a\r\nHost: elsewhere.example",
        "/a\nb",
        "/a\0b",
        "/a b",
        "/a\tb",
        "elsewhere.example/a",
        "@elsewhere.example/a",
        ":443/a",
        ".elsewhere.example/a",
        "*",
    ] {
        assert!(matches!(path(raw), Err(Refusal::Path(_))), "{raw}: {:?}", path(raw));
    }
    for length in [65_535, 100_000] {
        let long = format!("/{}", "x".repeat(length));
        assert!(path(&long).is_err());
    }
    // Whatever the nesting, looking at it takes no time to speak of.
    assert!(path(&format!("/%{}2e", "25".repeat(30_000))).is_err());
}

#[test]
fn a_header_only_picks_among_the_hosts() {
    assert_eq!(picked(&[]), Ok(format!("{API}/me")));
    assert_eq!(picked(&[b"api.example.com"]), Ok(format!("{API}/me")));
    assert_eq!(picked(&[b"API.Example.COM"]), Ok(format!("{API}/me")));
    assert_eq!(picked(&[b"api.example.com:443"]), Ok(format!("{API}/me")));
    assert_eq!(picked(&[b"uploads.example.com:8443"]), Ok("https://uploads.example.com:8443/me".to_owned()));
    assert_eq!(picked(&[b"localhost:3000"]), Ok("http://localhost:3000/me".to_owned()));
    for refused in [
        &b"elsewhere.example"[..],
        b"",
        b" ",
        b"api.example.com ",
        b"api.example.com.",
        b"api.example.com:8443",
        b"api.example.com:80",
        b"api.example.com:",
        b"uploads.example.com",
        b"api.example.com@elsewhere.example",
        b"user@api.example.com",
        b"user:password@api.example.com",
        b"api.example.com, elsewhere.example",
        b"api.example.com elsewhere.example",
        b"api.example.com/x",
        b"api.example.com?x",
        b"api.example.com#x",
        b"api.example.com\\@elsewhere.example",
        b"https://api.example.com",
        b"//api.example.com",
        b"x.api.example.com",
        b"example.com",
        b"xapi.example.com",
        b"%61pi.example.com",
        "аpi.example.com".as_bytes(),
        b"xn--pi-7kc.example.com",
        "api\u{ff0e}example\u{3002}com".as_bytes(),
        b"[::1]",
        b"127.0.0.1:3000",
        b"localhost",
        b"localhost:3000:3000",
    ] {
        assert_eq!(picked(&[refused]), Err(Refusal::Host), "{}", refused.escape_ascii());
    }
    assert_eq!(picked(&[b"api.example.com", b"elsewhere.example"]), Err(Refusal::Host));
    assert_eq!(picked(&[b"api.example.com", b"api.example.com"]), Err(Refusal::Host));
}

#[test]
fn a_url_with_a_host_names_one_of_them() {
    let url = |text: &str| text.parse().map_err(|_| Refusal::Host).and_then(|uri: Uri| go(&uri, &[]));
    assert_eq!(url("https://api.example.com/me?x=1"), Ok(format!("{API}/me?x=1")));
    assert_eq!(url("https://API.example.com:443/me"), Ok(format!("{API}/me")));
    assert_eq!(url("https://api.example.com"), Ok(format!("{API}/")));
    assert_eq!(url("http://localhost:3000/me"), Ok("http://localhost:3000/me".to_owned()));
    for refused in [
        "http://api.example.com/me",
        "ftp://api.example.com/me",
        "https://localhost:3000/me",
        "https://elsewhere.example/me",
        "https://api.example.com.elsewhere.example/me",
        "https://api.example.com./me",
        "https://api.example.com:8443/me",
        "https://api.example.com@elsewhere.example/me",
        "https://user:password@api.example.com/me",
        "https://elsewhere.example#@api.example.com/",
        "https://elsewhere.example?@api.example.com/",
        "https://elsewhere.example\\@api.example.com/",
        "https:/api.example.com/me",
        "api.example.com:443",
    ] {
        assert_eq!(url(refused), Err(Refusal::Host), "{refused}");
    }
    assert!(matches!(url("https://api.example.com/a/../b"), Err(Refusal::Path(_))));
    // Two words about the host are one too many.
    let uri = Uri::from_static("https://api.example.com/me");
    assert_eq!(go(&uri, &[b"api.example.com"]), Err(Refusal::Host));
}

#[test]
fn without_hosts_a_call_goes_nowhere() {
    assert_eq!(target(&[], &Uri::from_static("/me"), []).err(), Some(Refusal::NoHost));
    assert_eq!(target(&[], &Uri::from_static("https://api.example.com/"), []).err(), Some(Refusal::NoHost));
}
