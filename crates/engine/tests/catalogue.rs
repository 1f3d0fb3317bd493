//! Every file of `providers/` is read, and held against `providers/schema.json` and the catalogue's own rules.

use std::{collections::BTreeMap, fs, num::NonZeroU32, path::PathBuf, time::Duration};

use serde_json::Value;
use tokenkeep_core::{
    Provider, ProviderId, Rotation,
    ports::Limit,
    provider::{ApiLimit, Kind, LimitPer},
};
use tokenkeep_engine::catalogue::{Catalogue, parse_provider_toml};

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../providers"))
}

fn schema() -> Value {
    let text = fs::read_to_string(directory().join("schema.json")).expect("readable");
    serde_json::from_str(&text).expect("JSON")
}

/// Name without extension, and text, of every file.
fn files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = fs::read_dir(directory())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .map(|path| {
            let name = path.file_stem().and_then(|n| n.to_str()).expect("UTF-8").to_owned();
            (name, fs::read_to_string(path).expect("readable"))
        })
        .collect();
    files.sort();
    files
}

fn provider(id: &str) -> Provider {
    let id = ProviderId::new(id).expect("a slug");
    Provider::clone(&Catalogue::builtin().get(&id).expect("in the catalogue"))
}

fn as_json(toml: &str) -> Value {
    serde_json::to_value(toml.parse::<toml::Table>().expect("TOML")).expect("JSON")
}

