//! The shape of a provider in TOML: `providers/*.toml`, custom files, and `[[provider]]` in the configuration.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use serde::Deserialize;
use tokenkeep_core::{
    Provider, ProviderId, Rotation,
    ports::Limit,
    provider::{
        Api, ApiLimit, EmailSource, Identity, IdentitySource, Kind, LimitPer, Login, OrganizationSource, Param,
        Revocation, RevocationMethod, Successor,
    },
};
use tokenkeep_oauth::{
    Dialect,
    login::{LoginBody, LoginDialect, LoginMethod},
};

use super::check::{CatalogueError, check};

/// Reads one provider from TOML. `name` is the file's, for the error.
pub fn parse_provider_toml(name: &str, text: &str) -> Result<Provider, CatalogueError> {
    let file: ProviderFile = toml::from_str(text).map_err(|e| CatalogueError::syntax(name, text, &e))?;
    file.into_provider(name)
}

/// A provider as a file says it. `providers/README.md` explains every key; what is left out has its plain meaning.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderFile {
    id: ProviderId,
    display_name: Option<String>,
    #[serde(default)]
    kind: KindWord,
    authorize_url: Option<String>,
    token_url: Option<String>,
    refresh_url: Option<String>,
    revoke: Option<RevokeTable>,
    device_authorization_url: Option<String>,
    issuer: Option<String>,
    userinfo_url: Option<String>,
    identity: Option<IdentityTable>,
    login: Option<LoginTable>,
    #[serde(default)]
    api_hosts: Vec<String>,
    #[serde(default)]
    api: ApiTable,
    default_scope: Option<String>,
    offline_scope: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, ParamTable>,
    #[serde(default)]
    dialect: Dialect,
    rotation: Option<RotationWord>,
    /// Seconds.
    default_lifetime: Option<u32>,
    /// Seconds.
    margin: Option<u32>,
    #[serde(default)]
    notes: String,
    #[serde(default)]
    unverified: Vec<String>,
    #[serde(default)]
    sources: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindWord {
    #[default]
    Oauth2,
    Login,
    ApiKey,
    Basic,
    AppInstallation,
    RequestSigning,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeTable {
    method: RevokeWord,
    url: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RevokeWord {
    Rfc7009,
    BearerPost,
    BasicDelete,
    BearerDelete,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginTable {
    url: String,
    #[serde(default)]
    method: LoginMethod,
    #[serde(default)]
    body: LoginBody,
    params: Option<BTreeMap<String, String>>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    basic: bool,
    token: Option<String>,
    #[serde(default)]
    token_prefix: String,
    expires_in: Option<String>,
    expires_at: Option<String>,
    refused: Option<Vec<u16>>,
}

/// What is left out is as RFC 6750 has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiTable {
    token_header: Option<String>,
    token_prefix: Option<String>,
    unauthorized: Option<Vec<u16>>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    limits: Vec<LimitTable>,
    /// Seconds.
    #[serde(default)]
    latency_margin: u32,
    #[serde(default)]
    logins_count: bool,
}

/// `requests` in any `seconds`; with `burst`, a bucket of that size that is refilled at this rate.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitTable {
    #[serde(default)]
    per: PerWord,
    requests: NonZeroU32,
    seconds: NonZeroU32,
    burst: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PerWord {
    #[default]
    All,
    Tenant,
    Subject,
}

/// What is left out is as OIDC has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityTable {
    #[serde(default)]
    source: SourceWord,
    issuer: Option<String>,
    subject: Option<Vec<String>>,
    name: Option<Vec<String>>,
    #[serde(default)]
    unique_name: bool,
    email: Option<EmailTable>,
    organizations: Option<OrganizationsTable>,
    scope: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SourceWord {
    #[default]
    IdToken,
    Userinfo,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmailTable {
    url: Option<String>,
    address: String,
    verified: String,
    primary: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrganizationsTable {
    url: Option<String>,
    name: String,
    scope: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParamTable {
    description: String,
    default: Option<String>,
    #[serde(default)]
    one_of: Vec<String>,
    #[serde(default)]
    ends_with: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum RotationWord {
    None,
    Overlap,
    Predecessor,
    Grace { seconds: u32, successor: SuccessorWord },
    Strict,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SuccessorWord {
    Same,
    New,
}

impl ProviderFile {
    /// The provider this describes, checked. `name` is where it stands, for the error.
    pub fn into_provider(self, name: &str) -> Result<Provider, CatalogueError> {
        let seconds = |n: u32| Duration::from_secs(n.into());
        let kind = Kind::from(self.kind);
        // Credentials are not used up.
        let plain = if kind.takes_credentials_only() { Rotation::None } else { Rotation::default() };
        let provider = Provider {
            display_name: self.display_name.unwrap_or_else(|| self.id.to_string()),
            id: self.id,
            kind,
            authorize_url: self.authorize_url,
            token_url: self.token_url,
            refresh_url: self.refresh_url,
            revoke: self.revoke.map(|t| Revocation { method: t.method.into(), url: t.url }),
            device_authorization_url: self.device_authorization_url,
            issuer: self.issuer,
            userinfo_url: self.userinfo_url,
            identity: self.identity.map(IdentityTable::into),
            login: self.login.map(LoginTable::into),
            api_hosts: self.api_hosts,
            api: self.api.into(),
            default_scope: self.default_scope,
            offline_scope: self.offline_scope,
            params: self.params.into_iter().map(|(name, table)| (name, table.into())).collect(),
            dialect: self.dialect,
            rotation: self.rotation.map_or(plain, Rotation::from),
            default_lifetime: self.default_lifetime.map(seconds),
            margin: self.margin.map(seconds),
            notes: self.notes,
            unverified: self.unverified,
            sources: self.sources,
        };
        check(name, &provider)?;
        Ok(provider)
    }
}

impl From<LoginTable> for Login {
    fn from(table: LoginTable) -> Self {
        let plain = LoginDialect::default();
        let elsewhere = table.basic || table.body == LoginBody::None;
        let params = table.params.unwrap_or_else(|| if elsewhere { BTreeMap::new() } else { plain.params });
        let dialect = LoginDialect {
            method: table.method,
            body: table.body,
            params,
            headers: table.headers,
            basic: table.basic,
            token: table.token.unwrap_or(plain.token),
            token_prefix: table.token_prefix,
            expires_in: table.expires_in,
            expires_at: table.expires_at,
            refused: table.refused.unwrap_or(plain.refused),
        };
        Self { url: table.url, dialect }
    }
}

impl From<KindWord> for Kind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Oauth2 => Kind::Oauth2,
            KindWord::Login => Kind::Login,
            KindWord::ApiKey => Kind::ApiKey,
            KindWord::Basic => Kind::Basic,
            KindWord::AppInstallation => Kind::AppInstallation,
            KindWord::RequestSigning => Kind::RequestSigning,
        }
    }
}

impl From<RevokeWord> for RevocationMethod {
    fn from(word: RevokeWord) -> Self {
        match word {
            RevokeWord::Rfc7009 => RevocationMethod::Rfc7009,
            RevokeWord::BearerPost => RevocationMethod::BearerPost,
            RevokeWord::BasicDelete => RevocationMethod::BasicDelete,
            RevokeWord::BearerDelete => RevocationMethod::BearerDelete,
        }
    }
}

impl From<ApiTable> for Api {
    fn from(table: ApiTable) -> Self {
        let plain = Api::default();
        Api {
            token_header: table.token_header.unwrap_or(plain.token_header),
            token_prefix: table.token_prefix,
            unauthorized: table.unauthorized.unwrap_or(plain.unauthorized),
            headers: table.headers,
            limits: table.limits.into_iter().map(ApiLimit::from).collect(),
            latency_margin: Duration::from_secs(table.latency_margin.into()),
            logins_count: table.logins_count,
        }
    }
}

impl From<LimitTable> for ApiLimit {
    fn from(LimitTable { per, requests, seconds, burst }: LimitTable) -> Self {
        let time = Duration::from_secs(seconds.get().into());
        ApiLimit {
            per: match per {
                PerWord::All => LimitPer::All,
                PerWord::Tenant => LimitPer::Tenant,
                PerWord::Subject => LimitPer::Subject,
            },
            limit: match burst {
                Some(burst) => Limit::Bucket { burst, every: time / requests.get() },
                None => Limit::Window { count: requests, per: time },
            },
        }
    }
}

impl From<IdentityTable> for Identity {
    fn from(table: IdentityTable) -> Self {
        let plain = Identity::oidc();
        Identity {
            source: match table.source {
                SourceWord::IdToken => IdentitySource::IdToken,
                SourceWord::Userinfo => IdentitySource::Userinfo,
            },
            issuer: table.issuer,
            subject: table.subject.unwrap_or(plain.subject),
            name: table.name.unwrap_or(plain.name),
            unique_name: table.unique_name,
            email: table.email.map(EmailTable::into).or(plain.email),
            organizations: table.organizations.map(|OrganizationsTable { url, name, scope }| OrganizationSource {
                url,
                name,
                scope,
            }),
            scope: table.scope.or(plain.scope),
        }
    }
}

impl From<EmailTable> for EmailSource {
    fn from(table: EmailTable) -> Self {
        let EmailTable { url, address, verified, primary } = table;
        EmailSource { url, address, verified, primary }
    }
}

impl From<ParamTable> for Param {
    fn from(table: ParamTable) -> Self {
        let ParamTable { description, default, one_of, ends_with } = table;
        Param { description, default, one_of, ends_with }
    }
}

impl From<RotationWord> for Rotation {
    fn from(word: RotationWord) -> Self {
        match word {
            RotationWord::None => Rotation::None,
            RotationWord::Overlap => Rotation::Overlap,
            RotationWord::Predecessor => Rotation::Predecessor,
            RotationWord::Grace { seconds, successor } => Rotation::Grace {
                window: Duration::from_secs(seconds.into()),
                successor: match successor {
                    SuccessorWord::Same => Successor::Same,
                    SuccessorWord::New => Successor::New,
                },
            },
            RotationWord::Strict => Rotation::Strict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse_provider_toml("acme.toml", text).expect_err(text).to_string()
    }

    #[test]
    fn the_least_one_must_say() {
        let provider =
            parse_provider_toml("acme", "id = \"acme\"\nissuer = \"https://id.example.com\"").expect("enough");
        assert_eq!(provider.display_name, "acme");
        assert_eq!(provider.rotation, Rotation::Strict);
        assert!(provider.has_code_flow());
    }

    #[test]
    fn an_unknown_key_is_named_with_the_file() {
        let text = "id = \"acme\"\ntoken_url = \"https://example.com/t\"\n";
        for (more, key) in [
            ("tokenurl = \"x\"", "tokenurl"),
            ("[dialect]\nscope_seperator = \"comma\"", "scope_seperator"),
            ("rotation = { grace = { seconds = 9, successor = \"same\", more = 1 } }", "more"),
            ("[params.x]\ndescription = \"x\"\nrequired = true", "required"),
            ("[api]\nheader = \"x\"", "header"),
            ("[[api.limits]]\nrequests = 1\nseconds = 1\nper_second = 2", "per_second"),
        ] {
            let error = error(&format!("{text}{more}"));
            assert!(error.starts_with("acme.toml") && error.contains(key), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, says) in [
            ("id = \"Acme\"", "lower-case"),
            ("id = \"acme\"", "`token_url`"),
            ("id = \"acme\"\ntoken_url = \"http://example.com/t\"", "https"),
            ("id = \"acme\"\ntoken_url = \"https://{host}/t\"", "{host}"),
            ("id = \"acme\"\nkind = \"login\"", "`login`"),
            ("id = \"acme\"\nkind = \"request_signing\"\ntoken_url = \"https://example.com/t\"", "`token_url`"),
            ("id = \"acme\"\nauthorize_url = \"https://example.com/a\"", "`token_url`"),
            ("id = \"acme\"\ntoken_url = \"https://example.com/t\"\n[params.x]\ndescription = \"x\"", "`params.x`"),
            ("id = \"acme\"\ntoken_url = \"https://example.com/t\"\nunverified = [\"issuer\"]", "`unverified`"),
            ("id = \"acme\"\ntoken_url = \"https://example.com/t\"\nsources = { revoke = \"m\" }", "`sources`"),
            ("id = \"acme\"\ntoken_url = \"https://example.com/t\"\nsources = { token_url = \"m\" }", "`unverified`"),
            ("id = \"acme\"\ntoken_url = \"https://example.com/t\"\n[identity]", "`identity`"),
            ("id = \"acme\"\nissuer = \"https://example.com\"\n[identity]\nsubject = [\"sub\"]", "`identity`"),
            ("id = \"acme\"\nissuer = \"https://example.com\"\n[identity]\nsubject = []", "`identity`"),
            ("id = \"acme\"\nissuer = \"https://example.com\"\n[identity]\nsource = \"userinfo\"", "`identity`"),
            ("id = \"acme\"\nissuer = \"https://example.com\"\n[identity]\nissuer = \"https://a/{\"", "`identity`"),
            (
                "id = \"acme\"\ntoken_url = \"https://example.com/t\"\n\
                 rotation = { grace = { seconds = 2, successor = \"new\" } }",
                "`rotation`",
            ),
            ("id = \"acme\"\ntoken_url = \"https://example.com/t\"\napi_hosts = [\"example.com/x\"]", "`api_hosts`"),
            (
                "id = \"acme\"\ntoken_url = \"https://example.com/t\"\n[dialect.token_headers]\n\"a b\" = \"x\"",
                "`dialect.token_headers`",
            ),
            (
                "id = \"acme\"\ntoken_url = \"https://{x}.example.com/t\"\n[params.x]\ndescription = \"x\"\n\
                 one_of = [\"a\"]\ndefault = \"b\"",
                "`params.x`",
            ),
        ] {
            let error = error(text);
            assert!(error.starts_with("acme.toml") && error.contains(says), "{text}\n{error}");
        }
    }

    #[test]
    fn the_api_is_called_as_rfc_6750_has_it_unless_something_else_is_said() {
        let base = "id = \"acme\"\ntoken_url = \"https://example.com/t\"\n";
        let plain = parse_provider_toml("acme", base).expect("enough").api;
        assert_eq!(plain, Api::default());
        let text = format!(
            "{base}[api]\ntoken_header = \"X-Token\"\ntoken_prefix = \"\"\nunauthorized = [401, 403]\nlatency_margin = 5\n\
             logins_count = true\nheaders.Notion-Version = \"2022-06-28\"\n\
             [[api.limits]]\nrequests = 10\nseconds = 60\n\
             [[api.limits]]\nper = \"subject\"\nrequests = 10\nseconds = 1\nburst = 20\n"
        );
        let number = |n| NonZeroU32::new(n).expect("not 0");
        let said = Api {
            token_header: "X-Token".into(),
            token_prefix: Some(String::new()),
            unauthorized: vec![401, 403],
            headers: BTreeMap::from([("Notion-Version".into(), "2022-06-28".into())]),
            limits: vec![
                ApiLimit {
                    per: LimitPer::All,
                    limit: Limit::Window { count: number(10), per: Duration::from_mins(1) },
                },
                ApiLimit {
                    per: LimitPer::Subject,
                    limit: Limit::Bucket { burst: number(20), every: Duration::from_millis(100) },
                },
            ],
            latency_margin: Duration::from_secs(5),
            logins_count: true,
        };
        assert_eq!(parse_provider_toml("acme", &text).expect("all of it").api, said);
    }

    #[test]
    fn a_call_that_could_not_be_sent_or_counted_is_refused() {
        for (line, says) in [
            ("token_header = \"a b\"", "`api.token_header`"),
            ("token_header = \"host\"", "`api.token_header`"),
            ("token_prefix = \"a\\n\"", "`api.token_prefix`"),
            ("unauthorized = []", "`api.unauthorized`"),
            ("unauthorized = [200]", "`api.unauthorized`"),
            ("headers.\"a b\" = \"x\"", "`api.headers`"),
            ("headers.connection = \"x\"", "`api.headers`"),
            ("headers.Authorization = \"x\"", "`api.headers`"),
            ("headers.a = \"{x}\"", "`api.headers`"),
            ("headers.a = \"\u{e9}\"", "`api.headers`"),
            ("limits = [{ requests = 10001, seconds = 1 }]", "`api.limits`"),
            ("limits = [{ requests = 2000000, seconds = 1, burst = 1 }]", "`api.limits`"),
            ("limits = [{ requests = 0, seconds = 1 }]", "nonzero"),
        ] {
            let text = format!("id = \"acme\"\ntoken_url = \"https://example.com/t\"\n[api]\n{line}");
            let error = error(&text);
            assert!(error.starts_with("acme.toml") && error.contains(says), "{text}\n{error}");
        }
    }
}
