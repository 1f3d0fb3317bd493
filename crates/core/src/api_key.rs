//! Keys to our own API: who may do what, to whose tokens.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, IntegrationId, ManagedBy, Tenant};

/// A key to the API. What it looks like nobody knows: only its keyed hash is kept.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Names it in lists and logs.
    pub id: ApiKeyId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose tokens; `None` = everybody's.
    pub tenants: Option<BTreeSet<Tenant>>,
    /// At which integrations, named as they stand in paths; `None` = all.
    pub providers: Option<BTreeSet<IntegrationId>>,
    /// The keyed hash of the key.
    pub hash: ApiKeyHash,
    /// Who may change it.
    pub managed_by: ManagedBy,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The keyed SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApiKeyHash(pub [u8; 32]);

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash")
    }
}

/// What a key may do, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything except reading secrets, calling the proxy, deciding where tokens are sent and managing keys.
    Operator,
    /// What an application does with its users' connections.
    Application,
    /// Tokens and their status.
    Reader,
}

/// Something that a key is asked to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Getting an access token.
    ReadToken,
    /// Listing connections and looking at one.
    ReadStatus,
    /// Asking for a refresh. The reply holds the token only if [`Action::ReadToken`] is allowed as well.
    Refresh,
    /// Storing tokens obtained elsewhere.
    PutConnection,
    /// Starting and confirming a connect.
    Connect,
    /// Forgetting a connection, or all of a person's.
    DeleteConnection,
    /// Calling a provider's API through the proxy.
    CallProxy,
    /// Issuing and using backend sessions.
    UseSessions,
    /// Looking at integrations and the catalogue.
    ReadIntegrations,
    /// Changing integrations.
    ManageIntegrations,
    /// Looking at statistics.
    ReadStats,
    /// Starting a clean-up.
    CleanUp,
    /// Looking at the instances.
    ReadInstances,
    /// Saying that an instance never comes back.
    ForgetInstance,
    /// Making, listing and removing API keys.
    ManageKeys,
    /// Looking at the clients of our authorization server.
    ReadClients,
    /// Making, changing and removing them.
    ManageClients,
    /// Looking at what subjects allowed clients.
    ReadGrants,
    /// Ending it.
    RevokeGrants,
    /// Rotating the keys that sign access tokens.
    RotateSigningKeys,
    /// Saying who signed in, where an application brings its own pages.
    AnswerInteractions,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 21] = [
        Action::ReadToken,
        Action::ReadStatus,
        Action::Refresh,
        Action::PutConnection,
        Action::Connect,
        Action::DeleteConnection,
        Action::CallProxy,
        Action::UseSessions,
        Action::ReadIntegrations,
        Action::ManageIntegrations,
        Action::ReadStats,
        Action::CleanUp,
        Action::ReadInstances,
        Action::ForgetInstance,
        Action::ManageKeys,
        Action::ReadClients,
        Action::ManageClients,
        Action::ReadGrants,
        Action::RevokeGrants,
        Action::RotateSigningKeys,
        Action::AnswerInteractions,
    ];
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Admin, Role::Operator, Role::Application, Role::Reader];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Operator => "operator",
            Role::Application => "application",
            Role::Reader => "reader",
        }
    }

    /// The permission matrix.
    pub fn allows(self, action: Action) -> bool {
        match self {
            Role::Admin => true,
            Role::Operator => !matches!(
                action,
                Action::ReadToken | Action::CallProxy | Action::ManageKeys | Action::AnswerInteractions
            ),
            Role::Application => matches!(
                action,
                Action::ReadToken
                    | Action::ReadStatus
                    | Action::Refresh
                    | Action::PutConnection
                    | Action::Connect
                    | Action::DeleteConnection
                    | Action::CallProxy
                    | Action::UseSessions
                    | Action::AnswerInteractions
            ),
            Role::Reader => matches!(action, Action::ReadToken | Action::ReadStatus),
        }
    }
}

impl ApiKey {
    /// Whether its role allows `action`. Whose tokens it may be done to, the two functions below say.
    pub fn allows(&self, action: Action) -> bool {
        self.role.allows(action)
    }

