//! Backend sessions from sign-in to logout, on two real instances, with a GoTrue-like server behind them: rotating, the
//! predecessor always accepted, `grant_type` in the query, JSON, a header `apikey`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::join_all;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokenkeep_core::Rotation;
use tokenkeep_engine::system::SystemClock;
use tokenkeep_testkit::{Config, FakeProvider, Fault, GOTRUE_APIKEY};
use url::Url;

use crate::{
    cluster::{
        backend::{Backend, Kind, Servers},
        fleet::{self, Ground, Instance, Plan, SEALING_KEY},
    },
    http::{self, Answer},
    report::Report,
    service,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
    /// Where the sessions are kept.
    #[arg(long, value_enum, default_value_t = Kind::Postgres)]
    store: Kind,
    /// Leaves data directories and logs behind, and says where.
    #[arg(long)]
    keep: bool,
}

/// So many ask at once when the upstream's token is dead.
const AT_ONCE: usize = 100;

/// So soon a logout is seen elsewhere.
const LOGOUT_WITHIN: Duration = Duration::from_secs(1);

/// So long a refresh whose reply was lost may take to be made up for.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut ground = Ground::new(arguments.keep)?;
    let mut report = Report::default();
    let began = Instant::now();
    if let Err(error) = tour(&arguments, ground.path(), &mut report).await {
        report.note("the tour", Err(error));
    }
    if !report.is_good() {
        ground.keep();
    }
    println!("{:.1} s on {}", began.elapsed().as_secs_f64(), arguments.store.word());
    report.finish("the stations")
}

async fn tour(arguments: &Arguments, ground: &Path, report: &mut Report) -> anyhow::Result<()> {
    let binary = service::binary(arguments.tokenkeep.as_ref())?;
    let provider = FakeProvider::start(Arc::new(SystemClock), Config::rotating(Rotation::Predecessor)).await;
    let backend = Backend::start(arguments.store, ground).await?;
    let plan = plan(&backend, &provider, binary);
    let mut stage = Stage { provider, backend, instances: fleet::start(ground, 2, &plan).await? };
    let alice = stage.login("alice", 1).await;
    let alice = match alice {
        Ok(alice) => {
            report.note("login: our token for theirs", Ok(format!("a session of {} s", alice["expires_in"])));
            alice
        }
        Err(error) => return Err(error.context("login")),
    };
    report.note("100 ensures at expiry, over both instances: one upstream refresh", stage.storm(&alice).await);
    report.note("two tabs refresh at once, at two instances: one token, one upstream refresh", stage.tabs().await);
    report.note("a reply of the upstream that was lost: the predecessor brings the next", stage.lost_reply().await);
    report.note("a WebSocket's token: short, and good for nothing else", stage.websocket(&alice).await);
    report.note("everything restarted: the session goes on, nothing is refreshed for it", stage.restart(&alice).await);
    report.note("logout at one instance: seen by the other within 1 s", stage.logout(&alice).await);
    report.note("a connection that was deleted: 401, also after another took its name", stage.lost().await);
    fleet::end(&mut stage.instances).await?;
    Ok(())
}

/// A custom provider in the catalogue's shape, as a self-hosted project needs it.
fn plan(backend: &Backend, provider: &FakeProvider, binary: PathBuf) -> Plan {
    let cache = backend.cache_url.as_ref().map(|url| format!("[cache]\nredis_url = \"{url}\"\n")).unwrap_or_default();
    let config = format!(
        "[store]\nurl = \"{store}\"\n{cache}\n[sealing]\nkey = \"{SEALING_KEY}\"\n\n[refresh]\ninterval = 86400\n\n\
         [sessions]\nenabled = true\naudience = \"https://api.example.com\"\nissuer = \"https://tokens.example.com\"\n\n\
         [[provider]]\nid = \"gotrue\"\ndisplay_name = \"GoTrue\"\ntoken_url = \"{auth}/token?grant_type=refresh_token\"\n\
         rotation = \"predecessor\"\nmargin = 1\n\n[provider.dialect]\nscope_separator = \"none\"\n\
         client_auth = \"omitted\"\nbody = \"json\"\nrefresh = \"token_only\"\n\
         token_headers = {{ apikey = \"{GOTRUE_APIKEY}\" }}\n\n\
         [[integration]]\nid = \"gotrue\"\nprovider = \"gotrue\"\nclient_id = \"-\"\n",
        store = backend.store_url,
        auth = provider.url("/auth/v1"),
    );
    Plan { binary, config, environment: backend.environment() }
}

