//! What a provider must be to be taken into the catalogue. Each rule names the key that breaks it.

use std::{collections::BTreeMap, fmt, time::Duration};

use http::{HeaderName, HeaderValue};
use tokenkeep_core::{
    Provider, Rotation,
    ports::Limit,
    provider::{
        Api, IdentitySource, Kind, Param, TemplateError, check_api_host, check_login_text, check_text, check_url,
        is_template,
    },
};
use tokenkeep_oauth::{
    dialect::ClientAuth,
    login::{LoginBody, LoginDialect, LoginMethod},
};

/// Why a provider cannot be taken into the catalogue. The fault is the file's; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CatalogueError {
    /// The file, or whatever names the place where the provider stands.
    pub file: String,
    /// The key at fault; `None` where the problem says it.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: `{key}` {}", self.file, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

/// What is wrong with a provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No TOML, or not of this shape.
    #[error("line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// The parser's words, which name the key.
        message: String,
    },
    /// A template that is none.
    #[error("cannot be used: {0}")]
    Template(TemplateError),
    /// A rule is broken.
    #[error("{0}")]
    Rule(String),
    /// Two providers have one id.
    #[error("is used by two providers")]
    Duplicate,
}

impl CatalogueError {
    pub(super) fn new(file: &str, key: Option<&str>, problem: Problem) -> Self {
        Self { file: file.to_owned(), key: key.map(str::to_owned), problem }
    }

    pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        Self::new(file, None, Problem::Syntax { line, message: error.message().to_owned() })
    }
}

/// A broken rule: which key, and what is wrong with it.
type Broken = (String, Problem);

/// The shortest grace window in which a first exchange, its end and a replay fit.
const SHORTEST_GRACE: Duration = Duration::from_secs(6);

/// Checks every rule; the first that is broken is the error.
pub(super) fn check(file: &str, provider: &Provider) -> Result<(), CatalogueError> {
    kind(provider)
        .and_then(|()| templates(provider))
        .and_then(|()| params(provider))
        .and_then(|()| api(&provider.api))
        .and_then(|()| provider.login.as_ref().map_or(Ok(()), |login| self::login(&login.dialect)))
        .and_then(|()| identity(provider))
        .and_then(|()| rotation(provider))
        .and_then(|()| facts(provider))
        .map_err(|(key, problem)| CatalogueError::new(file, Some(&key), problem))
}

fn rule(key: impl Into<String>, problem: impl Into<String>) -> Broken {
    (key.into(), Problem::Rule(problem.into()))
}

/// A kind has what it needs and nothing that it could not use.
fn kind(p: &Provider) -> Result<(), Broken> {
    match p.kind {
        Kind::Oauth2 if p.token_url.is_none() && p.issuer.is_none() => {
            Err(rule("token_url", "is missing, and so is `issuer`, by which it could be discovered"))
        }
        Kind::Login if p.login.is_none() => Err(rule("login", "is missing from a provider of kind `login`")),
        Kind::Oauth2 => Ok(()),
        Kind::Login | Kind::ApiKey | Kind::Basic | Kind::AppInstallation | Kind::RequestSigning => {
            let oauth = [
                ("authorize_url", p.authorize_url.is_some()),
                ("token_url", p.token_url.is_some()),
                ("refresh_url", p.refresh_url.is_some()),
                ("device_authorization_url", p.device_authorization_url.is_some()),
                ("issuer", p.issuer.is_some()),
                ("login", p.login.is_some() && p.kind != Kind::Login),
            ];
            match oauth.into_iter().find(|(_, there)| *there) {
                Some((key, _)) => Err(rule(key, format!("means nothing to a provider of kind `{}`", p.kind.as_str()))),
                None => Ok(()),
            }
        }
    }
}

