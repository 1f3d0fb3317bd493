//! The authorization server, asked as clients, resources and proxies ask it. docs/security.md names these tests.

mod browsers;
mod clients;
mod codes;
mod discovery;
mod documents;
mod gateway;
mod instances;
mod keys;
mod lanes;
mod pages;
mod protect;
mod redirects;
mod refresh_tokens;
mod registration;
mod secrets;
mod token_exchange;
mod told;
mod upstreams;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Request, header};
use secrecy::ExposeSecret;
use tokenkeep_core::{
    Grant, GrantId,
    grant::{CODE_LIFE, Code, GrantSeed, GrantStage, User},
    id::Ulid,
    ports::{Clock, Expect, Put},
    time::after,
};
use tokenkeep_engine::issuer::{Admitted, ConfigClient, IssuerSettings, ProtectedResource, Registration};
use tokenkeep_oauth::{
    issuer::{
        authorize::CodeChallenge,
        client::{AuthMethod, ClientMetadata, GrantType},
        jws::Algorithm,
        metadata::Issuer,
        redirect_uri::RedirectUri,
        resource::Resource,
        scope::ScopeSet,
    },
    pkce::Verifier,
};
use tokenkeep_server::{Protected, Settings as HttpSettings};

use crate::app::{Answered, Ground, TestApp};

pub(crate) const ISSUER: &str = "https://auth.example";
pub(crate) const FILES: &str = "https://files.example/mcp";
pub(crate) const CALLBACK: &str = "https://web.example/callback";
/// The secret of every client that has one.
pub(crate) const SECRET: &str = "correct horse battery staple";
/// A proxy that is trusted.
pub(crate) const PROXY: &str = "10.0.0.1";

/// An application that is an authorization server: one resource, and clients of every kind.
pub(crate) struct IssuerApp {
    pub(crate) app: TestApp,
    grants: AtomicU8,
}

pub(crate) fn resource(url: &str, scopes: &str) -> ProtectedResource {
    ProtectedResource {
        resource: Resource::parse(url).unwrap(),
        name: None,
        scopes: ScopeSet::parse(scopes).unwrap(),
        algorithm: None,
        signing_secret: None,
        introspectors: BTreeSet::from(["gate".parse().unwrap()]),
        exchangers: BTreeSet::new(),
        needs_upstream: false,
        upstreams: Vec::new(),
    }
}

pub(crate) fn client(id: &str, method: AuthMethod, grants: &[GrantType]) -> ConfigClient {
    let mut metadata = ClientMetadata::new(method, grants.iter().copied());
    if metadata.allows(GrantType::AuthorizationCode) {
        metadata.redirect_uris = vec![RedirectUri::register(CALLBACK).unwrap()];
    }
    ConfigClient {
        id: id.parse().unwrap(),
        metadata,
        secret: method.has_secret().then(|| SECRET.into()),
        resources: None,
    }
}

/// Has a client for each way to prove oneself, and one of the resource's own.
pub(crate) fn settings() -> IssuerSettings {
    use GrantType::{AuthorizationCode, ClientCredentials, RefreshToken};
    let web = [AuthorizationCode, RefreshToken];
    IssuerSettings {
        url: Issuer::parse(ISSUER).unwrap(),
        registration: Registration::Open,
        document_hosts: BTreeSet::new(),
        access_token_ttl: Duration::from_hours(1),
        refresh_token_ttl: Duration::from_hours(30 * 24),
        algorithm: Algorithm::Es256,
        upstreams: Vec::new(),
        resources: vec![resource(FILES, "read write")],
        admitted: Admitted::default(),
        interaction_url: None,
        clients: vec![
            client("backend", AuthMethod::ClientSecretBasic, &[ClientCredentials]),
            client("poster", AuthMethod::ClientSecretPost, &[ClientCredentials]),
            client("gate", AuthMethod::ClientSecretBasic, &[ClientCredentials]),
            client("web", AuthMethod::ClientSecretBasic, &web),
            client("native", AuthMethod::None, &web),
            client("once", AuthMethod::None, &[AuthorizationCode]),
        ],
        trusted_proxies: BTreeSet::from([format!("{PROXY}/32").parse().unwrap()]),
    }
}