struct Stage {
    provider: FakeProvider,
    backend: Backend,
    instances: Vec<Instance>,
}

impl Stage {
    fn url(&self, instance: usize, path: &str) -> anyhow::Result<Url> {
        Ok(format!("http://{}{path}", self.instances[instance].addr()?).parse()?)
    }

    /// As the session's caller.
    async fn ask(&self, instance: usize, method: Method, path: &str, token: &Value) -> anyhow::Result<Answer> {
        let bearer = format!("Bearer {}", token.as_str().context("no token")?);
        http::send(method, &self.url(instance, path)?, &[("authorization", &bearer)], Vec::new()).await
    }

    async fn upstream_token(&self, instance: usize, token: &Value) -> anyhow::Result<Answer> {
        self.ask(instance, Method::POST, "/v1/sessions/upstream-token", token).await
    }

    /// Signs in at the upstream as a backend does, and gets our token for what that brought; the upstream's access token
    /// is said to die in `expires_in` seconds.
    async fn login(&self, subject: &str, expires_in: u64) -> anyhow::Result<Value> {
        let body = json!({"email": format!("{subject}@example.com"), "password": "correct horse"}).to_string();
        let headers = [("apikey", GOTRUE_APIKEY), ("content-type", "application/json")];
        let url = self.provider.url("/auth/v1/token?grant_type=password");
        let signed_in = http::send(Method::POST, &url, &headers, body.into_bytes()).await?.json()?;
        let body = json!({
            "subject": subject, "email": format!("{subject}@example.com"), "provider": "gotrue", "ttl": 3600,
            "tokens": {"access_token": signed_in["access_token"], "refresh_token": signed_in["refresh_token"],
                "expires_in": expires_in},
        });
        let answer = http::api(Method::POST, &self.url(0, "/")?, "/v1/sessions", Some(&body)).await?;
        ensure!(answer.status == StatusCode::CREATED, "{} {}", answer.status, answer.text());
        answer.json()
    }

    async fn storm(&self, session: &Value) -> anyhow::Result<String> {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let before = self.provider.calls();
        let began = Instant::now();
        let asked = (0..AT_ONCE).map(|n| self.upstream_token(n % 2, &session["access_token"]));
        let mut tokens = std::collections::BTreeSet::new();
        for answer in join_all(asked).await {
            let answer = answer?;
            ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
            tokens.insert(answer.json()?["access_token"].to_string());
        }
        let (calls, took) = (self.provider.calls() - before, began.elapsed());
        ensure!(calls == 1 && tokens.len() == 1, "{calls} refreshes, {} tokens", tokens.len());
        Ok(format!("{AT_ONCE} asked, {calls} refresh, {took:.1?}"))
    }

    async fn tabs(&self) -> anyhow::Result<String> {
        let session = self.login("bob", 3600).await?;
        let old = &session["access_token"];
        let before = self.provider.calls();
        let tab = |instance| self.ask(instance, Method::POST, "/v1/sessions/refresh", old);
        let (one, two) = tokio::join!(tab(0), tab(1));
        let (one, two) = (one?, two?);
        for answer in [&one, &two] {
            ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
            let header = answer.headers.get("x-new-access-token").and_then(|value| value.to_str().ok());
            ensure!(header == answer.json()?["access_token"].as_str(), "body and header differ");
        }
        let (first, second) = (claims(&one.json()?)?, claims(&two.json()?)?);
        ensure!(first == second, "two tokens: {first} and {second}");
        let calls = self.provider.calls() - before;
        ensure!(calls == 1, "{calls} refreshes");
        for instance in [0, 1] {
            for token in [old, &one.json()?["access_token"], &two.json()?["access_token"]] {
                let answer = self.upstream_token(instance, token).await?;
                ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
            }
        }
        Ok(format!("{}, 1 refresh, the old one lives on", first["jti"]))
    }

