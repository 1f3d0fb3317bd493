use super::*;
use crate::{environment::Environment, serve::issuer};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn load(text: &str) -> Result<Option<SessionSettings>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), &Environment::default())?;
    let public_url = config.public_url(config.server.listen)?;
    let issuer = issuer::settings(&config, &public_url)?;
    settings(&config, issuer.as_ref(), &public_url)
}

fn with(sessions: &str) -> SessionSettings {
    load(&format!("[sessions]\n{sessions}")).unwrap().expect("there are sessions")
}

fn error(text: &str) -> String {
    format!("{:#}", load(text).map(drop).expect_err(text))
}

#[test]
fn to_say_anything_is_enough() {
    let told = with("enabled = true");
    assert_eq!(told.resource.resource.as_str(), "http://localhost:7420/v1/sessions");
    assert_eq!(told.issuer.as_str(), "http://localhost:7420");
    assert_eq!(told.resource.algorithm, Some(Algorithm::Es256));
    assert!(told.resource.signing_secret.is_none() && told.allowed_origins.is_empty());
    let seconds = [told.ttl, told.grace, told.websocket_ttl, told.refresh_token_ttl.unwrap()].map(|d| d.as_secs());
    assert_eq!(seconds, [14_400, 60, 300, 2_592_000]);
    assert!(with("refresh_token_ttl = 0").refresh_token_ttl.is_none());
}

#[test]
fn where_nothing_is_said_there_are_none() {
    assert!(load("").unwrap().is_none());
    assert!(load("[sessions]\n").unwrap().is_none());
    assert!(load("[sessions]\nenabled = false\nttl = 600").unwrap().is_none());
}

#[test]
fn a_shared_key_is_chosen_for_nothing_else() {
    let hs256 = |more: &str| format!("{more}\n[sessions]\nalg = \"HS256\"\nsigning_secret = \"{KEY}\"");
    assert!(load(&hs256("")).unwrap().unwrap().resource.signing_secret.is_some());
    let supabase = "[[integration]]\nprovider = \"supabase-auth\"\nclient_id = \"-\"";
    let params = |key: &str| format!("{supabase}\nparams = {{ project_ref = \"x\", publishable_key = \"{key}\" }}");
    assert!(load(&hs256(&params("another"))).is_ok());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let with_file = |entry: &str| format!("{entry}_file = {:?}", file.display().to_string());
    for (text, says) in [
        ("[sessions]\nalg = \"HS256\"".to_owned(), "HS256 needs a `signing_secret`"),
        ("[sessions]\nalg = \"HS256\"\nsigning_secret = \"0123456789abcdef\"".to_owned(), "32 bytes"),
        (format!("[sessions]\nsigning_secret = \"{KEY}\""), "goes with"),
        (format!("[sessions]\nalg = \"HS256\"\nsigning_secret = \"sb_publishable_{KEY}\""), "publishable key"),
        (format!("[sessions]\nalg = \"HS256\"\nsigning_secret = \"eyJhbGciOi.{KEY}.x\""), "publishable key"),
        (hs256(&params(KEY)), "[[integration]]"),
        (hs256(&format!("[[key]]\nname = \"a\"\nrole = \"admin\"\nsecret = \"{KEY}\"")), "a key as well"),
        (
            hs256(&format!(
                "[issuer]\nregistration = \"off\"\n[[issuer.resource]]\nurl = \"https://a.example\"\n\
                 algorithm = \"HS256\"\nsigning_secret = \"{KEY}\""
            )),
            "resource",
        ),
        (
            hs256(&with_file("[[integration]]\nprovider = \"github\"\nclient_id = \"a\"\nclient_secret")),
            "[[integration]]",
        ),
        (
            hs256(&with_file("[[integration]]\nprovider = \"google\"\nclient_id = \"a\"\nsigning_key")),
            "[[integration]]",
        ),
        (hs256(&with_file("[[key]]\nname = \"a\"\nrole = \"admin\"\nsecret")), "a key as well"),
        (
            hs256(&format!(
                "[[provider]]\nid = \"gotrue\"\ntoken_url = \"https://auth.example.com/token\"\nrotation = \
                 \"none\"\n[provider.dialect]\ntoken_headers = {{ apikey = \"{KEY}\" }}"
            )),
            "[[provider]]",
        ),
    ] {
        let said = error(&text);
        assert!(said.contains(says) && said.contains("[sessions]"), "{said}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (sessions, says) in [
        ("alg = \"none\"", "`alg`"),
        ("ttl = 59", "`ttl`"),
        ("ttl = 604801", "`ttl`"),
        ("grace = 601", "`grace`"),
        ("websocket_ttl = 0", "`websocket_ttl`"),
        ("refresh_token_ttl = 1", "`refresh_token_ttl`"),
        ("audience = \"api\"", "`audience`"),
        ("exchangers = [\"reports\"]", "`exchangers`"),
        ("issuer = \"http://tokens.example\"", "`issuer`"),
        ("allowed_origins = [\"*\"]", "`allowed_origins`"),
        ("allowed_origins = [\"https://app.example.com/\"]", "`allowed_origins`"),
        ("allowed_origins = [\"app.example.com\"]", "`allowed_origins`"),
    ] {
        let said = error(&format!("[sessions]\n{sessions}"));
        assert!(said.contains(says) && said.contains("t.toml: [sessions]"), "{said}");
    }
}

#[test]
fn beside_an_issuer_they_are_its_own() {
    let issuer = "[issuer]\nurl = \"https://auth.example.com\"\nregistration = \"off\"\n[[issuer.resource]]\nurl = \
                  \"https://mcp.example.com\"\n";
    let told = load(&format!("{issuer}[sessions]\nenabled = true")).unwrap().unwrap();
    assert_eq!(told.issuer.as_str(), "https://auth.example.com");
    let said = error(&format!("{issuer}[sessions]\naudience = \"https://mcp.example.com\""));
    assert!(said.contains("[[issuer.resource]]"), "{said}");
}
