use super::*;
use crate::{environment::Environment, serve::issuer};

const HUB: &str = "[[integration]]\nprovider = \"github\"\nclient_id = \"c\"\nclient_secret = \"s\"\n";

fn load(text: &str) -> Result<(Vec<Protected>, Option<IssuerSettings>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), &Environment::default())?;
    let public_url = config.public_url(config.server.listen)?;
    let settings = issuer::settings(&config, &public_url)?;
    Ok((read(&config, &public_url)?.into_iter().map(|told| told.server).collect(), settings))
}

fn error(text: &str) -> String {
    format!("{:#}", load(text).map(drop).expect_err(text))
}

fn server(path: &str, more: &str) -> String {
    format!("[[protect]]\npath = \"{path}\"\nupstream = \"http://localhost:3000/mcp\"\n{more}\n")
}

#[test]
fn a_server_is_a_resource_and_brings_an_issuer_along() {
    let text = format!("[server]\npublic_url = \"https://h.example\"\n{HUB}{}", server("/mcp", "scopes = [\"mcp\"]"));
    let (servers, settings) = load(&text).unwrap();
    let settings = settings.unwrap();
    assert_eq!(settings.url.as_str(), "https://h.example");
    let resource = settings.only_resource().unwrap();
    assert_eq!((resource.resource.as_str(), resource.scopes.to_string()), ("https://h.example/mcp", "mcp".to_owned()));
    assert!(!resource.needs_upstream);
    assert_eq!(settings.upstreams.len(), 1, "at the only integration there is");
    assert_eq!(servers[0].resource, resource.resource);
    assert_eq!(servers[0].upstream.as_str(), "http://localhost:3000/mcp");
    assert!(load(HUB).unwrap().1.is_none());
}

#[test]
fn each_server_has_its_own_place_to_sign_in() {
    let google = HUB.replace("github", "google");
    let (one, other) = (server("/a", "provider = \"github\""), server("/b", "provider = \"google\""));
    let settings = load(&format!("{HUB}{google}{one}{other}")).unwrap().1.unwrap();
    let places = |path: &str| {
        let resource = format!("http://localhost:7420{path}").parse().unwrap();
        settings.upstreams_of(&resource).to_vec()
    };
    assert!(settings.upstreams.is_empty());
    assert_eq!(places("/a"), [Upstream::Integration("github".parse().unwrap())]);
    assert_eq!(places("/b"), [Upstream::Integration("google".parse().unwrap())]);
    // A third that says nothing would be anybody's guess.
    let said = error(&format!("{HUB}{google}{one}{other}{}", server("/c", "")));
    assert!(said.contains("[[issuer.upstream]]"), "{said}");
    let local = load(&server("/mcp", "provider = \"local\"")).unwrap().1.unwrap();
    assert_eq!(local.resources[0].upstreams, [Upstream::LocalAdministrator]);
    let far = format!("[server]\npublic_url = \"https://h.example\"\n{}", server("/mcp", "provider = \"local\""));
    assert!(error(&far).contains("allow_local_sign_in"));
}

#[test]
fn what_is_handed_on_must_be_there() {
    let forward = |word: &str| server("/mcp", &format!("provider = \"github\"\nforward_token = \"{word}\""));
    for (word, forward_as, needed) in [
        ("none", Forward::Nothing, false),
        ("authorization", Forward::Authorization, true),
        ("X-GitHub-Token", Forward::Header(HeaderName::from_static("x-github-token")), true),
    ] {
        let (servers, settings) = load(&format!("{HUB}{}", forward(word))).unwrap();
        assert_eq!(servers[0].forward, forward_as);
        assert_eq!(settings.unwrap().resources[0].needs_upstream, needed);
    }
    for taken in ["host", "Cookie", "x-user-id", "mcp-session-id", "a b", ""] {
        assert!(error(&format!("{HUB}{}", forward(taken))).contains("`forward_token`"), "{taken}");
    }
    let local = server("/mcp", "provider = \"local\"\nforward_token = \"authorization\"");
    assert!(error(&local).contains("no token at a provider"));
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    for path in ["mcp", "/", "/mcp/", "//mcp", "/a/../b", "/a//b", "/{x}", "/a b", "/a%2fb", "/*"] {
        let said = error(&format!("{HUB}{}", server(path, "")));
        assert!(said.contains("`path`") && said.contains("number 1") && said.contains("t.toml"), "{path}: {said}");
    }
    for path in ["/v1", "/v1/mcp", "/authorize", "/oauth/mcp", "/.well-known/mcp", "/healthz"] {
        assert!(error(&format!("{HUB}{}", server(path, ""))).contains("tokenkeep's own"), "{path}");
    }
    let upstream = |url: &str| format!("{HUB}[[protect]]\npath = \"/mcp\"\nupstream = \"{url}\"\n");
    for url in [
        "localhost:3000",
        "ftp://localhost",
        "http://u:p@localhost:3000",
        "http://localhost:3000/?a",
        "http://localhost:3000/#a",
        "http://8.8.8.8/mcp",
        "http://[2606:4700::1]/mcp",
        "http://169.254.169.254/latest",
    ] {
        let said = error(&upstream(url));
        assert!(said.contains("`upstream`") && !said.contains("u:p"), "{url}: {said}");
    }
    for url in
        ["http://10.0.0.7:3000", "http://server.internal/mcp", "https://8.8.8.8/mcp", "http://[fd00::1]:3000/mcp"]
    {
        assert!(load(&upstream(url)).is_ok(), "{url}");
    }
    assert!(load(&format!("[transport]\nallow_plain_http = true\n{}", upstream("http://8.8.8.8/mcp"))).is_ok());
    assert!(error(&upstream("http://localhost:7420/x")).contains("this server itself"));
    assert!(error(&format!("{HUB}{}{}", server("/mcp", ""), server("/mcp", ""))).contains("another [[protect]]"));
    assert!(error(&server("/mcp", "scopes = [\"a b\"]\nprovider = \"local\"")).contains("`scopes`"));
    assert!(error("[[protect]]\nupstream = \"http://localhost:1\"").contains("`path` is missing"));
    assert!(error("[[protect]]\npath = \"/mcp\"").contains("`upstream` is missing"));
    assert!(error(&server("/mcp", "")).contains("nobody could sign in"));
    let below = format!("[issuer]\nurl = \"http://localhost:7420/mcp/auth\"\n{HUB}{}", server("/mcp", ""));
    assert!(error(&below).contains("below the other"));
    let both =
        format!("{HUB}[issuer]\n[[issuer.resource]]\nurl = \"http://localhost:7420/mcp\"\n{}", server("/mcp", ""));
    assert!(error(&both).contains("twice"));
}