    async fn lost_reply(&self) -> anyhow::Result<String> {
        let session = self.login("carol", 1).await?;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        self.provider.fault(Fault::cut_after());
        let (began, mut refused) = (Instant::now(), 0);
        while began.elapsed() < RECOVERED_WITHIN {
            let answer = self.upstream_token(0, &session["access_token"]).await?;
            match answer.status {
                StatusCode::OK => {
                    return Ok(format!("{refused} times 503, then a token after {:.1?}", began.elapsed()));
                }
                StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                status => bail!("{status} {}", answer.text()),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        bail!("no token after {RECOVERED_WITHIN:?}")
    }

    async fn websocket(&self, session: &Value) -> anyhow::Result<String> {
        let answer = self.ask(0, Method::POST, "/v1/sessions/websocket", &session["access_token"]).await?.json()?;
        ensure!(answer["expires_in"] == 300, "it lives for {} s", answer["expires_in"]);
        let token = &answer["access_token"];
        ensure!(self.upstream_token(1, token).await?.status == StatusCode::OK, "it opens nothing");
        let refused = self.ask(1, Method::POST, "/v1/sessions/refresh", token).await?;
        ensure!(refused.status == StatusCode::FORBIDDEN, "refreshing it: {}", refused.status);
        Ok("300 s, refused at refresh".to_owned())
    }

    /// The instances, and what they keep everything in.
    async fn restart(&mut self, session: &Value) -> anyhow::Result<String> {
        let before = self.provider.calls();
        fleet::end(&mut self.instances).await?;
        self.backend
            .with(|servers| {
                match servers {
                    Servers::Postgres { postgres, redis } => {
                        postgres.restart()?;
                        redis.restart()?;
                    }
                    Servers::Redis(redis) => redis.restart()?,
                    _ => {}
                }
                Ok(())
            })
            .await?;
        let began = Instant::now();
        for instance in &mut self.instances {
            instance.restart().await?;
        }
        for instance in [0, 1] {
            let answer = self.upstream_token(instance, &session["access_token"]).await?;
            ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
        }
        ensure!(self.provider.calls() == before, "{} refreshes", self.provider.calls() - before);
        Ok(format!("served by both {:.1?} after the start", began.elapsed()))
    }

    async fn logout(&self, session: &Value) -> anyhow::Result<String> {
        let token = &session["access_token"];
        for _ in 0..20 {
            ensure!(self.upstream_token(1, token).await?.status == StatusCode::OK, "it was not served before");
        }
        let answer = self.ask(0, Method::DELETE, "/v1/sessions/current", token).await?;
        ensure!(answer.status == StatusCode::NO_CONTENT, "{} {}", answer.status, answer.text());
        let (ended, mut last) = (Instant::now(), Duration::ZERO);
        loop {
            let asked = ended.elapsed();
            match self.upstream_token(1, token).await?.status {
                StatusCode::OK => last = asked,
                StatusCode::UNAUTHORIZED => break,
                status => bail!("{status}"),
            }
            ensure!(asked < LOGOUT_WITHIN * 10, "it is served for ever");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ensure!(last <= LOGOUT_WITHIN, "served for {last:?}");
        let again = self.ask(1, Method::POST, "/v1/sessions/refresh", token).await?;
        ensure!(again.status == StatusCode::UNAUTHORIZED, "refreshing it: {}", again.status);
        Ok(format!("last served {last:.1?} after"))
    }

    async fn lost(&self) -> anyhow::Result<String> {
        let session = self.login("dave", 3600).await?;
        let token = &session["access_token"];
        ensure!(self.upstream_token(0, token).await?.status == StatusCode::OK, "it was not served before");
        let path = "/v1/connections/gotrue/_default/dave";
        let deleted = http::api(Method::DELETE, &self.url(0, "/")?, path, None).await?;
        ensure!(deleted.status == StatusCode::NO_CONTENT, "{} {}", deleted.status, deleted.text());
        let answer = self.upstream_token(0, token).await?;
        ensure!(answer.status == StatusCode::UNAUTHORIZED, "{} {}", answer.status, answer.text());
        let again = self.login("dave", 3600).await?;
        ensure!(self.upstream_token(0, &again["access_token"]).await?.status == StatusCode::OK, "the new one");
        let old = self.upstream_token(0, token).await?;
        ensure!(old.status == StatusCode::UNAUTHORIZED, "the old one: {}", old.status);
        Ok("401 twice, and the new session is served".to_owned())
    }
}

/// What the token of a reply says.
fn claims(reply: &Value) -> anyhow::Result<Value> {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let token = reply["access_token"].as_str().context("no token")?;
    let payload = token.split('.').nth(1).context("no JWT")?;
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload)?)?)
}
