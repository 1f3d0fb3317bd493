//! Holding and serving, from the terminal, against a provider that rotates.

use crate::home::{Home, browse, provider};
use tokenkeep_core::Rotation;
use tokenkeep_testkit::{Config, FakeProvider};

/// Stores tokens of the provider for `alice`.
fn seed(home: &Home, provider: &FakeProvider) {
    let issued = provider.seed("alice");
    let tokens = serde_json::json!({
        "access_token": issued.access_token, "refresh_token": issued.refresh_token, "expires_in": 3600,
    });
    home.feed(&["put", "fake/_default/alice"], &tokens.to_string()).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_stored_served_refreshed_and_forgotten() {
    let provider = provider(Config::default()).await;
    let home = Home::with(&provider);
    let server = home.serve();
    assert!(home.run(&["list"]).err.contains("No connections"));

    let issued = provider.seed("alice");
    let tokens = format!(
        r#"{{"access_token": "{}", "refresh_token": "{}", "expires_in": 3600}}"#,
        issued.access_token,
        issued.refresh_token.as_deref().unwrap()
    );
    home.feed(&["put", "fake", "--subject", "alice"], &tokens).ok();
    assert!(
        home.feed(&["put", "fake", "--subject", "alice", "--if-absent"], &tokens).fails(1).contains("already_there")
    );
    assert_eq!(home.run(&["token", "fake", "--subject", "alice"]).ok().trim(), issued.access_token);
    assert_eq!(provider.calls(), 0);

    assert!(home.run(&["refresh", "fake/_default/alice"]).ok().contains("generation 2"));
    assert!(home.run(&["refresh", "fake/_default/alice", "--if-generation", "1"]).ok().contains("generation 2"));
    assert_eq!(provider.calls(), 1);
    let reply: serde_json::Value =
        serde_json::from_str(&home.run(&["token", "fake/_default/alice", "--json"]).ok()).unwrap();
    assert_eq!(reply["generation"], 2);
    assert!(provider.is_access_live(reply["access_token"].as_str().unwrap()));

    let listed: serde_json::Value = serde_json::from_str(&home.run(&["list", "fake", "--json"]).ok()).unwrap();
    assert_eq!(listed[0]["subject"], "alice");
    assert!(home.run(&["list"]).ok().contains("fake/_default/alice"));
    assert!(home.run(&["status", "fake/_default/alice"]).ok().starts_with("fake/_default/alice: active"));

    // A command with the token in its environment; its exit code is ours.
    let script =
        ["exec", "--connection", "fake/_default/alice", "--env", "TOKEN", "--", "sh", "-c", "echo $TOKEN; exit 7"];
    let done = home.run(&script);
    assert_eq!((done.code, done.out.trim()), (7, reply["access_token"].as_str().unwrap()));

    assert!(home.run(&["delete", "fake/_default/alice"]).fails(1).contains("--yes"));
    home.run(&["status", "fake/_default/alice"]).ok();
    home.run(&["revoke", "fake/_default/alice", "--yes"]).ok();
    assert_eq!(provider.revocations().len(), 1);
    assert!(home.run(&["token", "fake/_default/alice"]).fails(1).contains("connection_not_found"));

    home.feed(&["put", "fake/acme/bob", "--force"], r#"{"access_token": "at", "expires_in": 3600}"#).ok();
    home.run(&["forget", "acme/bob", "--yes"]).ok();
    assert!(home.run(&["list", "--json"]).ok().trim() == "[]");
    assert!(server.end().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_connects_in_a_browser_while_the_command_waits() {
    let provider = provider(Config::default()).await;
    let home = Home::with(&provider);
    let server = home.serve();
    let mut connect = home.start(&["connect", "fake", "--subject", "alice", "--no-browser"]);
    let link = connect.line_with("http://");

    let asked = browse("GET", &link, &[], "");
    assert_eq!(asked.status, 200, "{}", asked.body);
    let csrf = asked.body.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let leave = browse("POST", &link, &asked.cookies, &format!("csrf={csrf}"));
    let consent = browse("GET", &leave.location.expect(&leave.body), &[], "");
    let back = browse("GET", &consent.location.expect(&consent.body), &leave.cookies, "");
    assert!(back.body.contains("Connected"), "{}", back.body);

    let (said, status) = connect.end();
    assert!(status.success() && said.contains("fake/_default/alice: connected"), "{said}");
    let token = home.run(&["token", "fake", "--subject", "alice"]).ok();
    assert!(provider.is_access_live(token.trim()));
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end() {
    let provider = provider(Config::default()).await;
    let home = Home::with(&provider);
    let _server = home.serve();
    assert!(home.run(&["connect", "fake", "--wait", "0"]).ok().contains("/connect/"));
    let started: serde_json::Value =
        serde_json::from_str(&home.run(&["connect", "fake", "--wait", "0", "--json"]).ok()).unwrap();
    assert_eq!(started["status"], "pending");
    assert!(home.run(&["connect", "fake", "--wait", "1"]).fails(1).contains("nobody consented"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_connects_at_once() {
    let provider = provider(Config::default()).await;
    let home = Home::with(&provider);
    let _server = home.serve();
    assert!(home.run(&["connect", "machine"]).ok().contains("machine/_default/_default: connected"));
    assert!(provider.is_access_live(home.run(&["token", "machine"]).ok().trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_begins_and_is_ignored_ever_after() {
    let provider = provider(Config::default()).await;
    let mut home = Home::with(&provider);
    home.config += "[[connection]]\nprovider = \"fake\"\nsubject = \"alice\"\nrefresh_token_env = \"SEED\"";
    let seed = |subject: &str| ("SEED".to_owned(), provider.seed(subject).refresh_token.unwrap());
    home.env.push(seed("alice"));
    let server = home.serve();
    let first = home.run(&["token", "fake", "--subject", "alice"]).ok();
    assert!(provider.is_access_live(first.trim()));
    server.kill();

    // The same seed again: spent long ago, and recognised.
    let server = home.serve();
    assert!(!home.log().contains("is ignored"));
    server.kill();

    home.env = vec![seed("mallory")];
    let server = home.serve();
    assert!(home.log().contains("SEED differs"));
    assert_eq!(home.run(&["token", "fake", "--subject", "alice"]).ok(), first);
    server.kill();
    assert!(provider.spent_twice().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_does_not_rotate_is_recognised() {
    let provider = provider(Config::rotating(Rotation::None)).await;
    let mut home = Home::with(&provider);
    home.config += "[[connection]]\nprovider = \"fake\"\nrefresh_token_env = \"SEED\"";
    home.env.push(("SEED".to_owned(), provider.seed("alice").refresh_token.unwrap()));
    home.serve().kill();
    home.serve().kill();
    assert!(home.log().contains("seeded from SEED") && !home.log().contains("is ignored"), "{}", home.log());
}

/// Nothing secret is in any log line, whatever its level, nor in the database or the journal.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_where_they_belong() {
    let provider = provider(Config::default()).await;
    let mut home = Home::with(&provider);
    home.env.push(("TOKENKEEP_ADMIN_KEY".to_owned(), "tk_canary_admin_key_0123456789abcdef".to_owned()));
    let server = home.serve();
    assert_eq!(server.admin_key(), None, "one that was given is not shown");
    let issued = provider.seed("alice");
    let tokens = format!(
        r#"{{"access_token": "{}", "refresh_token": "{}", "expires_in": 3600}}"#,
        issued.access_token,
        issued.refresh_token.as_deref().unwrap()
    );
    home.feed(&["put", "fake/_default/alice"], &tokens).ok();
    home.run(&["refresh", "fake/_default/alice"]).ok();
    home.run(&["connect", "machine"]).ok();
    let key = home.run(&["keys", "create", "mailer", "--role", "reader"]).ok();
    home.env.push(("TOKENKEEP_URL".to_owned(), format!("http://{}", server.address)));
    home.env.push(("TOKENKEEP_KEY".to_owned(), key.trim().to_owned()));
    home.run(&["token", "fake/_default/alice"]).ok();
    home.feed(&["put", "fake/_default/alice"], &tokens).fails(1);
    assert!(server.end().success());

    let sealing_key = std::fs::read_to_string(home.data().join("sealing.key")).unwrap();
    let mut secrets = vec![
        issued.access_token,
        "fake-client-secret".to_owned(),
        "tk_canary_admin_key_0123456789abcdef".to_owned(),
        key.trim().to_owned(),
        sealing_key.trim().to_owned(),
    ];
    for family in provider.families() {
        secrets.extend(family.refresh_tokens.into_iter().map(|refresh| refresh.token));
    }
    secrets.extend(provider.log().into_iter().filter_map(|call| match call.outcome {
        Some(tokenkeep_testkit::Outcome::Issued(issued)) => Some(issued.access_token),
        _ => None,
    }));
    assert!(secrets.len() >= 8, "{secrets:?}");

    let mut places = vec![("the log".to_owned(), home.log().into_bytes())];
    for dir in [home.data(), home.data().join("journal")] {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let is_file = entry.file_type().unwrap().is_file();
            if is_file && entry.file_name() != "sealing.key" {
                places.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    assert!(places.len() >= 3 && home.log().contains("sqlx::query"), "the log is at its most talkative");
    for (place, content) in &places {
        for secret in &secrets {
            assert!(!content.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in {place}");
        }
    }
}

/// What has begun when the server is told to end is finished, and is there at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_is_finished_before_the_end() {
    let provider = provider(Config::default()).await;
    let home = Home::with(&provider);
    let server = home.serve();
    seed(&home, &provider);
    let gate = provider.hold_reply();
    let refresh = home.start(&["refresh", "fake/_default/alice"]);
    gate.arrived().await;
    server.tell_to_end();
    gate.release();
    assert!(server.wait().success());
    let (said, status) = refresh.end();
    assert!(status.success() && said.contains("generation 2"), "{said}");

    let _server = home.serve();
    assert!(home.run(&["status", "fake/_default/alice", "--json"]).ok().contains("\"generation\": 2"));
    assert_eq!(provider.calls(), 1);
}

/// Told twice, it does not wait.
#[tokio::test(flavor = "multi_thread")]
async fn told_again_it_ends_at_once() {
    let provider = provider(Config::default()).await;
    let home = Home::with(&provider);
    let mut server = home.serve();
    seed(&home, &provider);
    let gate = provider.hold_reply();
    let refresh = home.start(&["refresh", "fake/_default/alice"]);
    gate.arrived().await;
    // A signal that comes before the last one was heard counts as one with it.
    while server.is_there() {
        server.tell_to_end();
        tokio::task::yield_now().await;
    }
    assert_eq!(server.wait().code(), Some(1));
    assert!(!refresh.end().1.success());
}
