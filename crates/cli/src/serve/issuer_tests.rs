use super::*;
use crate::environment::Environment;

const UPSTREAM: &str = "[[integration]]\nprovider = \"github\"\nclient_id = \"c\"\nclient_secret = \"s\"\n";
const RESOURCE: &str = "[[issuer.resource]]\nurl = \"https://mcp.example.com/mcp\"\nscopes = [\"mcp\"]\n";

fn load(text: &str) -> Result<Option<IssuerSettings>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), &Environment::default())?;
    settings(&config, &config.public_url(config.server.listen)?)
}

/// A minimal configuration, with `issuer` in `[issuer]` and `more` at the end.
fn with(issuer: &str, more: &str) -> Result<IssuerSettings> {
    let text = format!("[issuer]\nurl = \"https://auth.example.com\"\n{issuer}\n{RESOURCE}{UPSTREAM}{more}");
    load(&text).map(|settings| settings.expect("there is an issuer"))
}

fn error(issuer: &str, more: &str) -> String {
    format!("{:#}", with(issuer, more).map(drop).expect_err(&format!("{issuer}\n{more}")))
}

#[test]
fn a_url_an_upstream_and_a_resource_are_enough() {
    let settings = with("", "").unwrap();
    assert_eq!(settings.url.as_str(), "https://auth.example.com");
    assert!(matches!(settings.registration, Registration::Open));
    assert_eq!((settings.access_token_ttl.as_secs(), settings.refresh_token_ttl.as_secs()), (3600, 30 * DAY));
    assert_eq!(settings.algorithm, Algorithm::Es256);
    assert_eq!(settings.upstreams, [Upstream::Integration(IntegrationId::new("github").unwrap())]);
    assert_eq!(settings.only_resource().unwrap().resource.as_str(), "https://mcp.example.com/mcp");
    assert!(settings.clients.is_empty() && settings.interaction_url.is_none());
}

#[test]
fn where_nothing_is_said_nothing_is_issued() {
    assert!(load("").unwrap().is_none());
    assert!(load("[issuer]\n").unwrap().is_none());
    let said = format!("{:#}", load("[[client]]\nclient_id = \"x\"").unwrap_err());
    assert!(said.contains("[issuer]"), "{said}");
}

#[test]
fn its_name_is_where_it_is_reached() {
    let of = |text: &str| load(&format!("{text}\n{RESOURCE}{UPSTREAM}")).map(|s| s.unwrap().url.to_string());
    assert_eq!(of("[server]\npublic_url = \"https://a.example\"").unwrap(), "https://a.example");
    assert_eq!(of("").unwrap(), "http://localhost:7420");
    assert_eq!(of("[issuer]\nurl = \"https://a.example/tokens\"").unwrap(), "https://a.example/tokens");
    let both = "[server]\npublic_url = \"https://a.example\"\n[issuer]\nurl = \"https://b.example\"";
    assert!(format!("{:#}", of(both).unwrap_err()).contains("same origin"));
    for bad in ["http://auth.example.com", "https://auth.example.com/?x", "auth.example.com", "https://A.example"] {
        let said = format!("{:#}", of(&format!("[issuer]\nurl = \"{bad}\"")).unwrap_err());
        assert!(said.contains("`url`"), "{said}");
    }
}

/// The public URL is that of the issuer where only that is said: a cookie set there must come back.
#[test]
fn the_public_url_follows_the_issuer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, "[issuer]\nurl = \"https://a.example/tokens\"").unwrap();
    let config = Config::load(Some(&path), &Environment::default()).unwrap();
    assert_eq!(config.public_url(config.server.listen).unwrap().as_str(), "https://a.example/");
}

#[test]
fn an_empty_list_names_nobody_and_an_absent_one_everybody() {
    let admitted = |text: &str| with(text, "").unwrap().admitted;
    assert_eq!(admitted("").users, None);
    assert_eq!(admitted("allowed_users = []").users, Some(BTreeSet::new()));
    let some = admitted("allowed_users = [\"github|1\"]\nallowed_email_domains = [\"Example.com\"]");
    assert!(some.users.unwrap().contains("github|1") && some.email_domains.unwrap().contains("example.com"));
    assert!(error("allowed_users = [\"\"]", "").contains("empty entry"));
    assert!(error("allowed_email_domains = [\"@a.example\"]", "").contains("`allowed_email_domains`"));
}

