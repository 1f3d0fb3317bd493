//! What the rooms share.

use std::sync::Arc;

use tokenkeep_core::{Client, ClientId, IntegrationId, Role, Tenant};
use tokenkeep_engine::{
    Caller, NewKey,
    issuer::{NewClient, Refused},
};
use tokenkeep_oauth::{Secret, issuer::client::AuthMethod};

use crate::common::issuer::{TestIssuer, metadata, post};

pub(crate) const CHOSEN: &str = "correct-horse-battery-staple";

pub(crate) fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

pub(crate) fn new(method: AuthMethod) -> NewClient {
    NewClient { metadata: metadata(method), id: None, secret: None, resources: None }
}

pub(crate) fn code_of(refused: &Refused) -> String {
    refused.told().code.to_string()
}

pub(crate) async fn caller(test: &TestIssuer, role: Role, tenant: Option<&str>, provider: Option<&str>) -> Caller {
    let key = NewKey {
        name: "a test's".to_owned(),
        role,
        tenants: tenant.map(|tenant| [Tenant::new(tenant).unwrap()].into()),
        providers: provider.map(|provider| [IntegrationId::new(provider).unwrap()].into()),
    };
    Caller::Key(Arc::new(test.engine.keys().create(&Caller::Local, key).await.unwrap().0))
}

pub(crate) async fn authenticates(test: &TestIssuer, client: &Client, secret: &Secret) -> bool {
    test.issuer().authenticate(post(client, secret)).await.is_ok()
}
