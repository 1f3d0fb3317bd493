//! An authorization server to test, and what its users would have brought about.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokenkeep_core::{
    Client, ClientId, Grant, GrantId, Rotation, Subject,
    grant::{CODE_LIFE, Code, GrantSeed, GrantStage, User},
    ports::{Entropy as _, Expect, Put},
    time::after,
};
use tokenkeep_engine::{
    Caller, Engine,
    issuer::{Admitted, Issuer, IssuerSettings, NewClient, ProtectedResource, Registration, Upstream},
    records::Records,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        authorize::CodeChallenge,
        client::{AuthMethod, ClientMetadata, GrantType},
        jws::Algorithm,
        metadata::Issuer as IssuerUrl,
        redirect_uri::RedirectUri,
        resource::Resource,
        scope::ScopeSet,
        token::{Credential, TokenRequest},
    },
};
use tokenkeep_testkit::SeededEntropy;

use super::{World, barrier, now};

pub const ISSUER: &str = "https://auth.example.com";
pub const RESOURCE: &str = "https://mcp.example.com/mcp";
pub const OTHER_RESOURCE: &str = "https://api.example.com";
pub const REDIRECT: &str = "https://app.example.com/callback";
/// RFC 7636 appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// Two resources, open registration, an administrator to sign in as.
pub fn settings() -> IssuerSettings {
    let resource = |url: &str, scopes: &str| ProtectedResource {
        resource: Resource::parse(url).unwrap(),
        name: None,
        scopes: ScopeSet::parse(scopes).unwrap(),
        algorithm: None,
        signing_secret: None,
        introspectors: BTreeSet::new(),
        exchangers: BTreeSet::new(),
        needs_upstream: false,
        upstreams: Vec::new(),
    };
    IssuerSettings {
        url: IssuerUrl::parse(ISSUER).unwrap(),
        registration: Registration::Open,
        document_hosts: BTreeSet::new(),
        access_token_ttl: Duration::from_hours(1),
        refresh_token_ttl: Duration::from_hours(30 * 24),
        algorithm: Algorithm::Es256,
        upstreams: vec![Upstream::LocalAdministrator],
        resources: vec![resource(RESOURCE, "read write"), resource(OTHER_RESOURCE, "admin")],
        admitted: Admitted::default(),
        interaction_url: None,
        clients: Vec::new(),
        trusted_proxies: BTreeSet::new(),
    }
}

/// One engine that issues, in a world of its own.
pub struct TestIssuer {
    pub world: World,
    pub engine: Engine,
}

impl TestIssuer {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: IssuerSettings) -> Self {
        let mut world = World::new(Rotation::Strict).await;
        world.issuer = Some(settings);
        let engine = world.engine(1, None).await;
        Self { world, engine }
    }

    pub fn issuer(&self) -> &Issuer {
        self.engine.issuer().unwrap()
    }

    pub fn advance(&self, by: Duration) {
        self.world.clock.advance(by);
    }

    /// A client of the operator's, with a secret where it has one.
    pub async fn client(&self, method: AuthMethod) -> (Client, Option<Secret>) {
        make_client(self.issuer(), method).await
    }
}

pub async fn make_client(issuer: &Issuer, method: AuthMethod) -> (Client, Option<Secret>) {
    let new = NewClient { metadata: metadata(method), id: None, secret: None, resources: None };
    issuer.create_client(&Caller::Local, new).await.unwrap()
}

/// Of a client that may use every grant that goes with the method.
pub fn metadata(method: AuthMethod) -> ClientMetadata {
    let mut metadata = ClientMetadata::new(
        method,
        GrantType::ALL.into_iter().filter(|grant| {
            let needs_proof = matches!(grant, GrantType::ClientCredentials | GrantType::TokenExchange);
            method != AuthMethod::None || !needs_proof
        }),
    );
    metadata.redirect_uris = vec![RedirectUri::register(REDIRECT).unwrap()];
    metadata
}

pub fn post(client: &Client, secret: &Secret) -> Credential {
    Credential::Post { client_id: client.id.to_string(), secret: secret.clone() }
}

/// What alice allows `client`, and its code: as consent and sign-in would leave it. `seed` makes it its own.
pub async fn granted(world: &World, client: &ClientId, seed: u64) -> (GrantId, Secret) {
    granted_by(world, client, "fake|alice", seed).await
}

pub async fn granted_by(world: &World, client: &ClientId, subject: &str, seed: u64) -> (GrantId, Secret) {
    use tokenkeep_core::ports::Clock as _;
    let entropy = SeededEntropy::new(seed);
    let grant = Grant {
        id: GrantId(entropy.ulid(world.clock.now())),
        client: client.clone(),
        subject: Subject::new(subject).unwrap(),
        user: User { name: Some("Alice".to_owned()), email: None },
        scope: ScopeSet::parse("read write").unwrap(),
        resource: Resource::parse(RESOURCE).unwrap(),
        connection: None,
        exchangers: BTreeSet::new(),
        seed: GrantSeed::new(entropy.bytes32()),
        created_at: now(world),
        stage: GrantStage::Coded(Code {
            redirect_uri: REDIRECT.to_owned(),
            challenge: CodeChallenge::parse(CHALLENGE).unwrap(),
            expires_at: after(now(world), CODE_LIFE),
        }),
        live: Vec::new(),
        session: None,
    };
    let records = Records::new(world.store.clone(), Arc::new(barrier(0)), world.clock.clone(), false);
    assert!(matches!(records.save(&grant, (), Expect::Absent).await.unwrap(), Put::Committed(_)));
    (grant.id, grant.token(0))
}

pub fn redeem(code: &Secret) -> TokenRequest {
    TokenRequest::AuthorizationCode {
        code: code.clone(),
        redirect_uri: Some(REDIRECT.to_owned()),
        verifier: Some(VERIFIER.into()),
        resource: None,
    }
}

pub fn refresh(refresh_token: &Secret) -> TokenRequest {
    TokenRequest::RefreshToken { refresh_token: refresh_token.clone(), scope: None, resource: None }
}

pub fn client_credentials() -> TokenRequest {
    TokenRequest::ClientCredentials { scope: None, resource: Some(Resource::parse(RESOURCE).unwrap()) }
}
