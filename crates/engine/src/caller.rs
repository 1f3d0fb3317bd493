//! On whose behalf a use case runs. Every use case that a face offers takes one, so that no face can forget to ask.

use std::sync::Arc;

use tokenkeep_core::{Action, ApiKey, IntegrationId, Tenant, ports::Scope};

use crate::Error;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody with an API key.
    Key(Arc<ApiKey>),
    /// The process itself, or its owner on the same machine: everything is allowed.
    Local,
}

impl Caller {
    /// Whether the caller may do `action` at all.
    pub fn may(&self, action: Action) -> Result<(), Error> {
        match self {
            Caller::Key(key) if !key.allows(action) => {
                Err(Error::Forbidden(format!("a key of role `{}` does not allow this", key.role.as_str()).into()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller may do `action` to what belongs to `tenant`.
    pub fn may_in(&self, action: Action, tenant: &Tenant) -> Result<(), Error> {
        self.may(action)?;
        match self {
            Caller::Key(key) if !key.allows_tenant(tenant) => {
                Err(Error::Forbidden("this key is not bound to that tenant".into()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller may do `action` to what `tenant` has at `integration`.
    pub fn may_at(&self, action: Action, integration: &IntegrationId, tenant: &Tenant) -> Result<(), Error> {
        self.may_in(action, tenant)?;
        match self {
            Caller::Key(key) if !key.allows_integration(integration) => {
                Err(Error::Forbidden("this key is not bound to that provider".into()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller sees `tenant` in lists.
    pub fn sees_tenant(&self, tenant: &Tenant) -> bool {
        match self {
            Caller::Key(key) => key.allows_tenant(tenant),
            Caller::Local => true,
        }
    }

    /// Whether the caller sees `integration` in lists.
    pub fn sees_integration(&self, integration: &IntegrationId) -> bool {
        match self {
            Caller::Key(key) => key.allows_integration(integration),
            Caller::Local => true,
        }
    }

    /// Whether the caller is bound to no provider.
    pub fn sees_every_integration(&self) -> bool {
        match self {
            Caller::Key(key) => key.providers.is_none(),
            Caller::Local => true,
        }
    }

    /// Whether everything is within the caller's bounds.
    pub fn is_unbound(&self) -> bool {
        match self {
            Caller::Key(key) => key.tenants.is_none() && key.providers.is_none(),
            Caller::Local => true,
        }
    }

    /// The narrowest scope that holds everything of `tenant` (or of all tenants) the caller may see.
    pub fn scope(&self, tenant: Option<&Tenant>) -> Scope {
        match (tenant, self) {
            (Some(tenant), _) => Scope::Tenant(tenant.clone()),
            (None, Caller::Key(key)) => match &key.tenants {
                Some(bound) if bound.len() == 1 => {
                    bound.first().map_or(Scope::Every, |only| Scope::Tenant(only.clone()))
                }
                _ => Scope::Every,
            },
            (None, Caller::Local) => Scope::Every,
        }
    }

    /// The caller's name in the audit log.
    pub fn name(&self) -> String {
        match self {
            Caller::Key(key) => format!("key:{}", key.id),
            Caller::Local => "local".to_owned(),
        }
    }
}
