//! How a provider's API is called with a token, and how often. Data only.

use std::{collections::BTreeMap, time::Duration};

use crate::ports::Limit;

/// How a provider's API is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The header that carries the token.
    pub token_header: String,
    /// What stands before the token. `None` = its own type and a space (`Bearer `); empty = nothing.
    pub token_prefix: Option<String>,
    /// The statuses that say the token is no good.
    pub unauthorized: Vec<u16>,
    /// Headers of every call, unless the caller gives them. Values are templates; `{client_id}` is the integration's.
    pub headers: BTreeMap<String, String>,
    /// How often it may be called. Every one of them holds.
    pub limits: Vec<ApiLimit>,
    /// By how much two calls may differ in the time they take to arrive: it lengthens the windows of `limits`.
    pub latency_margin: Duration,
    /// Whether a login ([`super::Login`]) takes from `limits` as a call does.
    pub logins_count: bool,
}

impl Default for Api {
    /// As RFC 6750 has it, and as often as one likes.
    fn default() -> Self {
        Self {
            token_header: "authorization".to_owned(),
            token_prefix: None,
            unauthorized: vec![401],
            headers: BTreeMap::new(),
            limits: Vec::new(),
            latency_margin: Duration::ZERO,
            logins_count: false,
        }
    }
}

/// How often a provider's API may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApiLimit {
    /// Who shares it.
    pub per: LimitPer,
    /// How often, as the provider says it.
    pub limit: Limit,
}

impl ApiLimit {
    /// What may be sent so that no more than [`ApiLimit::limit`] arrives, if calls differ by no more than `margin` in
    /// the time they take.
    pub fn with_margin(self, margin: Duration) -> Limit {
        match self.limit {
            Limit::Window { count, per } => Limit::Window { count, per: per + margin },
            bucket @ Limit::Bucket { .. } => bucket,
        }
    }
}

/// Who shares a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitPer {
    /// All calls with one integration.
    All,
    /// The calls of one tenant with it.
    Tenant,
    /// The calls of one connection.
    Subject,
}

impl LimitPer {
    /// The word for it in the catalogue's files and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitPer::All => "all",
            LimitPer::Tenant => "tenant",
            LimitPer::Subject => "subject",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_margin_lengthens_a_window_and_leaves_a_bucket() {
        let (ten, margin) = (NonZeroU32::new(10).expect("not 0"), Duration::from_secs(5));
        let window = |seconds| Limit::Window { count: ten, per: Duration::from_secs(seconds) };
        let limit = ApiLimit { per: LimitPer::All, limit: window(60) };
        assert_eq!(limit.with_margin(margin), window(65));
        let bucket = Limit::Bucket { burst: ten, every: Duration::from_secs(1) };
        assert_eq!(ApiLimit { per: LimitPer::All, limit: bucket }.with_margin(margin), bucket);
    }
}
