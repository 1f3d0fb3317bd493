//! An authorization server whose users sign in at the fake provider, and their browsers.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokenkeep_core::{Client, ConnectionId, InteractionId, Rotation, ports::Clock as _};
use tokenkeep_engine::{
    Caller, Engine, Error, PutIntegration,
    catalogue::parse_provider_toml,
    issuer::{Authorization, CameBack, ConsentPage, GrantFilter, Issuer, IssuerSettings, Next, Upstream},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::AuthMethod,
        token::{TokenReply, TokenRequest},
    },
};
use url::Url;

use crate::common::{
    World,
    browser::{at_provider, params},
    fake,
    issuer::{CHALLENGE, REDIRECT, RESOURCE, make_client, redeem, settings},
    put_fake,
};

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) engine: Engine,
    pub(crate) client: Client,
}

/// Where `fake` (OIDC) and `hub` (which says who it is as GitHub does) are to sign in at.
pub(crate) fn upstreams(settings: &mut IssuerSettings) {
    settings.upstreams = vec![Upstream::Integration(fake()), Upstream::Integration("hub".parse().unwrap())];
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut IssuerSettings)) -> Self {
        let mut world = World::new(Rotation::Strict).await;
        let base = world.provider.issuer();
        let hub = format!(
            "id = \"hub\"\nauthorize_url = \"{base}/authorize\"\ntoken_url = \"{base}/token\"\nuserinfo_url = \"{base}/userinfo\"\n\
             revoke = {{ method = \"rfc7009\", url = \"{base}/revoke\" }}\n\
             [identity]\nsource = \"userinfo\"\nsubject = [\"/sub\"]\nname = [\"/name\"]\nunique_name = true\n\
             scope = \"user\"\n\
             email = {{ url = \"{base}/user/emails\", address = \"/email\", verified = \"/verified\", primary = \"/primary\" }}\n\
             organizations = {{ url = \"{base}/user/orgs\", name = \"/login\", scope = \"orgs\" }}\n"
        );
        world.providers.push(parse_provider_toml("hub", &hub).unwrap());
        let mut settings = settings();
        upstreams(&mut settings);
        change(&mut settings);
        world.issuer = Some(settings);
        let engine = world.engine(1, None).await;
        engine.integrations().put(&Caller::Local, &fake(), put_fake()).await.unwrap();
        let hub = PutIntegration { provider: Some("hub".parse().unwrap()), ..put_fake() };
        engine.integrations().put(&Caller::Local, &"hub".parse().unwrap(), hub).await.unwrap();
        let (client, _) = make_client(engine.issuer().unwrap(), AuthMethod::None).await;
        Self { world, engine, client }
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        self.engine.issuer().unwrap()
    }

    /// What the client sends its user with, changed by `change`.
    pub(crate) fn query(&self, change: &[(&str, Option<&str>)]) -> String {
        let id = self.client.id.to_string();
        let mut query = HashMap::from([
            ("response_type", "code"),
            ("client_id", &id),
            ("redirect_uri", REDIRECT),
            ("state", "the client's own"),
            ("scope", "read"),
            ("resource", RESOURCE),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ]);
        for (name, value) in change {
            match value {
                Some(value) => query.insert(name, value),
                None => query.remove(name),
            };
        }
        form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish()
    }

    /// A user comes from the client.
    pub(crate) async fn asked(&self) -> InteractionId {
        match self.issuer().authorize(self.query(&[]).as_bytes()).await.unwrap() {
            Authorization::Ask(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// What the user's ID token will say, beside what it must.
    pub(crate) fn id_token(&self, url: &Url, more: &Value) {
        let provider = &self.world.provider;
        let mut claims = json!({
            "iss": provider.issuer(), "sub": "fake-user", "aud": "fake-client", "nonce": params(url).get("nonce"),
            "exp": self.world.clock.now().wall.as_second() + 60,
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let id_token = format!("e30.{}.", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        provider.configure(|config| {
            config.extra.insert("id_token".to_owned(), id_token.into());
        });
    }

    /// All the way to the answer; `upstream` and `claims` say where and as whom.
    pub(crate) async fn sign_in(&self, upstream: &str, claims: Value) -> Result<Answer, CameBack> {
        let mut browser = Browser::default();
        let url = browser.sent_upstream(self, &self.asked().await, upstream).await;
        self.id_token(&url, &claims);
        browser.come_back(self, &at_provider(&url).await).await
    }

    pub(crate) async fn token(&self, code: &Secret) -> TokenReply {
        self.ask_token(redeem(code)).await.unwrap()
    }

    pub(crate) async fn ask_token(
        &self,
        request: TokenRequest,
    ) -> Result<TokenReply, tokenkeep_engine::issuer::Refused> {
        self.issuer().token(&Arc::new(self.client.clone()), request).await
    }

    pub(crate) async fn has_connection(&self, id: &str) -> bool {
        let id: ConnectionId = id.parse().unwrap();
        match self.engine.connections().status(&Caller::Local, &id).await {
            Ok(_) => true,
            Err(Error::NotFound { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn grants(&self) -> usize {
        self.issuer().list_grants(&Caller::Local, all()).await.unwrap().items.len()
    }
}

/// Somebody's browser: it keeps one cookie.
#[derive(Clone, Default)]
pub(crate) struct Browser {
    pub(crate) cookie: Option<Secret>,
}

impl Browser {
    pub(crate) async fn look(&mut self, stage: &Stage, id: &InteractionId) -> Result<ConsentPage, Error> {
        let page = stage.issuer().consent(id, self.cookie.clone()).await?;
        self.cookie = Some(page.browser.clone());
        Ok(page)
    }

    /// Looks at the page and says yes.
    pub(crate) async fn approve(
        &mut self,
        stage: &Stage,
        id: &InteractionId,
        upstream: Option<&str>,
    ) -> Result<Next, Error> {
        let page = self.look(stage, id).await?;
        stage.issuer().approve(id, self.cookie.clone(), page.csrf.expose_secret(), upstream).await
    }

    pub(crate) async fn sent_upstream(&mut self, stage: &Stage, id: &InteractionId, upstream: &str) -> Url {
        match self.approve(stage, id, Some(upstream)).await.unwrap() {
            Next::Upstream(url) => url,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn come_back(&self, stage: &Stage, query: &str) -> Result<Answer, CameBack> {
        assert!(stage.issuer().is_ours(query.as_bytes()));
        stage.issuer().came_back(query.as_bytes(), self.cookie.clone()).await.map(|url| Answer::read(&url))
    }
}

/// What the client is told.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) url: Url,
    pub(crate) params: HashMap<String, String>,
}

impl Answer {
    /// Reads where the browser is sent; `state` and `iss` are there once, whatever it says.
    pub(crate) fn read(url: &Secret) -> Self {
        let url = Url::parse(url.expose_secret()).unwrap();
        assert!(url.as_str().starts_with(REDIRECT), "{url}");
        for (name, value) in [("state", "the client's own"), ("iss", crate::common::issuer::ISSUER)] {
            let found: Vec<_> = url.query_pairs().filter(|(n, _)| n == name).map(|(_, v)| v.into_owned()).collect();
            assert_eq!(found, [value], "{name} in {url}");
        }
        Self { params: params(&url), url }
    }

    pub(crate) fn error(&self) -> &str {
        assert!(!self.params.contains_key("code"));
        &self.params["error"]
    }

    pub(crate) fn code(&self) -> Secret {
        assert!(!self.params.contains_key("error"), "{}", self.url);
        self.params["code"].as_str().into()
    }
}

/// Why a page is shown instead of an answer.
pub(crate) fn page(came_back: CameBack) -> Error {
    let CameBack::Page(error) = came_back;
    error
}

/// Whose grant the only one is.
pub(crate) async fn only_grant(stage: &Stage) -> (String, Option<String>, Option<String>, Option<ConnectionId>) {
    let mut items = stage.issuer().list_grants(&Caller::Local, all()).await.unwrap().items;
    assert_eq!(items.len(), 1);
    let grant = items.remove(0);
    (grant.subject.to_string(), grant.name, grant.email, grant.connection)
}

fn all() -> GrantFilter {
    GrantFilter { limit: 100, ..GrantFilter::default() }
}
