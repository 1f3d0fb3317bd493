//! Filling a provider's templates in for one integration.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use tokenkeep_oauth::{CredentialKind, Dialect, login::LoginDialect};
use url::Url;

use super::{
    Api, Identity, Kind, Login, Param, Provider, Revocation, Rotation,
    template::{CREDENTIALS, IMPLICIT, Piece, cut, is_host, is_labels, is_segment, is_text, parse, split},
};
use crate::ProviderId;

/// A provider as one integration meets it: every template is filled in, every URL is one a token may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedProvider {
    /// [`Provider::id`].
    pub id: ProviderId,
    /// [`Provider::kind`].
    pub kind: Kind,
    /// [`Provider::authorize_url`].
    pub authorize_url: Option<Url>,
    /// [`Provider::token_url`].
    pub token_url: Option<Url>,
    /// [`Provider::refresh_url`], or else `token_url`.
    pub refresh_url: Option<Url>,
    /// [`Provider::revoke`].
    pub revoke: Option<Revocation<Url>>,
    /// [`Provider::device_authorization_url`].
    pub device_authorization_url: Option<Url>,
    /// [`Provider::issuer`], as it is written: issuers are compared as strings (RFC 9207 2.4).
    pub issuer: Option<String>,
    /// [`Provider::userinfo_url`].
    pub userinfo_url: Option<Url>,
    /// [`Provider::identity`].
    pub identity: Option<Identity<Url>>,
    /// [`Provider::login`]. `{client_id}` and the credentials' own names still stand there: they are filled in with the
    /// request.
    pub login: Option<Login<Url>>,
    /// [`Provider::api_hosts`].
    pub api_hosts: Vec<String>,
    /// [`Provider::api`]; headers that came out empty are gone. `{client_id}` still stands there: it is filled in with
    /// the request.
    pub api: Api,
    /// [`Provider::default_scope`].
    pub default_scope: Option<String>,
    /// [`Provider::offline_scope`].
    pub offline_scope: Option<String>,
    /// [`Provider::dialect`]; parameters and headers that came out empty are gone. `{client_id}` and `{redirect_uri}`
    /// still stand there: they are filled in with the request.
    pub dialect: Dialect,
    /// The parameters as they are in force: given, or else their defaults.
    pub params: BTreeMap<String, String>,
    /// [`Provider::rotation`].
    pub rotation: Rotation,
    /// [`Provider::default_lifetime`].
    pub default_lifetime: Option<Duration>,
    /// [`Provider::margin`].
    pub margin: Option<Duration>,
}

impl ResolvedProvider {
    /// [`Provider::takes`].
    pub fn takes(&self) -> Option<CredentialKind> {
        super::takes(self.kind, self.login.as_ref().map(|login| &login.dialect))
    }
}

