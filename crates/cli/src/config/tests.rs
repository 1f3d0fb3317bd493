use tempfile::TempDir;

use super::*;

/// Reads `text` as the file, and `environment` over it.
fn load<const N: usize>(text: &str, environment: [(&str, &str); N]) -> Result<Config> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokenkeep.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path), &Environment::from(environment))
}

fn error<const N: usize>(text: &str, environment: [(&str, &str); N]) -> String {
    format!("{:#}", load(text, environment).expect_err(text))
}

#[test]
fn variables_go_over_the_file_and_the_file_over_the_default() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\nshutdown_patience = 7";
    let config =
        load(text, [("TOKENKEEP__SERVER__LISTEN", "127.0.0.1:2"), ("TOKENKEEP__LOG__FORMAT", "json")]).unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.shutdown_patience, 7);
    assert_eq!(config.server.max_connections, 10_000);
    assert_eq!(config.log.format, Format::Json);
}

#[test]
fn a_variable_means_what_its_key_takes() {
    use secrecy::ExposeSecret;
    let config = load(
        "",
        [
            ("TOKENKEEP__SEALING__KEY", "1234567890"),
            ("TOKENKEEP__STORE__HASH_LABELS", "true"),
            ("TOKENKEEP__CONNECT__RETURN_TO_ORIGINS", "https://a.example, https://b.example"),
            ("TOKENKEEP__CACHE__MAX_MIB", "8"),
        ],
    )
    .unwrap();
    assert_eq!(config.sealing.key.unwrap().expose_secret(), "1234567890");
    assert!(config.store.hash_labels);
    assert_eq!(config.connect.return_to_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.cache.max_mib, 8);
}

#[test]
fn an_unknown_key_names_itself_its_place_and_what_was_meant() {
    let said = error("[server]\nlisten = \"127.0.0.1:1\"\nlisen = \"x\"", []);
    assert!(said.contains("tokenkeep.toml") && said.contains("`lisen`") && said.contains("`listen`"), "{said}");

    let said = error("[server]\nlisten = \"127.0.0.1:1\"", [("TOKENKEEP__SERVER__PUBLICURL", "x")]);
    assert!(said.contains("TOKENKEEP__SERVER__PUBLICURL") && said.contains("`public_url`"), "{said}");
    assert!(!said.contains("tokenkeep.toml"), "{said}");

    let said = error("[[integration]]\nclient_id = \"x\"\nclient_sercet = \"x\"", []);
    assert!(said.contains("[[integration]]") && said.contains("`client_secret`"), "{said}");

    let said = error("[sever]\nlisten = \"x\"", []);
    assert!(said.contains("`sever`") && said.contains("`server`"), "{said}");

    let said = error("[[provider]]\nid = \"acme\"\ntoken_url = \"https://a.example\"\ntokenurl = \"x\"", []);
    assert!(
        said.contains("tokenkeep.toml") && said.contains("[[provider]] acme") && said.contains("tokenurl"),
        "{said}"
    );
}

#[test]
fn what_comes_later_is_not_passed_over() {
    for text in ["[audit]\nreads = \"each\"", "[[mirror]]\nprovider = \"x\""] {
        let said = error(text, []);
        assert!(said.contains("not in this version"), "{said}");
    }
}

#[test]
fn errors_do_not_repeat_values() {
    for text in [
        "[sealing]\nkey = SECRETVALUE",
        "[sealing]\nkey = [\"SECRETVALUE\"]",
        "[server]\nlisten = \"SECRETVALUE\"",
        "[server]\nmax_connections = \"SECRETVALUE\"",
        "[log]\nformat = \"SECRETVALUE\"",
        "[server]\nSECRETVALUE",
    ] {
        let said = error(text, []);
        assert!(!said.contains("SECRETVALUE"), "{said}");
        assert!(said.contains("tokenkeep.toml"), "{said}");
    }
    let said = error("", [("TOKENKEEP__SERVER__MAX_CONNECTIONS", "SECRETVALUE")]);
    assert!(said.contains("MAX_CONNECTIONS") && !said.contains("SECRETVALUE"), "{said}");
}

#[test]
fn a_wrong_value_names_its_key() {
    let said = error("[server]\nmax_connections = \"many\"", []);
    assert!(said.contains("`server.max_connections`"), "{said}");
    let said = error("[log]\nformat = \"xml\"", []);
    assert!(said.contains("`log.format`") && said.contains("`pretty`"), "{said}");
    let said = error("server = 1", []);
    assert!(said.contains("[server]"), "{said}");
    let said = error("[integration]\nid = \"x\"", []);
    assert!(said.contains("[[integration]]"), "{said}");
}

#[test]
fn variables_cannot_name_one_of_many() {
    let said = error("", [("TOKENKEEP__INTEGRATION__CLIENT_SECRET", "SECRETVALUE")]);
    assert!(said.contains("[[integration]]") && !said.contains("SECRETVALUE"), "{said}");
    let said = error("", [("TOKENKEEP__SERVER", "x")]);
    assert!(said.contains("SECTION__KEY"), "{said}");
}

#[test]
fn sections_below_a_section_are_checked_like_all_others() {
    let config = load("[issuer]\n[[issuer.resource]]\nurl = \"https://a.example\"\n[[issuer.resource]]", []).unwrap();
    assert_eq!(config.issuer.unwrap().resource.len(), 2);
    let said = error("[[issuer.resource]]\nurll = \"SECRETVALUE\"", []);
    assert!(said.contains("[[issuer.resource]]") && said.contains("`url`") && !said.contains("SECRET"), "{said}");
    let said = error("[issuer.resource]\nurl = \"x\"", []);
    assert!(said.contains("must be written `[[issuer.resource]]`"), "{said}");
    let said = error("", [("TOKENKEEP__ISSUER__RESOURCE", "SECRETVALUE")]);
    assert!(said.contains("[[issuer.resource]]") && !said.contains("SECRET"), "{said}");
    let config = load("", [("TOKENKEEP__ISSUER__ALLOWED_USERS", "")]).unwrap();
    assert_eq!(config.issuer.unwrap().allowed_users, Some(Vec::new()));
}

#[test]
fn own_providers_join_the_catalogue() {
    let config = load("[[provider]]\nid = \"acme\"\ntoken_url = \"https://id.acme.example/token\"", []).unwrap();
    assert!(config.catalogue.ids().contains(&"acme"));
    assert!(config.catalogue.ids().contains(&"google"));
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let missing = Config::load(Some(Path::new("/nonexistent/tokenkeep.toml")), &Environment::default()).unwrap_err();
    assert!(format!("{missing:#}").contains("/nonexistent/tokenkeep.toml"));
}

#[test]
fn the_default_data_directory_is_the_users() {
    let dir = |pairs| load("", []).unwrap().data_dir(&pairs).map(|dir| dir.display().to_string());
    assert_eq!(dir(Environment::from([("XDG_DATA_HOME", "/d"), ("HOME", "/h")])).unwrap(), "/d/tokenkeep");
    assert_eq!(dir(Environment::from([("XDG_DATA_HOME", "d"), ("HOME", "/h")])).unwrap(), "/h/.local/share/tokenkeep");
    assert!(dir(Environment::default()).unwrap_err().to_string().contains("--data-dir"));
}
