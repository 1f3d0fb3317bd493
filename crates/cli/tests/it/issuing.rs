//! The authorization server, run from the terminal.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::home::{Home, browse_with};

/// With an issuer for one resource, and a client in the configuration.
fn issuing() -> Home {
    let mut home = Home::new();
    r#"
        [issuer]
        [[issuer.upstream]]
        provider = "local"
        [[issuer.resource]]
        url = "https://mcp.example.com/mcp"
        scopes = ["mcp"]
        [[client]]
        client_id = "configured"
        client_secret_file = "client-secret"
        name = "Configured"
    "#
    .clone_into(&mut home.config);
    std::fs::write(home.path().join("client-secret"), "configured-client-secret\n").unwrap();
    home
}

fn json(home: &Home, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    serde_json::from_str(&home.run(&arguments).ok()).unwrap()
}

/// Asks `/token` with the client credentials grant.
fn token(server: &crate::home::Server, id: &str, secret: &str) -> (u16, Value) {
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")));
    let url = format!("http://{}/token", server.address);
    let page = browse_with("POST", &url, &[("Authorization", &basic)], &[], "grant_type=client_credentials");
    (page.status, serde_json::from_str(&page.body).unwrap_or_default())
}

/// Whether the token still counts, as its resource is told.
fn is_active(server: &crate::home::Server, token: &str) -> bool {
    let url = format!("http://{}/verify", server.address);
    let bearer = format!("Bearer {token}");
    let status = browse_with("GET", &url, &[("Authorization", &bearer)], &[], "").status;
    assert!(status == 200 || status == 401, "{status}");
    status == 200
}