impl IssuerApp {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut IssuerSettings)) -> Self {
        Self::made(&Ground::default(), change, Vec::new()).await
    }

    /// The same, in front of these servers.
    pub(crate) async fn protecting(change: impl FnOnce(&mut IssuerSettings), protected: Vec<Protected>) -> Self {
        Self::made(&Ground::default(), change, protected).await
    }

    /// The same, on ground that others may stand on, too.
    pub(crate) async fn on(ground: &Ground, change: impl FnOnce(&mut IssuerSettings)) -> Self {
        Self::made(ground, change, Vec::new()).await
    }

    async fn made(ground: &Ground, change: impl FnOnce(&mut IssuerSettings), protected: Vec<Protected>) -> Self {
        let mut told = settings();
        change(&mut told);
        let engine = |settings: &mut tokenkeep_engine::Settings| settings.issuer = Some(Arc::new(told));
        let http = HttpSettings { open_metrics: true, protected, ..HttpSettings::default() };
        let app = TestApp::on(ground, engine, http).await;
        Self { app, grants: AtomicU8::new(0) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.app.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Posts a form, as a client that proves itself by Basic if it does.
    pub(crate) async fn post(&self, path: &str, basic: Option<(&str, &str)>, form: &[(&str, &str)]) -> Answered {
        self.app.send(posted(path, basic, form)).await
    }

    /// An access token of client credentials.
    pub(crate) async fn machine_token(&self, client: &str) -> String {
        let answer = self.post("/token", Some((client, SECRET)), &[("grant_type", "client_credentials")]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// What a user has just allowed `client`: the authorization code, and the verifier that goes with it.
    pub(crate) async fn allow(&self, client: &str, scope: &str) -> (String, String) {
        self.allow_for(client, scope, FILES).await
    }

    pub(crate) async fn allow_for(&self, client: &str, scope: &str, resource: &str) -> (String, String) {
        let n = self.grants.fetch_add(1, SeqCst);
        let now = self.app.clock.now().wall;
        let verifier = Verifier::from_entropy(&[n; 32]);
        let grant = Grant {
            id: GrantId(Ulid(u128::from(n) + 1)),
            client: client.parse().unwrap(),
            subject: "github|42".parse().unwrap(),
            user: User { name: Some("Zoë Quinn".to_owned()), email: None },
            scope: ScopeSet::parse(scope).unwrap(),
            resource: Resource::parse(resource).unwrap(),
            connection: None,
            exchangers: BTreeSet::new(),
            seed: GrantSeed::new([n; 32]),
            created_at: now,
            stage: GrantStage::Coded(Code {
                redirect_uri: CALLBACK.to_owned(),
                challenge: CodeChallenge::parse(&verifier.challenge()).unwrap(),
                expires_at: after(now, CODE_LIFE),
            }),
            live: Vec::new(),
            session: None,
        };
        assert!(matches!(self.app.records.save(&grant, (), Expect::Absent).await.unwrap(), Put::Committed(_)));
        (grant.token(0).expose_secret().to_owned(), verifier.secret().expose_secret().to_owned())
    }

    /// Redeems a code of `native`'s.
    pub(crate) async fn redeem(&self, (code, verifier): &(String, String)) -> Answered {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "native"),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", CALLBACK),
        ];
        self.post("/token", None, &form).await
    }

    /// Refreshes as `native`.
    pub(crate) async fn refresh(&self, refresh_token: &str) -> Answered {
        let form = [("grant_type", "refresh_token"), ("client_id", "native"), ("refresh_token", refresh_token)];
        self.post("/token", None, &form).await
    }

    /// What the resource is told of a token.
    pub(crate) async fn introspected(&self, token: &str) -> serde_json::Value {
        let answer = self.post("/introspect", Some(("gate", SECRET)), &[("token", token)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// What a proxy is told of a request with `token`.
    pub(crate) async fn verified(&self, query: &str, token: &str) -> Answered {
        self.app.send(bearing(&format!("/verify{query}"), token)).await
    }
}

pub(crate) fn bearing(uri: &str, token: &str) -> Request<Body> {
    let authorization = format!("Bearer {token}");
    Request::get(uri).header(header::AUTHORIZATION, authorization).body(Body::empty()).unwrap()
}

pub(crate) fn basic(id: &str, secret: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret))))
}

pub(crate) fn posted(path: &str, client: Option<(&str, &str)>, form: &[(&str, &str)]) -> Request<Body> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some((id, secret)) = client {
        request = request.header(header::AUTHORIZATION, basic(id, secret));
    }
    request.body(Body::from(body)).unwrap()
}

impl Answered {
    /// That it is a refusal of RFC 6749 5.2.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.json()["error"], code, "{self:?}");
        assert!(self.json()["error_description"].is_string());
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.is_for_nobody_else();
        assert_eq!(self.header("www-authenticate").is_some(), status == 401 || status == 403, "{self:?}");
    }

    #[track_caller]
    pub(crate) fn is_for_nobody_else(&self) {
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
    }
}