/// Why an integration's `params` do not fit its provider. The fault is the integration's; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// It is required.
    #[error("`params.{name}` is missing: {description}")]
    Missing {
        /// Which.
        name: String,
        /// What the provider says of it.
        description: String,
    },
    /// The provider knows of no such parameter.
    #[error("`params.{name}` is unknown to this provider; it takes {known}")]
    Unknown {
        /// Which.
        name: String,
        /// What there is instead.
        known: String,
    },
    /// Its value does not fit its place.
    #[error("`params.{name}` {problem}")]
    Invalid {
        /// Which.
        name: String,
        /// What it must be.
        problem: String,
    },
    /// The template itself is none; cannot be for a provider that was read by the catalogue.
    #[error("the provider's `{template}` {problem}")]
    Template {
        /// Which.
        template: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Provider {
    /// Fills every template in from an integration's `params`, and checks what comes out. Beside the declared
    /// parameters, `client_id` may be given: the integration's own, needed where a URL names it.
    pub fn resolve(&self, params: &BTreeMap<String, String>) -> Result<ResolvedProvider, ParamError> {
        let fill = Fill { provider: self, given: params };
        fill.check_given()?;
        let mut dialect = self.dialect.clone();
        for map in [
            &mut dialect.authorize_params,
            &mut dialect.token_params,
            &mut dialect.refresh_params,
            &mut dialect.token_headers,
        ] {
            *map = fill.map(map)?;
        }
        if let Some(swap) = &mut dialect.long_lived {
            swap.url = fill.url(&swap.url)?.into();
        }
        let url = |template: &Option<String>| template.as_deref().map(|t| fill.url(t)).transpose();
        let token_url = url(&self.token_url)?;
        Ok(ResolvedProvider {
            id: self.id.clone(),
            kind: self.kind,
            authorize_url: url(&self.authorize_url)?,
            refresh_url: url(&self.refresh_url)?.or_else(|| token_url.clone()),
            token_url,
            revoke: match &self.revoke {
                None => None,
                Some(Revocation { method, url }) => Some(Revocation { method: *method, url: fill.url(url)? }),
            },
            device_authorization_url: url(&self.device_authorization_url)?,
            issuer: self.issuer.as_deref().map(|t| fill.url_text(t)).transpose()?,
            userinfo_url: url(&self.userinfo_url)?,
            identity: self.identity.as_ref().map(|identity| identity.resolve(|t| fill.url(t))).transpose()?,
            login: match &self.login {
                None => None,
                Some(Login { url, dialect }) => Some(Login {
                    url: fill.url(url)?,
                    dialect: LoginDialect {
                        params: fill.map_for_login(&dialect.params)?,
                        headers: fill.map_for_login(&dialect.headers)?,
                        ..dialect.clone()
                    },
                }),
            },
            api_hosts: fill.hosts(&self.api_hosts)?,
            api: Api { headers: fill.map(&self.api.headers)?, ..self.api.clone() },
            default_scope: self.default_scope.clone(),
            offline_scope: self.offline_scope.clone(),
            dialect,
            params: fill.in_force()?,
            rotation: self.rotation,
            default_lifetime: self.default_lifetime,
            margin: self.margin,
        })
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Place {
    WholeHost,
    Labels,
    Segment,
    Text,
    /// Where credentials may stand, too.
    LoginText,
}

impl Place {
    /// Whether a hole of this name is filled in with the request only.
    fn leaves(self, name: &str) -> bool {
        match self {
            Place::Text => IMPLICIT.contains(&name),
            Place::LoginText => IMPLICIT.contains(&name) || CREDENTIALS.contains(&name),
            Place::WholeHost | Place::Labels | Place::Segment => false,
        }
    }
}

struct Fill<'a> {
    provider: &'a Provider,
    given: &'a BTreeMap<String, String>,
}

impl Fill<'_> {
    /// Every given parameter must be one the provider knows.
    fn check_given(&self) -> Result<(), ParamError> {
        let declared = &self.provider.params;
        match self.given.keys().find(|n| !declared.contains_key(*n) && !IMPLICIT.contains(&n.as_str())) {
            None => Ok(()),
            Some(name) => {
                let known = declared.keys().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                let known = if known.is_empty() { "none".to_owned() } else { known };
                Err(ParamError::Unknown { name: name.clone(), known })
            }
        }
    }

    fn in_force(&self) -> Result<BTreeMap<String, String>, ParamError> {
        self.provider
            .params
            .keys()
            .map(|name| Ok((name.clone(), self.checked(name, Place::Text)?.to_owned())))
            .collect()
    }

    fn url(&self, template: &str) -> Result<Url, ParamError> {
        let text = self.url_text(template)?;
        parse(&text).map_err(|problem| bad_template(template, problem))
    }

    /// The URL as the template writes it, without the normal form that parsing would give it.
    fn url_text(&self, template: &str) -> Result<String, ParamError> {
        let (scheme, host, rest) = split(template).ok_or_else(|| bad_template(template, "is no URL"))?;
        let host = self.host(host)?;
        let text = format!("{scheme}{host}{}", self.fill(rest, |_| Place::Segment)?);
        // A last look at the whole: the host that requests will go to is the one the template means.
        let url = parse(&text).map_err(|problem| bad_template(template, problem))?;
        let meant = parse(&format!("{scheme}{host}/")).map_err(|problem| bad_template(template, problem))?;
        if url.origin() == meant.origin() { Ok(text) } else { Err(bad_template(template, "leads to another host")) }
    }

    fn host(&self, template: &str) -> Result<String, ParamError> {
        self.fill(template, |pieces| if pieces == 1 { Place::WholeHost } else { Place::Labels })
    }

    fn hosts(&self, templates: &[String]) -> Result<Vec<String>, ParamError> {
        let mut hosts = Vec::with_capacity(templates.len());
        for template in templates {
            let empty = cut(template).is_some_and(|pieces| {
                pieces.iter().any(|p| matches!(p, Piece::Hole(name) if self.value(name).is_ok_and(str::is_empty)))
            });
            if !empty {
                hosts.push(self.host(template)?);
            }
        }
        Ok(hosts)
    }

    fn map(&self, templates: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ParamError> {
        self.map_in(templates, Place::Text)
    }

    fn map_for_login(&self, templates: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ParamError> {
        self.map_in(templates, Place::LoginText)
    }

    fn map_in(
        &self,
        templates: &BTreeMap<String, String>,
        place: Place,
    ) -> Result<BTreeMap<String, String>, ParamError> {
        let mut map = BTreeMap::new();
        for (name, template) in templates {
            let value = self.fill(template, |_| place)?;
            if !value.is_empty() {
                map.insert(name.clone(), value);
            }
        }
        Ok(map)
    }

    /// Fills `template` in; `place` is told how many pieces it has.
    fn fill(&self, template: &str, place: impl Fn(usize) -> Place) -> Result<String, ParamError> {
        let pieces = cut(template).ok_or_else(|| bad_template(template, "has a stray brace"))?;
        let place = place(pieces.len());
        let mut filled = String::with_capacity(template.len());
        for piece in pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Hole(name) if place.leaves(name) => {
                    let _ = write!(filled, "{{{name}}}");
                }
                Piece::Hole(name) => filled.push_str(self.checked(name, place)?),
            }
        }
        Ok(filled)
    }

    fn checked(&self, name: &str, place: Place) -> Result<&str, ParamError> {
        let value = self.value(name)?;
        let invalid = |problem: String| Err(ParamError::Invalid { name: name.to_owned(), problem });
        let param = self.provider.params.get(name);
        if let Some(Param { one_of, .. }) = param
            && !one_of.is_empty()
        {
            return if one_of.iter().any(|v| v == value) {
                Ok(value)
            } else {
                invalid(format!("must be one of {}", one_of.join(", ")))
            };
        }
        if value.is_empty() && !matches!(place, Place::Text | Place::LoginText) {
            return Err(self.missing(name));
        }
        let (fits, must) = match place {
            Place::WholeHost => (is_host(value), "must be a host name, as in `login.example.com`"),
            Place::Labels => (is_labels(value), "must be a part of a host name: letters, digits, `-` and `.`"),
            Place::Segment => (is_segment(value), "may hold only letters, digits, `-`, `.`, `_` and `~`"),
            Place::Text | Place::LoginText => (is_text(value), "may hold only printable ASCII"),
        };
        if !fits {
            return invalid(must.to_owned());
        }
        match param {
            Some(Param { ends_with, .. })
                if matches!(place, Place::WholeHost) && !ends_with.is_empty() && !is_under(value, ends_with) =>
            {
                invalid(format!("must end in {}", ends_with.join(" or ")))
            }
            _ => Ok(value),
        }
    }

    fn value(&self, name: &str) -> Result<&str, ParamError> {
        let default = || self.provider.params.get(name).and_then(|p| p.default.as_ref());
        match self.given.get(name).filter(|v| !v.is_empty()).or_else(default) {
            Some(value) => Ok(value),
            None => Err(self.missing(name)),
        }
    }

    fn missing(&self, name: &str) -> ParamError {
        let description = match self.provider.params.get(name) {
            Some(param) => param.description.clone(),
            None => "the integration's own".to_owned(),
        };
        ParamError::Missing { name: name.to_owned(), description }
    }
}

/// Whether the host of `value` is under one of `domains`, each with its leading dot.
fn is_under(value: &str, domains: &[String]) -> bool {
    let name = value.split(':').next().unwrap_or_default().to_ascii_lowercase();
    domains.iter().any(|domain| name.ends_with(domain.as_str()))
}

fn bad_template(template: &str, problem: &str) -> ParamError {
    ParamError::Template { template: template.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::RevocationMethod;

    fn provider() -> Provider {
        let param = |default: Option<&str>| Param {
            description: "for the test".to_owned(),
            default: default.map(str::to_owned),
            ..Param::default()
        };
        let mut p = Provider::new(ProviderId::new("test").expect("a slug"));
        p.params = BTreeMap::from([
            ("shop".to_owned(), param(Some("acme"))),
            ("tenant".to_owned(), param(Some("common"))),
            ("domain".to_owned(), Param { ends_with: vec![".example.com".into()], ..param(Some("id.example.com")) }),
            ("dc".to_owned(), Param { one_of: vec!["com".into(), "co.uk".into()], ..param(Some("com")) }),
            ("audience".to_owned(), param(Some(""))),
            ("instance".to_owned(), param(Some(""))),
        ]);
        p.authorize_url = Some("https://{shop}.example.com/{tenant}/authorize".into());
        p.token_url = Some("https://example.{dc}/token".into());
        p.userinfo_url = Some("https://{domain}/userinfo".into());
        p.api_hosts = vec!["{shop}.example.com".into(), "{instance}.example.com".into()];
        p.dialect.authorize_params = BTreeMap::from([("audience".into(), "{audience}".into())]);
        p.api.headers = BTreeMap::from([
            ("x-audience".into(), "{audience}".into()),
            ("x-shop".into(), "{shop} {client_id}".into()),
        ]);
        p
    }

    fn resolve(params: &[(&str, &str)]) -> Result<ResolvedProvider, ParamError> {
        provider().resolve(&params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn defaults_stand_in_and_empty_ones_send_nothing() {
        let p = resolve(&[]).expect("all have defaults");
        assert_eq!(p.authorize_url.expect("one").as_str(), "https://acme.example.com/common/authorize");
        assert_eq!(p.refresh_url, p.token_url);
        assert_eq!(p.api_hosts, ["acme.example.com"]);
        assert!(p.dialect.authorize_params.is_empty());
        assert_eq!(p.api.headers, BTreeMap::from([("x-shop".into(), "acme {client_id}".into())]));
    }

    #[test]
    fn values_are_filled_in() {
        let p = resolve(&[
            ("shop", "a.b"),
            ("tenant", "contoso.onmicrosoft.com"),
            ("dc", "co.uk"),
            ("domain", "x.example.com:8443"),
            ("audience", "https://api/ x"),
            ("instance", "na1"),
        ])
        .expect("all fit");
        assert_eq!(p.authorize_url.expect("one").as_str(), "https://a.b.example.com/contoso.onmicrosoft.com/authorize");
        assert_eq!(p.token_url.expect("one").as_str(), "https://example.co.uk/token");
        assert_eq!(p.api_hosts, ["a.b.example.com", "na1.example.com"]);
        assert_eq!(p.dialect.authorize_params["audience"], "https://api/ x");
        assert_eq!(p.api.headers["x-audience"], "https://api/ x");
    }

    #[test]
    fn no_value_leads_elsewhere() {
        for (name, value) in [
            ("shop", "evil.com/"),
            ("shop", "evil.com#"),
            ("shop", "evil.com?"),
            ("shop", "evil.com\\"),
            ("shop", "evil.com:443/x"),
            ("shop", "u@evil"),
            ("shop", "a..b"),
            ("shop", "a."),
            ("shop", ".a"),
            ("shop", "%2f"),
            ("shop", "evil.com\t"),
            ("tenant", ".."),
            ("tenant", "."),
            ("tenant", "a/b"),
            ("tenant", "a?b"),
            ("tenant", "a#b"),
            ("tenant", "a%2fb"),
            ("tenant", "a\\b"),
            ("dc", "evil.com"),
            ("dc", "net"),
            ("domain", "evil.com"),
            ("domain", "evil.com/.example.com"),
            ("domain", "evilexample.com"),
            ("domain", "u@x.example.com"),
            ("domain", "x.example.com:0"),
            ("audience", "a\r\nb"),
        ] {
            match resolve(&[(name, value)]) {
                Err(ParamError::Invalid { name: blamed, .. }) => assert_eq!(blamed, name),
                other => panic!("{name}={value:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_missing_or_unknown_one_is_named() {
        let mut p = provider();
        p.params.get_mut("shop").expect("declared").default = None;
        let error = p.resolve(&BTreeMap::new()).expect_err("required");
        assert_eq!(error.to_string(), "`params.shop` is missing: for the test");
        let error = resolve(&[("shpo", "x")]).expect_err("unknown");
        assert!(matches!(&error, ParamError::Unknown { name, .. } if name == "shpo"), "{error}");
    }

    #[test]
    fn the_integrations_own_need_no_declaration() {
        let mut p = provider();
        let url = "https://api.example.com/{client_id}/grant".to_owned();
        p.revoke = Some(Revocation { method: RevocationMethod::BasicDelete, url });
        assert!(matches!(p.resolve(&BTreeMap::new()), Err(ParamError::Missing { name, .. }) if name == "client_id"));
        let p = p.resolve(&BTreeMap::from([("client_id".into(), "Iv1.8a61".into())])).expect("given");
        assert_eq!(p.revoke.expect("one").url.as_str(), "https://api.example.com/Iv1.8a61/grant");
    }

    #[test]
    fn http_is_for_loopback_only() {
        let mut p = Provider::new(ProviderId::new("test").expect("a slug"));
        p.params = BTreeMap::from([("host".to_owned(), Param::default())]);
        p.token_url = Some("http://{host}/token".into());
        let at = |host: &str| p.resolve(&BTreeMap::from([("host".into(), host.into())]));
        assert!(at("localhost:8080").is_ok());
        assert!(at("127.0.0.1:8080").is_ok());
        assert!(at("example.com").is_err());
    }
}
