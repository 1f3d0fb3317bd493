//! The provider that all instances refresh at: strict, in this process, with a perfect memory.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use tokenkeep_core::Rotation;
use tokenkeep_engine::system::SystemClock;
use tokenkeep_testkit::{Config, FakeProvider, Issued, Outcome};

pub const CLIENT_SECRET: &str = "storm-client-secret-4c1d9e";

pub struct Upstream {
    pub provider: FakeProvider,
}

/// A connection as it is before the storm: its number is the number of its family at the provider.
pub struct Seed {
    pub number: usize,
    pub access_token: String,
    pub refresh_token: String,
}

impl Upstream {
    pub async fn start() -> Self {
        let config = Config { client_secret: CLIENT_SECRET.to_owned(), ..Config::rotating(Rotation::Strict) };
        Self { provider: FakeProvider::start(Arc::new(SystemClock), config).await }
    }

    /// The provider and our client there, for an instance's configuration.
    pub fn config(&self) -> String {
        let issuer = self.provider.issuer();
        format!(
            "[[provider]]\nid = \"fake\"\ndisplay_name = \"Fake\"\nauthorize_url = \"{issuer}/authorize\"\n\
             token_url = \"{issuer}/token\"\nrotation = \"strict\"\nmargin = 60\n\n\
             [[integration]]\nid = \"fake\"\nprovider = \"fake\"\nclient_id = \"fake-client\"\n\
             client_secret = \"{CLIENT_SECRET}\"\n"
        )
    }

    pub fn seed(&self) -> anyhow::Result<Seed> {
        let issued = self.provider.seed("storm");
        let refresh_token = issued.refresh_token.context("the provider gave no refresh token")?;
        Ok(Seed { number: issued.family, access_token: issued.access_token, refresh_token })
    }

    /// What the provider handed out over its token endpoint, in the order of the requests.
    pub fn issued(&self) -> Vec<Issued> {
        let log = self.provider.log();
        let issued = log.into_iter().filter_map(|call| match call.outcome {
            Some(Outcome::Issued(issued)) => Some(issued),
            _ => None,
        });
        issued.collect()
    }

    /// Where in the provider's log the refreshes of each family stand.
    pub fn calls_by_number(&self) -> HashMap<usize, Vec<usize>> {
        let log = self.provider.log();
        let views = self.provider.families();
        let tokens = views.iter().flat_map(|view| view.refresh_tokens.iter().map(|token| (&*token.token, view.family)));
        let family: HashMap<&str, usize> = tokens.collect();
        let mut calls: HashMap<usize, Vec<usize>> = HashMap::new();
        for (place, call) in log.iter().enumerate() {
            if let Some(number) = call.refresh_token.as_deref().and_then(|token| family.get(token)) {
                calls.entry(*number).or_default().push(place);
            }
        }
        calls
    }

    /// The newest tokens of every family that was ever refreshed.
    pub fn newest(&self) -> HashMap<usize, Issued> {
        self.issued().into_iter().map(|issued| (issued.family, issued)).collect()
    }
}

/// A connection's path in the API.
pub fn path(number: usize) -> String {
    format!("/v1/connections/fake/_default/s-{number}")
}