#[test]
fn every_file_is_valid() {
    let schema = schema();
    let mut problems = Vec::new();
    for (name, text) in files() {
        match parse_provider_toml(&format!("providers/{name}.toml"), &text) {
            Ok(provider) if provider.id.as_str() != name => problems.push(format!("{name}: the id is {}", provider.id)),
            Ok(_) => {}
            Err(error) => problems.push(error.to_string()),
        }
        violations(&schema, &schema, &as_json(&text), &name, &mut problems);
        if text.contains("http://") {
            problems.push(format!("{name}: a provider of the catalogue is reached by https"));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_file_is_compiled_in() {
    let names: Vec<String> = files().into_iter().map(|(name, _)| name).collect();
    let catalogue = Catalogue::builtin();
    assert!(names.len() >= 107, "{} files", names.len());
    assert_eq!(catalogue.ids(), names);
    assert_eq!(catalogue.iter().map(|p| p.id.to_string()).collect::<Vec<_>>(), names);
}

#[test]
fn every_provider_resolves_once_its_parameters_are_given() {
    for provider in Catalogue::builtin().iter() {
        let mut params = BTreeMap::from([("client_id".to_owned(), "our-client".to_owned())]);
        for (name, param) in &provider.params {
            let sample = match (param.one_of.first(), param.ends_with.first()) {
                (Some(one), _) => one.clone(),
                (None, Some(domain)) => format!("acme{domain}"),
                (None, None) => "acme.example".to_owned(),
            };
            params.insert(name.clone(), sample);
        }
        let resolved = provider.resolve(&params).unwrap_or_else(|e| panic!("{}: {e}", provider.id));
        assert_eq!(resolved.token_url.is_some(), provider.token_url.is_some());
        assert_eq!(resolved.api_hosts.len(), provider.api_hosts.len());
    }
}

#[test]
fn a_lenient_rotation_is_documented_or_marked() {
    for provider in Catalogue::builtin().iter().filter(|p| p.kind == Kind::Oauth2) {
        let marked = provider.unverified.iter().any(|name| name == "rotation");
        let documented = provider.sources.contains_key("rotation");
        assert!(
            provider.rotation == Rotation::Strict || marked || documented,
            "{}: `rotation` is not strict and nothing says where that comes from",
            provider.id
        );
    }
}

#[test]
fn only_oauth_has_a_code_flow() {
    for (id, kind) in [
        ("github-app-installation", Kind::AppInstallation),
        ("mekari-hmac", Kind::RequestSigning),
        ("bluestakes", Kind::Login),
    ] {
        let provider = provider(id);
        assert_eq!(provider.kind, kind);
        assert!(!provider.has_code_flow() && provider.token_url.is_none());
    }
    assert!(provider("google").has_code_flow());
    assert!(!provider("supabase-auth").has_code_flow());
}

/// What the systems that tokenkeep replaces send, it sends.
#[test]
fn the_replaced_systems_are_spoken_to_as_they_were() {
    use tokenkeep_oauth::{
        dialect::{BodyFormat, ClientAuth, RefreshRequest},
        login::{LoginBody, LoginDialect},
    };

    let qontak = provider("qontak-crm");
    assert_eq!(qontak.token_url.as_deref(), Some("https://app.qontak.com/oauth/token"));
    assert_eq!((qontak.dialect.body, qontak.dialect.client_auth), (BodyFormat::Json, ClientAuth::Omitted));
    assert_eq!(qontak.default_lifetime.map(|d| d.as_secs()), Some(21600));
    assert_eq!(qontak.margin.map(|d| d.as_secs()), Some(300));

    let params = [("project_ref", "abcd"), ("publishable_key", "ey.key")];
    let params = params.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let supabase = provider("supabase-auth").resolve(&params).expect("all given");
    assert_eq!(
        supabase.token_url.expect("one").as_str(),
        "https://abcd.supabase.co/auth/v1/token?grant_type=refresh_token"
    );
    assert_eq!(supabase.dialect.refresh, RefreshRequest::TokenOnly);
    assert_eq!(supabase.dialect.body, BodyFormat::Json);
    assert_eq!(supabase.dialect.token_headers["apikey"], "ey.key");

    let bluestakes = provider("bluestakes").api;
    let ten_a_minute = Limit::Window { count: NonZeroU32::new(10).expect("not 0"), per: Duration::from_mins(1) };
    assert_eq!(bluestakes.limits, [ApiLimit { per: LimitPer::All, limit: ten_a_minute }]);
    assert!(bluestakes.logins_count && bluestakes.latency_margin > Duration::ZERO);
    assert_eq!(bluestakes.unauthorized, [401, 403]);
    let bucket = |burst, millis| Limit::Bucket {
        burst: NonZeroU32::new(burst).expect("not 0"),
        every: Duration::from_millis(millis),
    };
    let one = ApiLimit { per: LimitPer::Subject, limit: bucket(20, 100) };
    let all = ApiLimit { per: LimitPer::All, limit: bucket(100, 20) };
    assert_eq!(qontak.api.limits, [one, all]);

    let login = provider("bluestakes").login.expect("it has one");
    assert_eq!(login.url, "https://newtin-api.bluestakes.org/api/login-json");
    let LoginDialect { body, token, token_prefix, .. } = login.dialect;
    assert_eq!((body, token.as_str(), token_prefix.as_str()), (LoginBody::Json, "/Authorization", "Bearer "));
}

/// Where a call is not simply sent with a bearer token.
#[test]
fn apis_are_called_as_they_want_it() {
    for (id, header, prefix) in [
        ("google", "authorization", None),
        ("shopify", "X-Shopify-Access-Token", Some("")),
        ("amazon-sp-api", "x-amz-access-token", Some("")),
        ("monday", "authorization", Some("")),
        ("zoho", "authorization", Some("Zoho-oauthtoken ")),
    ] {
        let api = provider(id).api;
        assert_eq!((api.token_header.as_str(), api.token_prefix.as_deref()), (header, prefix), "{id}");
    }
    for (id, name, value) in [
        ("notion", "Notion-Version", "2022-06-28"),
        ("github", "X-GitHub-Api-Version", "2022-11-28"),
        ("twitch", "Client-Id", "{client_id}"),
        ("reddit", "User-Agent", "{user_agent}"),
        ("supabase-auth", "apikey", "{publishable_key}"),
    ] {
        assert_eq!(provider(id).api.headers.get(name).map(String::as_str), Some(value), "{id}");
    }
}

/// The providers that most calls go to can be called at all.
#[test]
fn the_most_used_have_an_api_host() {
    for id in [
        "google",
        "microsoft",
        "slack",
        "notion",
        "github",
        "hubspot",
        "salesforce",
        "shopify",
        "zoho",
        "xero",
        "stripe",
        "linear",
        "atlassian",
        "dropbox",
        "box",
        "zoom",
        "discord",
        "spotify",
        "twitch",
        "reddit",
        "quickbooks",
        "asana",
        "airtable",
        "figma",
        "linkedin",
        "zendesk",
        "intercom",
        "gitlab",
        "bitbucket",
        "clickup",
        "calendly",
        "monday",
        "qontak-crm",
        "bluestakes",
        "supabase-auth",
    ] {
        assert!(!provider(id).api_hosts.is_empty(), "{id}");
    }
}

/// Each word of each enumeration of the schema is one that the reader takes.
#[test]
fn the_schema_allows_no_word_that_the_reader_does_not_know() {
    let schema = schema();
    let base = "id = \"acme\"\ntoken_url = \"https://example.com/token\"\n";
    let mut tried = 0;
    let dialect = &schema["properties"]["dialect"]["properties"];
    for (prefix, properties) in [("", &schema["properties"]), ("dialect.", dialect)] {
        for (key, property) in properties.as_object().expect("properties") {
            let words = property.get("enum").or_else(|| property.pointer("/oneOf/0/enum"));
            for word in words.and_then(Value::as_array).into_iter().flatten() {
                tried += 1;
                if let Err(error) = parse_provider_toml("acme", &format!("{base}{prefix}{key} = {word}\n")) {
                    assert!(key == "kind" && !error.to_string().contains("unknown variant"), "{error}");
                }
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn the_schema_finds_what_is_wrong() {
    let schema = schema();
    for (text, says) in [
        ("display_name = \"x\"", "id is missing"),
        ("id = \"x\"\nmore = 1", "more is not known"),
        ("id = 1", "id is no string"),
        ("id = \"x\"\nkind = \"saml\"", "kind is none of"),
        ("id = \"x\"\nrotation = \"often\"", "rotation fits none of"),
        ("id = \"x\"\nrotation = { grace = { seconds = 3, successor = \"same\" } }", "rotation fits none of"),
        ("id = \"x\"\ndialect.pkce = \"plain\"", "dialect.pkce is none of"),
        ("id = \"x\"\napi_hosts = [1]", "api_hosts.0 is no string"),
        ("id = \"x\"\napi.token_heder = \"x\"", "api.token_heder is not known"),
        ("id = \"x\"\napi.limits = [{ requests = 0, seconds = 1 }]", "api.limits.0.requests is less than 1"),
        ("id = \"x\"\nparams.a.default = \"b\"", "params.a.description is missing"),
        ("id = \"x\"\nsources.a = 1", "sources.a is no string"),
    ] {
        let mut found = Vec::new();
        violations(&schema, &schema, &as_json(text), "x", &mut found);
        assert!(found.iter().any(|f| f.contains(says)), "{text}: {found:?}");
    }
}

/// Holds `value` against `schema`, as far as our schema goes. `pattern` is left to editors: the reader checks more.
fn violations(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "default" | "pattern" => {}
            "$ref" => {
                let pointer = rule.as_str().and_then(|r| r.strip_prefix('#')).expect("a local reference");
                violations(root, root.pointer(pointer).expect("defined"), value, path, found);
            }
            "type" => {
                let fits = match rule.as_str().expect("a type") {
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "array" => value.is_array(),
                    "boolean" => value.is_boolean(),
                    "object" => value.is_object(),
                    other => panic!("the walker does not know type {other}"),
                };
                if !fits {
                    found.push(format!("{path} is no {}", rule.as_str().unwrap_or_default()));
                }
            }
            "enum" => {
                if !rule.as_array().expect("values").contains(value) {
                    found.push(format!("{path} is none of {rule}"));
                }
            }
            "minimum" => {
                if value.as_i64() < rule.as_i64() {
                    found.push(format!("{path} is less than {rule}"));
                }
            }
            "required" => {
                for name in rule.as_array().expect("names").iter().filter_map(Value::as_str) {
                    if value.get(name).is_none() {
                        found.push(format!("{path}.{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, property) in rule.as_object().expect("properties") {
                    if let Some(member) = value.get(name) {
                        violations(root, property, member, &format!("{path}.{name}"), found);
                    }
                }
            }
            "additionalProperties" => {
                let known = |name: &str| schema.get("properties").is_some_and(|p| p.get(name).is_some());
                for (name, member) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)) {
                    match rule {
                        Value::Bool(false) => found.push(format!("{path}.{name} is not known")),
                        rule => violations(root, rule, member, &format!("{path}.{name}"), found),
                    }
                }
            }
            "items" => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    violations(root, rule, item, &format!("{path}.{at}"), found);
                }
            }
            "oneOf" => {
                let fitting = rule.as_array().expect("schemas").iter().filter(|schema| {
                    let mut found = Vec::new();
                    violations(root, schema, value, path, &mut found);
                    found.is_empty()
                });
                if fitting.count() != 1 {
                    found.push(format!("{path} fits none of {rule}"));
                }
            }
            other => panic!("the walker does not know `{other}`"),
        }
    }
}