/// Every URL template, by key.
fn urls(p: &Provider) -> impl Iterator<Item = (&'static str, &String)> {
    let identity = p.identity.as_ref();
    [
        ("authorize_url", p.authorize_url.as_ref()),
        ("token_url", p.token_url.as_ref()),
        ("refresh_url", p.refresh_url.as_ref()),
        ("revoke", p.revoke.as_ref().map(|r| &r.url)),
        ("device_authorization_url", p.device_authorization_url.as_ref()),
        ("issuer", p.issuer.as_ref()),
        ("userinfo_url", p.userinfo_url.as_ref()),
        ("identity.email", identity.and_then(|i| i.email.as_ref()?.url.as_ref())),
        ("identity.organizations", identity.and_then(|i| i.organizations.as_ref()?.url.as_ref())),
        ("login", p.login.as_ref().map(|l| &l.url)),
        ("dialect.long_lived", p.dialect.long_lived.as_ref().map(|s| &s.url)),
    ]
    .into_iter()
    .filter_map(|(key, url)| Some((key, url?)))
}

/// Every map whose values are templates, by key.
fn maps(p: &Provider) -> impl Iterator<Item = (&'static str, &BTreeMap<String, String>)> {
    [
        ("dialect.authorize_params", &p.dialect.authorize_params),
        ("dialect.token_params", &p.dialect.token_params),
        ("dialect.refresh_params", &p.dialect.refresh_params),
        ("dialect.token_headers", &p.dialect.token_headers),
        ("api.headers", &p.api.headers),
    ]
    .into_iter()
}

/// The same, where credentials may stand in them.
fn login_maps(p: &Provider) -> impl Iterator<Item = (&'static str, &BTreeMap<String, String>)> {
    let login = p.login.as_ref().map(|login| &login.dialect);
    login.into_iter().flat_map(|login| [("login.params", &login.params), ("login.headers", &login.headers)])
}

fn templates(p: &Provider) -> Result<(), Broken> {
    let broken = |key: &str| {
        let key = key.to_owned();
        move |e| (key, Problem::Template(e))
    };
    for (key, url) in urls(p) {
        check_url(url, &p.params).map_err(broken(key))?;
    }
    for host in &p.api_hosts {
        check_api_host(host, &p.params).map_err(broken("api_hosts"))?;
    }
    for (key, map) in maps(p) {
        for value in map.values() {
            check_text(value, &p.params).map_err(broken(key))?;
        }
    }
    for (key, map) in login_maps(p) {
        for value in map.values() {
            check_login_text(value, &p.params).map_err(broken(key))?;
        }
    }
    match p.dialect.token_headers.keys().find(|name| HeaderName::try_from(name.as_str()).is_err()) {
        Some(name) => Err(rule("dialect.token_headers", format!("holds {name:?}, which is no header's name"))),
        None => Ok(()),
    }
}

/// Every parameter is used, and its default is one of its values.
fn params(p: &Provider) -> Result<(), Broken> {
    let texts: Vec<&str> = urls(p)
        .map(|(_, url)| url.as_str())
        .chain(p.api_hosts.iter().map(String::as_str))
        .chain(login_maps(p).flat_map(|(_, map)| map.values().map(String::as_str)))
        .chain(maps(p).flat_map(|(_, map)| map.values().map(String::as_str)))
        .collect();
    for (name, Param { default, one_of, ends_with, .. }) in &p.params {
        let key = || format!("params.{name}");
        let hole = format!("{{{name}}}");
        // Apple's secret is signed in the name of a team, which no template shows.
        let by_dialect = p.dialect.client_auth == ClientAuth::AppleJwt && name == "team_id";
        if !by_dialect && !texts.iter().any(|t| t.contains(&hole)) {
            return Err(rule(key(), "is used by nothing"));
        }
        if let Some(default) = default
            && !one_of.is_empty()
            && !one_of.contains(default)
        {
            return Err(rule(key(), "has a default that is not in its `one_of`"));
        }
        if ends_with.iter().any(|domain| !domain.starts_with('.') || domain.bytes().any(|b| b.is_ascii_uppercase())) {
            return Err(rule(key(), "must write each of `ends_with` in lower case, with a dot first"));
        }
    }
    Ok(())
}

