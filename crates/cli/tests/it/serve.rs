//! Starting, refusing to start, and ending.

use std::os::unix::fs::PermissionsExt as _;

use crate::home::Home;

#[test]
fn a_fresh_start_makes_what_it_needs_and_a_second_one_finds_it() {
    let home = Home::new();
    let server = home.serve();
    let first = server.banner.lines().next().unwrap().to_owned();
    assert!(first.contains("store sqlite:") && first.contains("(the default)"), "{first}");
    let key = server.admin_key().expect("the first admin key is shown");
    for (name, mode) in [("sealing.key", 0o600), ("tokenkeep.sock", 0o600), ("", 0o700)] {
        let meta = std::fs::metadata(home.data().join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
    assert!(server.end().success());
    assert!(!home.data().join("tokenkeep.sock").exists());

    let server = home.serve();
    assert_eq!(server.admin_key(), None, "it is shown once");
    let mut remote = Home::new();
    remote.env = vec![("TOKENKEEP_URL".to_owned(), format!("http://{}", server.address))];
    assert!(remote.run(&["list"]).fails(1).contains("TOKENKEEP_KEY"));
    remote.env.push(("TOKENKEEP_KEY".to_owned(), key));
    assert_eq!(remote.run(&["keys", "list", "--json"]).ok().matches("\"first admin\"").count(), 1);
    remote.env[1].1 = "tk_wrong".to_owned();
    assert!(remote.run(&["list"]).fails(1).contains("invalid_api_key"));
}

#[test]
fn a_dead_process_leaves_nothing_in_the_way() {
    let home = Home::new();
    home.serve().kill();
    assert!(home.data().join("tokenkeep.sock").exists());
    assert!(home.run(&["health"]).fails(1).contains("tokenkeep serve"));
    let server = home.serve();
    assert!(home.run(&["health"]).ok().starts_with("ready"));
    assert!(home.run(&["store", "ping"]).ok().contains("answers"));
    assert!(home.run(&["doctor"]).ok().contains("✓ server"));
    assert!(server.end().success());
}

#[test]
fn a_second_server_leaves_the_socket_to_the_first() {
    let home = Home::new();
    let first = home.serve();
    let second = home.serve();
    assert!(second.banner.contains("Ready") && !second.banner.contains("socket"), "{}", second.banner);
    assert!(second.end().success());
    home.run(&["health"]).ok();
    assert!(first.end().success());
}

#[test]
fn what_cannot_be_right_is_refused_in_a_sentence() {
    let mut home = Home::new();
    home.config = "[server]\nlisen = \"x\"".to_owned();
    let said = home.run(&["serve"]).fails(1);
    assert!(said.contains("tokenkeep.toml") && said.contains("`listen`"), "{said}");
    assert!(!home.data().exists());

    home.config.clear();
    home.env = vec![("TOKEN_STORE".to_owned(), "redis".to_owned())];
    assert!(home.run(&["serve"]).fails(1).contains("TOKEN_STORE=redis needs REDIS_URL"));

    home.env.clear();
    home.serve().end();
    std::fs::rename(home.data().join("sealing.key"), home.path().join("key")).unwrap();
    let said = home.run(&["serve", "--listen", "127.0.0.1:0"]).fails(1);
    assert!(said.contains("is missing") && !home.data().join("sealing.key").exists(), "{said}");

    let other = home.run(&["secret", "sealing-key"]).ok();
    home.env = vec![("TOKENKEEP__SEALING__KEY".to_owned(), other.trim().to_owned())];
    let said = home.run(&["serve", "--listen", "127.0.0.1:0"]).fails(1);
    assert!(said.contains("wrong sealing key") && !said.contains(other.trim()), "{said}");

    home.env =
        vec![("TOKENKEEP__SEALING__KEY_COMMAND".to_owned(), format!("cat {}", home.path().join("key").display()))];
    assert!(home.serve().end().success());
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let home = Home::new();
    for arguments in [
        &["nonsense"][..],
        &["token"],
        &["token", "google/a/b", "--subject", "c"],
        &["token", "Google"],
        &["forget", "nobody"],
        &["exec", "--connection", "a", "--connection", "b", "--env", "A", "--", "true"],
    ] {
        home.run(arguments).fails(2);
    }
    assert!(home.run(&["list"]).fails(1).contains("tokenkeep serve"));
}

#[test]
fn some_commands_need_no_server() {
    let mut home = Home::new();
    assert!(home.run(&["providers", "list", "microsoft"]).ok().contains("microsoft"));
    assert!(home.run(&["providers"]).ok().lines().count() > 100);
    assert!(home.run(&["providers", "show", "google"]).ok().contains("https://"));
    assert!(home.run(&["providers", "show", "nobody"]).fails(1).contains("nobody"));
    assert!(home.run(&["config", "example"]).ok().contains("[server]"));
    assert!(home.run(&["secret", "api-key"]).ok().starts_with("tk_"));
    assert_ne!(home.run(&["secret", "random"]).ok(), home.run(&["secret", "random"]).ok());
    assert!(home.run(&["config", "check"]).ok().contains("valid"));
    home.config =
        "[[integration]]\nid = \"google\"\nclient_id = \"x\"\nclient_secret_file = \"/nonexistent\"".to_owned();
    assert!(home.run(&["config", "check"]).fails(1).contains("/nonexistent"));
    assert!(home.run(&["doctor"]).code == 1);
}

#[test]
#[cfg(target_os = "linux")]
fn no_core_dump_can_be_made_of_it() {
    let home = Home::new();
    let server = home.serve();
    let limits = server.proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}