    /// Whether it may name `tenant`, `_default` like any other: a key bound to tenants reaches only those, and a key
    /// without a binding reaches all.
    pub fn allows_tenant(&self, tenant: &Tenant) -> bool {
        self.tenants.as_ref().is_none_or(|bound| bound.contains(tenant))
    }

    /// Whether it may name this integration.
    pub fn allows_integration(&self, integration: &IntegrationId) -> bool {
        self.providers.as_ref().is_none_or(|bound| bound.contains(integration))
    }

    /// Whether it may make or remove `other`: it manages keys, and `other` can do nothing that it cannot.
    pub fn may_manage(&self, other: &ApiKey) -> bool {
        self.allows(Action::ManageKeys)
            && Action::ALL.into_iter().all(|action| self.allows(action) || !other.allows(action))
            && within(other.tenants.as_ref(), self.tenants.as_ref())
            && within(other.providers.as_ref(), self.providers.as_ref())
    }
}

/// Whether a key bound to `inner` reaches nothing beyond `outer`; `None` reaches everything.
fn within<T: Ord>(inner: Option<&BTreeSet<T>>, outer: Option<&BTreeSet<T>>) -> bool {
    match (inner, outer) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner.is_subset(outer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(role: Role, tenants: Option<&[&str]>, providers: Option<&[&str]>) -> ApiKey {
        ApiKey {
            id: ApiKeyId(ulid::Ulid::nil()),
            name: "test".to_owned(),
            role,
            tenants: tenants.map(|all| all.iter().map(|t| Tenant::new(t).unwrap()).collect()),
            providers: providers.map(|all| all.iter().map(|p| IntegrationId::new(p).unwrap()).collect()),
            hash: ApiKeyHash([0; 32]),
            managed_by: ManagedBy::Api,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_matrix_reads_as_documented() {
        let row = |role: Role| Action::ALL.map(|action| if role.allows(action) { 'x' } else { '.' }).iter().collect();
        let matrix: Vec<String> = Role::ALL.map(row).to_vec();
        //                token, status, refresh, put, connect, delete, proxy, sessions,
        //                integrations: read, manage; stats, clean-up; instances: read, forget; keys,
        //                clients: read, manage; grants: read, revoke; signing keys, interactions
        assert_eq!(
            matrix,
            ["xxxxxxxxxxxxxxxxxxxxx", ".xxxxx.xxxxxxx.xxxxx.", "xxxxxxxx............x", "xx...................",]
        );
    }

    #[test]
    fn default_is_a_tenant_like_any_other() {
        let default = Tenant::default_tenant();
        assert!(key(Role::Reader, None, None).allows_tenant(&default));
        assert!(key(Role::Reader, Some(&["_default"]), None).allows_tenant(&default));
        assert!(!key(Role::Admin, Some(&["acme"]), None).allows_tenant(&default));
        assert!(!key(Role::Admin, Some(&[]), None).allows_tenant(&default));
    }

    #[test]
    fn no_key_manages_one_with_more_rights() {
        let everything = key(Role::Admin, None, None);
        for role in Role::ALL {
            assert!(everything.may_manage(&key(role, None, None)), "{role:?}");
            assert_eq!(
                key(role, None, None).may_manage(&key(Role::Reader, None, None)),
                role == Role::Admin,
                "{role:?}"
            );
        }

        let acme = key(Role::Admin, Some(&["acme", "beta"]), None);
        assert!(acme.may_manage(&key(Role::Application, Some(&["acme"]), None)));
        assert!(acme.may_manage(&key(Role::Admin, Some(&["beta", "acme"]), Some(&["google"]))));
        assert!(!acme.may_manage(&key(Role::Reader, Some(&["acme", "gamma"]), None)));
        assert!(!acme.may_manage(&key(Role::Reader, Some(&["_default"]), None)));
        assert!(!acme.may_manage(&key(Role::Reader, None, None)));
        assert!(!acme.may_manage(&everything));

        let google = key(Role::Admin, None, Some(&["google"]));
        assert!(google.may_manage(&key(Role::Admin, Some(&["acme"]), Some(&["google"]))));
        assert!(!google.may_manage(&key(Role::Reader, None, Some(&["github"]))));
        assert!(!google.may_manage(&key(Role::Reader, None, None)));
    }
}