/// A call can be sent as it is said, and counted.
fn api(api: &Api) -> Result<(), Broken> {
    let is_header = |name: &str| {
        HeaderName::try_from(name).is_ok() && !NOT_FOR_THE_CATALOGUE.iter().any(|ours| name.eq_ignore_ascii_case(ours))
    };
    if !is_header(&api.token_header) {
        return Err(rule("api.token_header", "is no header that can carry a token"));
    }
    if api.token_prefix.as_ref().is_some_and(|p| p.bytes().any(|b| !(b.is_ascii_graphic() || b == b' '))) {
        return Err(rule("api.token_prefix", "may hold only printable ASCII"));
    }
    if api.unauthorized.is_empty() || api.unauthorized.iter().any(|status| !(400..500).contains(status)) {
        return Err(rule("api.unauthorized", "must list statuses from 400 to 499"));
    }
    let bad = |name: &String, value: &String| {
        let printable = value.is_ascii() && HeaderValue::try_from(value).is_ok();
        !is_header(name) || name.eq_ignore_ascii_case(&api.token_header) || !printable
    };
    if let Some((name, _)) = api.headers.iter().find(|(name, value)| bad(name, value)) {
        return Err(rule("api.headers", format!("holds {name:?}, which cannot be sent like that")));
    }
    for limit in &api.limits {
        match limit.limit {
            Limit::Window { count, .. } if count.get() > MOST_IN_A_WINDOW => {
                return Err(rule("api.limits", "has more than 10,000 `requests` in a window: give it a `burst`"));
            }
            Limit::Bucket { every, .. } if every < Duration::from_micros(1) => {
                return Err(rule("api.limits", "has a rate of more than a million a second: leave it out"));
            }
            Limit::Window { .. } | Limit::Bucket { .. } => {}
        }
    }
    Ok(())
}

/// A login sends what somebody must know, and its reply can be read.
fn login(login: &LoginDialect) -> Result<(), Broken> {
    if !login.sends_the_secret() {
        return Err(rule("login", "sends neither `{password}` nor `{api_key}`, and `basic` is not set"));
    }
    let all = || login.params.values().chain(login.headers.values());
    if login.basic && all().any(|value| value.contains("{api_key}")) {
        return Err(rule("login.basic", "takes a username and a password, not `{api_key}`"));
    }
    if all().any(|value| value.contains("{api_key}")) && all().any(|value| value.contains("{password}")) {
        return Err(rule("login", "takes either `{password}` or `{api_key}`"));
    }
    if login.body == LoginBody::None && !login.params.is_empty() {
        return Err(rule("login.params", "cannot be sent without a `body`; a URL is no place for them"));
    }
    if login.method == LoginMethod::Get && login.body != LoginBody::None {
        return Err(rule("login.method", "`GET` goes without a body: set `body = \"none\"`"));
    }
    let name = |name: &&String| {
        HeaderName::try_from(name.as_str()).is_err()
            || NOT_FOR_THE_CATALOGUE.iter().any(|n| name.eq_ignore_ascii_case(n))
    };
    if let Some(name) = login.headers.keys().find(name) {
        return Err(rule("login.headers", format!("holds {name:?}, which cannot be sent like that")));
    }
    let pointers = [Some(&login.token), login.expires_in.as_ref(), login.expires_at.as_ref()];
    if pointers.into_iter().flatten().any(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
        return Err(rule("login", "holds something else than JSON pointers, which begin with `/`"));
    }
    if login.token_prefix.bytes().any(|b| !(b.is_ascii_graphic() || b == b' ')) {
        return Err(rule("login.token_prefix", "may hold only printable ASCII"));
    }
    if login.refused.is_empty() || login.refused.iter().any(|status| !(400..500).contains(status) || *status == 429) {
        return Err(rule("login.refused", "must list statuses from 400 to 499, and not 429"));
    }
    Ok(())
}

/// Headers that belong to the connection or to the message, and to whoever writes these (RFC 9110 7.6.1, 7.2, 8.6).
const NOT_FOR_THE_CATALOGUE: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// As many as a [`tokenkeep_core::ports::Counter`] can count in a window.
const MOST_IN_A_WINDOW: u32 = 10_000;