#[test]
fn clients_are_made_shown_changed_and_removed() {
    let home = issuing();
    let server = home.serve();
    assert!(server.banner.contains("issues as   http://localhost:"), "{}", server.banner);
    let listed = home.run(&["clients"]).ok();
    assert!(listed.contains("configured") && listed.contains("config"), "{listed}");
    assert_eq!(token(&server, "configured", "configured-client-secret").0, 200);

    let made = json(&home, &["clients", "create", "--name", "TEST one", "--scope", "mcp"]);
    let (id, secret) = (made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    assert_eq!(made["grant_types"], serde_json::json!(["client_credentials"]));
    assert_eq!(token(&server, id, secret).0, 200);
    let shown = home.run(&["clients", "show", id]).ok();
    assert!(shown.contains("TEST one") && shown.contains("client_secret_basic") && !shown.contains(secret), "{shown}");

    // What is not named stays.
    let changed = home.run(&["clients", "update", id, "--name", "TEST two"]).ok();
    assert!(changed.contains("TEST two") && changed.contains("scope         mcp"), "{changed}");
    assert_eq!(token(&server, id, secret).0, 200);

    assert!(home.run(&["clients", "rotate-secret", id]).fails(1).contains("--yes"));
    let rotated = home.run(&["clients", "rotate-secret", id, "--yes"]);
    let new = rotated.out.lines().find_map(|line| line.strip_prefix("client_secret  ")).unwrap();
    assert!(rotated.err.contains("shown once"));
    assert_eq!((token(&server, id, secret).0, token(&server, id, new).0), (401, 200));

    let public = ["clients", "create", "--id", "app", "--auth-method", "none", "--redirect-uri", "http://127.0.0.1/cb"];
    assert_eq!(home.run(&public).ok().trim(), "client_id      app");
    assert!(home.run(&public).fails(1).contains("already_there"));
    assert_eq!(json(&home, &["clients", "list", "--origin", "api"]).as_array().unwrap().len(), 2);
    assert_eq!(json(&home, &["clients", "list", "--limit", "1"]).as_array().unwrap().len(), 1);

    // Those of a test, all at once, after a look.
    let dry = home.run(&["clients", "delete", "--name", "test*", "--dry-run"]).ok();
    assert!(dry.contains("TEST two"), "{dry}");
    let dry = json(&home, &["clients", "delete", "--name", "test*", "--dry-run"]);
    assert_eq!(dry.as_array().unwrap().iter().map(|client| &client["client_id"]).collect::<Vec<_>>(), [id]);
    assert_eq!(token(&server, id, new).0, 200);
    assert!(home.run(&["clients", "delete", "--name", "test*"]).fails(1).contains("--yes"));
    assert!(home.run(&["clients", "delete", "--name", "test*", "--yes"]).ok().contains("0 grants ended"));
    assert_eq!(token(&server, id, new).0, 401);
    assert!(home.run(&["clients", "delete", "--name", "test*", "--yes"]).err.contains("No client"));
    assert!(home.run(&["clients", "delete", "app", "--yes"]).ok().contains("app: removed"));
    assert!(home.run(&["clients", "show", "app"]).fails(1).contains("client_not_found"));
    assert!(home.run(&["clients", "delete", "configured", "--yes"]).fails(1).contains("managed_by_config"));
    home.run(&["clients", "delete"]).fails(2);
    home.run(&["clients", "delete", "app", "--name", "x"]).fails(2);
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_in_the_log() {
    let home = issuing();
    let server = home.serve();
    std::fs::write(home.path().join("chosen"), "chosen-by-the-operator\n").unwrap();
    let made = home.run(&["clients", "create", "--id", "backend", "--secret-file", "chosen"]);
    assert!(!made.err.contains("shown once") && !made.out.contains("chosen-by"), "{}{}", made.out, made.err);
    assert_eq!(token(&server, "backend", "chosen-by-the-operator").0, 200);
    let made = json(&home, &["clients", "create", "--name", "drawn"]);
    let drawn = made["client_secret"].as_str().unwrap().to_owned();
    let (_, answer) = token(&server, made["client_id"].as_str().unwrap(), &drawn);
    let access_token = answer["access_token"].as_str().unwrap().to_owned();
    assert!(server.end().success());
    let log = home.log();
    assert!(log.contains("client_created"), "the log is at its most talkative");
    for secret in [drawn.as_str(), &access_token, "chosen-by-the-operator", "configured-client-secret"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn a_token_is_taken_back_by_its_name() {
    let home = issuing();
    let server = home.serve();
    let (_, answer) = token(&server, "configured", "configured-client-secret");
    let access_token = answer["access_token"].as_str().unwrap();
    assert!(is_active(&server, access_token));
    let claims = access_token.split('.').nth(1).unwrap();
    let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap();
    let jti = serde_json::from_slice::<Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned();
    assert!(home.run(&["grants", "revoke", "--jti", &jti]).fails(1).contains("--yes"));
    assert!(is_active(&server, access_token));
    assert!(home.run(&["grants", "revoke", "--jti", &jti, "--yes"]).ok().contains("ended"));
    assert!(!is_active(&server, access_token));
    assert!(home.run(&["grants", "show", "--jti", &jti]).fails(1).contains("access_token_not_found"));
    assert!(home.run(&["grants"]).err.contains("No grants"));
    assert_eq!(json(&home, &["grants", "stats"])["clients"], 1);
    assert!(home.run(&["grants", "purge", "--dry-run"]).ok().contains("nothing was removed"));
    assert_eq!(json(&home, &["grants", "purge"])["dry_run"], false);
    assert!(home.run(&["grants", "revoke", "--subject", "x|1", "--yes"]).ok().contains("0 grants ended"));
    for wrong in [&["grants", "revoke"][..], &["grants", "show"], &["grants", "revoke", "--jti", "a", "--client", "b"]]
    {
        home.run(wrong).fails(2);
    }
}

#[test]
fn signing_keys_are_rotated_and_what_they_signed_stays_good() {
    let home = issuing();
    let server = home.serve();
    let (_, answer) = token(&server, "configured", "configured-client-secret");
    let access_token = answer["access_token"].as_str().unwrap();
    assert_eq!(json(&home, &["keys", "signing"]).as_array().unwrap().len(), 2);
    let rotated = home.run(&["keys", "signing", "rotate", "--algorithm", "ES256"]).ok();
    assert!(rotated.contains("retiring") && rotated.contains("active") && rotated.contains("next"), "{rotated}");
    assert!(is_active(&server, access_token));
    let early = home.run(&["keys", "signing", "rotate"]).fails(1);
    assert!(early.contains("some caches lack the key that would sign next; wait"), "{early}");
    assert!(home.run(&["keys", "signing", "rotate", "--algorithm", "RS256"]).fails(1).contains("RS256"));
}

#[test]
fn where_nothing_is_issued_it_says_so() {
    let home = Home::new();
    let _server = home.serve();
    assert!(home.run(&["clients"]).fails(1).contains("[issuer]"));
    assert!(home.run(&["grants", "stats"]).fails(1).contains("no_issuer"));
}

#[test]
fn sessions_are_issued_listed_shown_and_ended() {
    let mut home = Home::new();
    "[sessions]\nenabled = true\n".clone_into(&mut home.config);
    let server = home.serve();
    let key = server.admin_key().unwrap();
    let issue = |subject: &str| {
        let body = format!(
            r#"{{"subject":"{subject}","email":"{subject}@example.com","provider":"google","tokens":{{"access_token":"ya29.{subject}","expires_in":3600}}}}"#
        );
        let url = format!("http://{}/v1/sessions", server.address);
        let headers = [("Authorization", &*format!("Bearer {key}")), ("Content-Type", "application/json")];
        let page = browse_with("POST", &url, &headers, &[], &body);
        assert_eq!(page.status, 201, "{}", page.body);
        serde_json::from_str::<Value>(&page.body).unwrap()
    };
    let upstream = |session: &Value| {
        let url = format!("http://{}/v1/sessions/upstream-token", server.address);
        let bearer = format!("Bearer {}", session["access_token"].as_str().unwrap());
        browse_with("POST", &url, &[("Authorization", &bearer)], &[], "").status
    };
    assert!(home.run(&["sessions"]).err.contains("No sessions"));
    let (alice, bob) = (issue("alice"), issue("bob"));
    let id = alice["session_id"].as_str().unwrap();
    let listed = home.run(&["sessions", "list"]).ok();
    assert!(listed.contains(id) && listed.contains("google/_default/bob") && !listed.contains("ya29"), "{listed}");
    assert_eq!(json(&home, &["sessions", "list", "--subject", "alice"]).as_array().unwrap().len(), 1);
    let shown = home.run(&["sessions", "show", id]).ok();
    assert!(shown.contains("alice@example.com") && shown.contains("google/_default/alice"), "{shown}");
    assert_eq!(json(&home, &["sessions", "stats"])["active_tokens"], 2);
    assert!(home.run(&["sessions", "revoke", id]).fails(1).contains("--yes"));
    assert_eq!((upstream(&alice), upstream(&bob)), (200, 200));
    assert!(home.run(&["sessions", "revoke", id, "--yes"]).ok().contains("1 session ended"));
    assert_eq!((upstream(&alice), upstream(&bob)), (401, 200));
    assert_eq!(json(&home, &["sessions", "revoke", "--subject", "bob", "--yes"])["revoked"], 1);
    assert_eq!(upstream(&bob), 401);
    assert!(home.run(&["sessions", "cleanup"]).ok().contains("0 dead"));
    home.run(&["sessions", "revoke"]).fails(2);
    assert!(server.end().success());
    let log = home.log();
    for session in [&alice, &bob] {
        assert!(!log.contains(session["access_token"].as_str().unwrap()), "a token is in the log");
    }
    assert!(log.contains("session_issued") && !log.contains("ya29"));
}