#[test]
fn a_name_is_somebody_at_one_provider_only() {
    let several = format!(
        "{}[[issuer.upstream]]\nprovider = \"github\"\n[[issuer.upstream]]\nprovider = \"google\"\n",
        UPSTREAM.replace("github", "google")
    );
    for (list, bare, whose) in
        [("allowed_users", "alice", "google|42"), ("allowed_organizations", "acme", "github|acme")]
    {
        let says = |name: &str| format!("{list} = [{name:?}]");
        assert!(with(&says(bare), "").is_ok(), "there is one provider only");
        assert!(error(&says(bare), &several).contains(list));
        assert!(with(&says(whose), &several).is_ok());
    }
    assert!(
        with("allowed_users = [\"alice@example.com\"]\nallowed_email_domains = [\"example.com\"]", &several).is_ok()
    );
}

#[test]
fn proxies_are_addresses_or_networks() {
    let told = with("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"]", "").unwrap();
    let trusts =
        |address: &str| told.trusted_proxies.iter().any(|net| net.contains(&address.parse::<IpAddr>().unwrap()));
    assert!(trusts("127.0.0.1") && trusts("10.1.2.3") && trusts("fd00::1"));
    assert!(!trusts("127.0.0.2") && !trusts("11.0.0.1"));
}

#[test]
fn somebody_must_be_able_to_sign_in() {
    let of = |text: &str| load(&format!("{text}\n{RESOURCE}"));
    let url = "[issuer]\nurl = \"https://auth.example.com\"\n";
    assert!(format!("{:#}", of(url).unwrap_err()).contains("nobody could sign in"));
    assert!(of(&format!("{url}interaction_url = \"https://app.example.com/in\"")).is_ok());
    assert!(of(&format!("{url}registration = \"off\"")).is_ok(), "backends alone need nobody");

    let second = UPSTREAM.replace("github", "google");
    assert!(error("", &second).contains("[[issuer.upstream]]"));
    let named = with("", &format!("{second}[[issuer.upstream]]\nprovider = \"google\"")).unwrap();
    assert_eq!(named.upstreams, [Upstream::Integration(IntegrationId::new("google").unwrap())]);
    let twice = "[[issuer.upstream]]\nprovider = \"github\"\n".repeat(2);
    assert!(error("", &twice).contains("twice"));
    let machine = "[[integration]]\nid = \"m\"\nclient_id = \"c\"\ngrant = \"client_credentials\"\n\
                   [[issuer.upstream]]\nprovider = \"m\"";
    assert!(error("", machine).contains("nobody can sign in at m"));
}

#[test]
fn an_admin_key_signs_in_on_this_machine_only() {
    let local = "[[issuer.upstream]]\nprovider = \"local\"";
    assert!(error("", local).contains("allow_local_sign_in"));
    assert_eq!(with("allow_local_sign_in = true", local).unwrap().upstreams, [Upstream::LocalAdministrator]);
    let here = load(&format!("[issuer]\nurl = \"http://localhost:7420\"\n{RESOURCE}{local}")).unwrap().unwrap();
    assert_eq!(here.upstreams, [Upstream::LocalAdministrator]);
}

#[test]
fn hs256_has_a_key_of_its_own() {
    let secret = "k".repeat(32);
    let hs256 = |n: u8, secret: &str| {
        format!("[[issuer.resource]]\nurl = \"https://r{n}.example\"\nalgorithm = \"HS256\"\n{secret}\n")
    };
    let own = format!("signing_secret = \"{secret}\"");
    assert!(with("", &hs256(1, &own)).is_ok());
    assert!(error("", &hs256(1, "")).contains("needs a `signing_secret`"));
    assert!(error("", &hs256(1, "signing_secret = \"short\"")).contains("32 bytes"));
    let said = error("", &format!("{}{}", hs256(1, &own), hs256(2, &own)));
    assert!(said.contains("another resource") && !said.contains(&secret), "{said}");
    assert!(with("", &format!("{}{}", hs256(1, &own), hs256(2, &own.replace('k', "j")))).is_ok());
    let idle = format!("[[issuer.resource]]\nurl = \"https://r.example\"\n{own}");
    assert!(error("", &idle).contains("goes with"));
    assert!(error("algorithm = \"HS256\"", "").contains("issuer.resource]] number 1"));
}

