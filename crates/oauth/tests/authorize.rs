//! The URL the browser is sent to, and what it brings back.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use secrecy::ExposeSecret;
use tokenkeep_oauth::{
    BuildError, Dialect, Secret,
    authorize::{
        AuthorizeParams, CallbackError, IssuerMismatch, build_authorize_url, check_issuer, parse_authorization_response,
    },
    dialect::{Callback, Companion, Pkce, ScopeSeparator},
    params::Vars,
};

fn pairs(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

/// The query of the URL built at `url`, in order.
fn query(dialect: &Dialect, url: &str, extra: &BTreeMap<String, String>) -> Result<Vec<String>, BuildError> {
    let request = AuthorizeParams {
        url: &url.parse().unwrap(),
        client_id: "c",
        redirect_uri: "https://us.example/cb",
        scope: Some("a b"),
        companion_scope: Some("u v"),
        state: &Secret::from("st"),
        challenge: Some("ch"),
        nonce: None,
        params: &Vars::from([("project".to_owned(), "p1".to_owned())]),
        extra,
    };
    let built = build_authorize_url(dialect, &request)?;
    assert_eq!(built.origin(), request.url.origin());
    Ok(built.query_pairs().map(|(n, v)| format!("{n}={v}")).collect())
}

const PLAIN: [&str; 7] = [
    "response_type=code",
    "scope=a b",
    "client_id=c",
    "redirect_uri=https://us.example/cb",
    "state=st",
    "code_challenge=ch",
    "code_challenge_method=S256",
];

#[test]
fn the_plain_dialect() {
    assert_eq!(query(&Dialect::default(), "https://id.example/auth", &pairs(&[])).unwrap(), PLAIN);
}

#[test]
fn the_query_of_the_template_is_kept_and_nothing_stands_twice() {
    let got = query(&Dialect::default(), "https://id.example/auth?tenant=x&state=old&flag=", &pairs(&[])).unwrap();
    assert_eq!(got, [["tenant=x", "flag="].as_slice(), &PLAIN].concat());
}

#[test]
fn quirks() {
    let dialect = Dialect {
        scope_separator: ScopeSeparator::Comma,
        client_id_param: Some("client_key".into()),
        pkce: Pkce::Refused,
        callback: Callback::FormPost,
        authorize_params: pairs(&[("audience", "{project}.api"), ("empty", "")]),
        companion: Some(Companion {
            under: "authed_user".into(),
            scope_param: "user_scope".into(),
            subject_suffix: ":user".into(),
        }),
        ..Dialect::default()
    };
    let extra = pairs(&[("prompt", "consent"), ("audience", "theirs"), ("state", "theirs"), ("code_challenge", "x")]);
    let mut got = query(&dialect, "https://id.example/auth", &extra).unwrap();
    got.sort();
    let expected = [
        "audience=p1.api",
        "client_key=c",
        "prompt=consent",
        "redirect_uri=https://us.example/cb",
        "response_mode=form_post",
        "response_type=code",
        "scope=a,b",
        "state=st",
        "user_scope=u,v",
    ];
    assert_eq!(got, expected);
    let none = Dialect { scope_separator: ScopeSeparator::None, ..Dialect::default() };
    assert!(!query(&none, "https://id.example/auth", &pairs(&[])).unwrap().iter().any(|p| p.starts_with("scope=")));
}

#[test]
fn what_cannot_be_built() {
    let bad = query(&Dialect::default(), "http://id.example/auth", &pairs(&[]));
    assert!(matches!(bad, Err(BuildError::InvalidUrl { .. })));
    let dialect = Dialect { authorize_params: pairs(&[("a", "{nobody}")]), ..Dialect::default() };
    let missing = query(&dialect, "https://id.example/auth", &pairs(&[]));
    assert_eq!(missing, Err(BuildError::MissingParam { name: "nobody".into() }));
}

fn outcome(query: &str) -> Result<String, CallbackError> {
    let response = parse_authorization_response(&Dialect::default(), query.as_bytes())?;
    Ok(match response.outcome {
        Ok(code) => format!("code {} state {}", code.expose_secret(), response.state.expose_secret()),
        Err(e) => format!("{} {:?}", e.code, e.description),
    })
}

#[test]
fn a_callback_brings_a_code_or_a_refusal() {
    assert_eq!(outcome("code=4%2F0+A&state=st&scope=a&scope=b").unwrap(), "code 4/0 A state st");
    assert_eq!(
        outcome("error=access_denied&error_description=No%0D%0A%22way%22&state=st").unwrap(),
        "access_denied Some(\"No???way?\")"
    );
    assert_eq!(outcome("error=%3Cscript%3E&state=st").unwrap(), "unrecognised None");
}

#[test]
fn a_callback_that_is_none() {
    for name in ["code", "state", "iss", "error", "error_description"] {
        let query = format!("code=a&state=b&iss=c&error=d&error_description=e&{name}=again");
        assert_eq!(outcome(&query), Err(CallbackError::Duplicate(name)));
        let long = format!("{name}={}", "x".repeat(8193));
        assert_eq!(outcome(&long), Err(CallbackError::TooLong(name)));
    }
    assert_eq!(outcome("code=a"), Err(CallbackError::NoState));
    assert_eq!(outcome("code=a&state="), Err(CallbackError::NoState));
    assert_eq!(outcome("state=b"), Err(CallbackError::Ambiguous));
    assert_eq!(outcome("state=b&code="), Err(CallbackError::Ambiguous));
    assert_eq!(outcome("state=b&code=a&error=access_denied"), Err(CallbackError::Ambiguous));
}

#[test]
fn the_code_under_another_name() {
    let dialect = Dialect { code_param: Some("spapi_oauth_code".into()), ..Dialect::default() };
    let response = parse_authorization_response(&dialect, b"spapi_oauth_code=a&code=b&state=s").unwrap();
    assert_eq!(response.outcome.unwrap().expose_secret(), "a");
}

#[test]
fn the_issuer_must_be_the_one_that_was_asked() {
    let (ours, theirs) = (Some("https://id.example"), Some("https://evil.example"));
    for advertised in [false, true] {
        assert_eq!(check_issuer(ours, ours, advertised), Ok(()));
        assert_eq!(check_issuer(theirs, ours, advertised), Err(IssuerMismatch::Different));
        assert_eq!(check_issuer(Some("https://id.example/"), ours, advertised), Err(IssuerMismatch::Different));
        assert_eq!(check_issuer(theirs, None, advertised), Ok(()));
    }
    assert_eq!(check_issuer(None, ours, true), Err(IssuerMismatch::Missing));
    assert_eq!(check_issuer(None, ours, false), Ok(()));
    let response = parse_authorization_response(&Dialect::default(), b"code=a&state=s&iss=https%3A%2F%2Fid.example");
    assert_eq!(response.unwrap().iss.as_deref(), ours);
}

proptest! {
    #[test]
    fn a_callback_decodes_to_what_went_in(code in ".+", state in ".+") {
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("code", &code)
            .append_pair("state", &state)
            .finish();
        let response = parse_authorization_response(&Dialect::default(), query.as_bytes()).unwrap();
        let got = response.outcome.unwrap();
        prop_assert_eq!(got.expose_secret(), code);
        prop_assert_eq!(response.state.expose_secret(), state);
    }
}