/// It is said somewhere who signed in, and every pointer is one.
fn identity(p: &Provider) -> Result<(), Broken> {
    let Some(identity) = &p.identity else { return Ok(()) };
    let broken = |problem: &str| Err(rule("identity", problem));
    match identity.source {
        IdentitySource::Userinfo if p.userinfo_url.is_none() => return broken("needs `userinfo_url`"),
        IdentitySource::IdToken if p.issuer.is_none() && identity.issuer.is_none() => {
            return broken("needs `issuer`, whose ID tokens are believed");
        }
        IdentitySource::Userinfo | IdentitySource::IdToken => {}
    }
    if identity.subject.is_empty() {
        return broken("must say with `subject` what never changes");
    }
    let pointers = identity
        .subject
        .iter()
        .chain(&identity.name)
        .chain(
            identity.email.iter().flat_map(|email| [&email.address, &email.verified].into_iter().chain(&email.primary)),
        )
        .chain(identity.organizations.iter().map(|organizations| &organizations.name));
    if pointers.into_iter().any(|pointer| !pointer.starts_with('/')) {
        return broken("holds something else than JSON pointers, which begin with `/`");
    }
    let is_issuer = |text: &String| text.starts_with("https://") && is_template(text);
    if identity.issuer.as_ref().is_some_and(|issuer| !is_issuer(issuer)) {
        return broken("has an `issuer` that is no https URL with `{claim}` in it");
    }
    Ok(())
}

fn rotation(p: &Provider) -> Result<(), Broken> {
    match p.rotation {
        Rotation::Grace { window, .. } if window < SHORTEST_GRACE => {
            Err(rule("rotation", "has a grace of under 6 seconds, in which no replay fits: call it `strict`"))
        }
        _ => Ok(()),
    }
}

/// Marks name facts that are there, and what comes from memory is marked.
fn facts(p: &Provider) -> Result<(), Broken> {
    for name in &p.unverified {
        if !is_fact(p, name) {
            return Err(rule("unverified", format!("names `{name}`, which is not in the file")));
        }
    }
    for (name, source) in &p.sources {
        if !is_fact(p, name) {
            return Err(rule("sources", format!("names `{name}`, which is not in the file")));
        }
        if source == "m" && !p.unverified.contains(name) {
            return Err(rule("unverified", format!("must name `{name}`, whose source is memory")));
        }
    }
    Ok(())
}

/// Whether `name` is the key of a fact that this provider states. What a file may leave at its plain meaning
/// (`rotation`, `dialect.pkce`) is a statement too.
fn is_fact(p: &Provider, name: &str) -> bool {
    match name {
        "rotation" | "notes" => true,
        "identity" => p.identity.is_some(),
        "api_hosts" => !p.api_hosts.is_empty(),
        "default_scope" => p.default_scope.is_some(),
        "offline_scope" => p.offline_scope.is_some(),
        "default_lifetime" => p.default_lifetime.is_some(),
        "margin" => p.margin.is_some(),
        _ => match name.split_once('.') {
            Some(("params", param)) => p.params.contains_key(param),
            Some(("dialect", key)) => DIALECT.contains(&key),
            Some(("api", key)) => API.contains(&key),
            Some(("login", key)) => p.login.is_some() && LOGIN.contains(&key),
            Some(_) => false,
            None => urls(p).any(|(key, _)| key == name),
        },
    }
}

/// The keys of `[dialect]`; a test holds them against the schema.
const DIALECT: [&str; 17] = [
    "scope_separator",
    "client_auth",
    "client_id_param",
    "code_param",
    "pkce",
    "body",
    "refresh",
    "long_lived",
    "callback",
    "authorize_params",
    "token_params",
    "refresh_params",
    "token_headers",
    "reply",
    "companion",
    "expiry",
    "errors",
];

/// The keys of `[api]`; a test holds them against the schema.
const API: [&str; 7] =
    ["token_header", "token_prefix", "unauthorized", "headers", "limits", "latency_margin", "logins_count"];

/// The keys of `[login]`; a test holds them against the schema.
const LOGIN: [&str; 11] = [
    "url",
    "method",
    "body",
    "params",
    "headers",
    "basic",
    "token",
    "token_prefix",
    "expires_in",
    "expires_at",
    "refused",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_same_keys() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../../providers/schema.json")).expect("JSON");
        for (table, mut ours) in [("dialect", DIALECT.to_vec()), ("api", API.to_vec()), ("login", LOGIN.to_vec())] {
            let keys = schema["properties"][table]["properties"].as_object().expect("an object");
            let mut theirs = keys.keys().map(String::as_str).collect::<Vec<_>>();
            theirs.sort_unstable();
            ours.sort_unstable();
            assert_eq!(theirs, ours, "{table}");
        }
    }
}