#[test]
fn clients_are_what_they_have() {
    let of = |text: &str| with("", &format!("[[client]]\nclient_id = \"c\"\n{text}")).map(|s| s.clients[0].clone());
    let backend = of("client_secret = \"0123456789abcdefghij\"\nname = \"Backend\"").unwrap();
    assert_eq!(backend.metadata.token_endpoint_auth_method, AuthMethod::ClientSecretBasic);
    assert_eq!(backend.metadata.grant_types, [GrantType::ClientCredentials].into());
    assert_eq!(backend.metadata.client_name.as_deref(), Some("Backend"));
    let public =
        of("redirect_uris = [\"http://127.0.0.1/cb\"]\nresources = [\"https://mcp.example.com/mcp\"]").unwrap();
    assert_eq!(public.metadata.token_endpoint_auth_method, AuthMethod::None);
    assert_eq!(public.metadata.grant_types, [GrantType::AuthorizationCode, GrantType::RefreshToken].into());
    assert_eq!(public.resources.unwrap().len(), 1);
    let signs = of("jwks_uri = \"https://c.example/jwks\"").unwrap();
    assert_eq!(signs.metadata.token_endpoint_auth_method, AuthMethod::PrivateKeyJwt);
    let plain = "Operator-chosen-0123456789abcdefghij";
    assert!(!format!("{:?}", of(&format!("client_secret = \"{plain}\"")).unwrap()).contains(plain));
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    for (issuer, more, says) in [
        ("access_token_ttl = 59", "", "`access_token_ttl`"),
        ("access_token_ttl = 2592001", "", "`access_token_ttl`"),
        ("refresh_token_ttl = 299", "", "`refresh_token_ttl`"),
        ("access_token_ttl = 7200\nrefresh_token_ttl = 3600", "", "shorter than"),
        ("registration = \"closed\"", "", "`open`, `token`, `off`"),
        ("registration = \"token\"", "", "`registration_token`"),
        ("registration = \"token\"\nregistration_token = \"short\"", "", "at least 20"),
        ("registration_token = \"0123456789abcdefghij\"", "", "goes with"),
        ("algorithm = \"none\"", "", "`ES256`"),
        ("interaction_url = \"http://app.example.com\"", "", "`interaction_url`"),
        ("document_hosts = [\"https://a.example\"]", "", "`document_hosts`"),
        ("trusted_proxies = [\"proxy\"]", "", "trusted_proxies"),
        ("", RESOURCE, "twice"),
        ("", "[[issuer.resource]]\nname = \"x\"", "`url`"),
        ("", "[[issuer.resource]]\nurl = \"http://r.example\"", "`url`"),
        ("", "[[issuer.resource]]\nurl = \"https://r.example\"\nscopes = [\"a b\"]", "`scopes`"),
        ("", "[[issuer.resource]]\nurl = \"https://r.example\"\nintrospectors = [\"\"]", "`introspectors`"),
        ("", "[[issuer.resource]]\nurl = \"https://r.example\"\nsigning = 1", "`signing_secret`"),
        ("", "[[issuer.upstream]]\nprovider = \"Git Hub\"", "[[issuer.upstream]]"),
        ("", "[[client]]\nname = \"x\"", "`client_id`"),
        ("", "[[client]]\nclient_id = \"https://c.example/x.json\"", "address of a document"),
        ("", "[[client]]\nclient_id = \"_sessions\"", "backend sessions"),
        ("", "[[client]]\nclient_id = \"c\"", "proves itself"),
        ("", "[[client]]\nclient_id = \"c\"\nclient_secret = \"short\"", "at least 20"),
        ("", "[[client]]\nclient_id = \"c\"\nauth_method = \"client_secret_post\"", "`client_secret`"),
        ("", "[[client]]\nclient_id = \"c\"\nauth_method = \"digest\"", "`client_secret_basic`"),
        ("", "[[client]]\nclient_id = \"c\"\nredirect_uris = [\"http://a.example\"]", "`redirect_uris`"),
        (
            "",
            "[[client]]\nclient_id = \"c\"\nclient_secret = \"0123456789abcdefghij\"\nresources = [\"https://x.example\"]",
            "there is no",
        ),
        (
            "",
            "[[client]]\nclient_id = \"c\"\nclient_secret = \"0123456789abcdefghij\"\ngrant_types = [\"password\"]",
            "`grant_types`",
        ),
        ("", "[[client]]\nclient_id = \"c\"\njwks_file = \"/nonexistent\"", "`jwks_file`"),
    ] {
        let said = error(issuer, more);
        assert!(said.contains(says) && said.contains("t.toml"), "{issuer} {more}: {said}");
    }
    let introspects = "[[issuer.resource]]\nurl = \"https://r.example\"\nintrospectors = [\"c\"]\n\
                       [[client]]\nclient_id = \"c\"\nredirect_uris = [\"http://127.0.0.1/cb\"]";
    assert!(error("", introspects).contains("proves nothing"));
    let exchanges = "[[issuer.resource]]\nurl = \"https://r.example\"\nexchangers = [\"c\"]\n[[client]]\nclient_id = \
                     \"c\"\nclient_secret = \"0123456789abcdefghij\"\ngrant_types = [\"client_credentials\"]";
    assert!(error("", exchanges).contains(GrantType::TokenExchange.as_str()));
    let public = format!(
        "[[client]]\nclient_id = \"c\"\nauth_method = \"none\"\ngrant_types = [\"{}\"]",
        GrantType::TokenExchange.as_str()
    );
    assert!(error("", &public).contains("proves itself"));
}
