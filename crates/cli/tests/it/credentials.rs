//! Providers without OAuth, from the terminal.

use std::fmt::Write as _;

use crate::home::{Home, provider};
use tokenkeep_testkit::{Config, FakeProvider};

async fn home() -> (FakeProvider, Home) {
    let accounts = [("acme".to_owned(), " s3cret".to_owned())].into();
    let provider = provider(Config { accounts, ..Config::default() }).await;
    let mut home = Home::with(&provider);
    let login = provider.url("/login");
    write!(
        home.config,
        "\n[[provider]]\nid = \"stakes\"\nkind = \"login\"\ndefault_lifetime = 3600\n\
         login = {{ url = \"{login}\", body = \"json\", token = \"/Authorization\", token_prefix = \"Bearer \" }}\n\
         [[provider]]\nid = \"keyed\"\nkind = \"api_key\"\n"
    )
    .expect("a text takes whatever is written to it");
    (provider, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_tried_stored_and_brings_tokens() {
    let (provider, home) = home().await;
    let server = home.serve();
    let username = ["--username", "acme", "--password-stdin"];
    let try_out = |what: &'static str| [&["credentials", what, "stakes", "--tenant", "acme"][..], &username].concat();
    assert!(home.feed(&try_out("test"), " s3cret\n").ok().contains("taken"));
    assert!(home.feed(&try_out("test"), "CANARY\n").fails(1).contains("invalid_credentials"));
    let token = home.feed(&try_out("login"), " s3cret").ok();
    assert!(provider.is_access_live(token.trim()));
    let json = home.feed(&[&try_out("login")[..], &["--json"]].concat(), " s3cret\n").ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["token_type"], "Bearer");
    assert!(home.run(&["list"]).err.contains("No connections"));

    let put = |more: &[&'static str]| [&["put", "stakes", "--tenant", "acme"][..], &username, more].concat();
    assert!(home.feed(&put(&["--login"]), "CANARY").fails(1).contains("invalid_credentials"));
    assert!(home.run(&["status", "stakes/acme/_default"]).fails(1).contains("connection_not_found"));
    let file = home.path().join("password");
    std::fs::write(&file, " s3cret\r\n").unwrap();
    let file = file.to_str().unwrap();
    let from_file = ["put", "stakes/acme/_default", "--username", "acme", "--password-file", file, "--ttl", "1200"];
    home.run(&from_file).ok();
    let token = home.run(&["token", "stakes/acme/_default"]).ok();
    assert!(provider.is_access_live(token.trim()));
    assert!(home.run(&["status", "stakes/acme/_default"]).ok().contains("credentials"));

    drop(server);
    assert!(!home.log().contains("CANARY") && !home.log().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_the_token() {
    let (_provider, home) = home().await;
    let _server = home.serve();
    assert!(home.feed(&["put", "keyed", "--api-key-stdin"], "sk-1\n").ok().contains("active"));
    assert_eq!(home.run(&["token", "keyed"]).ok().trim(), "sk-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_said() {
    let (_provider, home) = home().await;
    let _server = home.serve();
    assert!(home.run(&["put", "stakes", "--username", "acme"]).fails(1).contains("--password-stdin"));
    assert!(home.run(&["credentials", "test", "stakes"]).fails(1).contains("--username"));
    assert!(home.feed(&["put", "fake", "--login"], "{}").fails(1).contains("--username"));
    home.run(&["put", "stakes", "--username", "acme", "--api-key-stdin"]).fails(2);
    home.run(&["put", "stakes", "--password-stdin"]).fails(2);
}
