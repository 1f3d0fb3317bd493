//! Tokens and AppRole, after <https://developer.hashicorp.com/vault/api-docs/auth/token> and
//! <https://developer.hashicorp.com/vault/api-docs/auth/approle>.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokenkeep_core::Boot;

use super::reply::Reply;

/// What a token may do: paths, which may end in `*`, and capabilities. Nothing else is allowed.
#[derive(Clone, Debug)]
pub struct Policy(pub Vec<(String, Vec<&'static str>)>);

impl Policy {
    /// Everything, as root may.
    pub fn root() -> Self {
        Self(vec![("*".into(), vec!["root"])])
    }

    /// The capabilities on `path`: those of the longest pattern that fits
    /// (<https://developer.hashicorp.com/vault/docs/concepts/policies#priority-matching>).
    pub(super) fn on(&self, path: &str) -> Vec<&'static str> {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == pattern,
        };
        let best = self.0.iter().filter(|(pattern, _)| fits(pattern)).max_by_key(|(pattern, _)| pattern.len());
        best.map_or_else(|| vec!["deny"], |(_, capabilities)| capabilities.clone())
    }
}

/// How a token or role lives.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// From login or renewal to the end; none for a token without end.
    pub ttl: Option<Duration>,
    /// From login to the end, whatever is renewed.
    pub max: Duration,
    /// Whether it can be renewed at all.
    pub renewable: bool,
}

impl Life {
    /// Without end.
    pub const ENDLESS: Self = Self { ttl: None, max: Duration::MAX, renewable: false };
}

#[derive(Debug)]
pub(super) struct Token {
    pub(super) namespace: String,
    pub(super) policy: Policy,
    life: Life,
    born: Boot,
    ends: Option<Boot>,
}

#[derive(Debug)]
pub(super) struct Role {
    pub(super) secret_id: String,
    pub(super) namespace: String,
    pub(super) policy: Policy,
    pub(super) life: Life,
    /// `secret_id_num_uses`, less those used; none for any number.
    pub(super) uses_left: Option<u32>,
}

/// Who may come in.
#[derive(Debug, Default)]
pub(super) struct Doors {
    pub(super) tokens: BTreeMap<String, Token>,
    pub(super) roles: BTreeMap<String, Role>,
    issued: u64,
}

impl Doors {
    pub(super) fn issue(&mut self, namespace: &str, policy: Policy, life: Life, now: Boot) -> String {
        self.issued += 1;
        let id = format!("hvs.fake-{}", self.issued);
        let ends = life.ttl.map(|ttl| now + ttl.min(life.max));
        self.tokens.insert(id.clone(), Token { namespace: namespace.to_owned(), policy, life, born: now, ends });
        id
    }

    /// The token, if it is good in `namespace`: its own, or one below (a root token's are all).
    pub(super) fn token(&self, id: &str, namespace: &str, now: Boot) -> Option<&Token> {
        let token = self.tokens.get(id)?;
        let below = token.namespace.is_empty() || namespace == token.namespace;
        (below && token.ends.is_none_or(|ends| now < ends)).then_some(token)
    }

    /// "Login With AppRole".
    pub(super) fn log_in(&mut self, namespace: &str, body: &Value, now: Boot) -> Reply {
        let role = body["role_id"].as_str().and_then(|id| self.roles.get_mut(id));
        let Some(role) = role.filter(|role| role.namespace == namespace) else {
            return Reply::error(400, "invalid role or secret ID");
        };
        if body["secret_id"].as_str() != Some(&role.secret_id) || role.uses_left == Some(0) {
            return Reply::error(400, "invalid role or secret ID");
        }
        role.uses_left = role.uses_left.map(|left| left - 1);
        let (policy, life) = (role.policy.clone(), role.life);
        let id = self.issue(namespace, policy, life, now);
        self.granted(&id, now)
    }

    /// "Renew a Token (Self)": never beyond the token's maximum.
    pub(super) fn renew(&mut self, id: &str, now: Boot) -> Reply {
        let Some(token) = self.tokens.get_mut(id) else { return Reply::denied() };
        let (true, Some(ttl)) = (token.life.renewable, token.life.ttl) else {
            return Reply::error(400, "lease is not renewable");
        };
        token.ends = Some((now + ttl).min(Boot(token.born.0.saturating_add(token.life.max))));
        self.granted(id, now)
    }

    /// "Lookup a Token (Self)".
    pub(super) fn look_up(&self, id: &str, now: Boot) -> Reply {
        let Some(token) = self.tokens.get(id) else { return Reply::denied() };
        let ttl = token.ends.map_or(0, |ends| ends.since(now).as_secs());
        Reply::data(&json!({"id": id, "ttl": ttl, "renewable": token.life.renewable}))
    }

    fn granted(&self, id: &str, now: Boot) -> Reply {
        let token = &self.tokens[id];
        let left = token.ends.map_or(0, |ends| ends.since(now).as_secs());
        Reply::json(
            200,
            &json!({
                "data": null, "warnings": null,
                "auth": {"client_token": id, "lease_duration": left, "renewable": token.life.renewable},
            }),
        )
    }
}
