//! Recognisable secrets go through two instances; then everything that the servers hold, wrote and were told is searched
//! for them: in plain, in base64 and in hex.

mod dump;
mod needles;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokenkeep_testkit::Fault;

use self::{dump::Monitor, needles::Needles};
use super::{
    Common,
    backend::{Backend, Kind, NEVER, Servers},
    client::Client,
    fleet::{self, Ground, SEALING_KEY},
    steady,
    storm::{put_expired, put_fresh},
    upstream::{CLIENT_SECRET, Upstream, path},
};
use crate::{report::Report, service, service::ADMIN_KEY};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
}

const CONNECTIONS: usize = 20;

/// Stands where no secret is: what proves that the search finds things.
const IN_THE_CLEAR: &str = "plainly-visible-subject";

const IN_CREDENTIALS: &str = "Canary0Password0c7e1";
const IN_TOKENS: &str = "canary-opaque-token-9d02";
const IN_INTEGRATION: &str = "canary-second-client-secret-51aa";

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    for (kind, instances) in [(Kind::Postgres, 2), (Kind::Redis, 2), (Kind::Vault, 1)] {
        let mut ground = Ground::new(arguments.common.keep)?;
        let searched = search(&arguments.common, kind, instances, ground.path(), &mut report).await;
        if searched.is_err() || !report.is_good() {
            ground.keep();
        }
        searched.with_context(|| format!("{kind:?}"))?;
    }
    report.finish("the searches")
}

async fn search(
    common: &Common,
    kind: Kind,
    instances: usize,
    ground: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    println!("{kind:?}");
    let binary = service::binary(common.tokenkeep.as_ref())?;
    let backend = Backend::start(kind, ground).await?;
    let upstream = Upstream::start().await;
    let dumped = ground.join("dump");
    std::fs::create_dir_all(&dumped)?;
    let monitor = match &*backend.servers {
        Servers::Postgres { redis, .. } | Servers::Redis(redis) => {
            Some(Monitor::start(redis.port(), dumped.join("redis-monitor")).await?)
        }
        _ => None,
    };
    let mut plan = backend.plan(&binary, &upstream, NEVER);
    plan.environment.push(("TOKENKEEP__LOG__LEVEL", "trace".to_owned()));
    let mut fleet = fleet::start(ground, instances, &plan).await?;
    let mut needles = Needles::default();
    needles.add("an admin's API key", ADMIN_KEY);
    needles.add("the root key", SEALING_KEY);
    needles.add("a client secret", CLIENT_SECRET);
    // Every token of the fake provider begins like this.
    needles.add("a refresh token", "fake_rt_");
    needles.add("an access token", "fake_at_");
    traffic(&fleet, &backend, &upstream, &mut needles).await?;
    if let Some(monitor) = monitor {
        let seen = monitor.end().await?;
        ensure!(seen > 0, "MONITOR showed nothing");
    }
    fleet::end(&mut fleet).await?;
    for instance in &fleet {
        std::fs::copy(instance.log(), dumped.join(format!("{}.log", instance.name)))?;
    }
    let into = dumped.clone();
    let raw = backend.with(move |servers| dump::all(servers, &into)).await?;
    let control = dumped.join("control");
    needles.write_samples(&control)?;
    let mut visible = Needles::default();
    visible.add("a subject", IN_THE_CLEAR);
    let seen = visible.search(&[&dumped])?;
    report.promise("what stands in the clear is found", !seen.is_empty(), format!("{} files", seen.len()));
    let found = needles.search(&[&control])?;
    report.promise(
        "every form of every canary would be found",
        found.len() == needles.forms(),
        format!("{} of {} samples", found.len(), needles.forms()),
    );
    std::fs::remove_dir_all(&control)?;
    let mut places = vec![dumped.as_path()];
    places.extend(raw.iter().map(std::path::PathBuf::as_path));
    let bytes = dump::size(&places);
    let found = needles.search(&places)?;
    report.promise(
        "no canary is found",
        found.is_empty() && bytes > 100_000,
        format!(
            "{} secrets in {} forms, {:.1} MB searched {found:?}",
            needles.secrets(),
            needles.forms(),
            bytes as f64 / 1e6
        ),
    );
    Ok(())
}

/// Everything that holds a secret, once.
async fn traffic(
    fleet: &[fleet::Instance],
    backend: &Backend,
    upstream: &Upstream,
    needles: &mut Needles,
) -> anyhow::Result<()> {
    let (first, last) = (&fleet[0], &fleet[fleet.len() - 1]);
    let expired = put_expired(first, upstream, CONNECTIONS).await?;
    let fresh = put_fresh(first, upstream, CONNECTIONS).await?;
    let mut client = last.client()?;
    for number in &expired {
        let answer = client.get(&format!("{}/token", path(*number))).await?;
        ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
    }
    for instance in fleet {
        steady::warm(instance, &fresh, Duration::from_secs(10)).await?;
    }
    let mut client = first.client()?;
    let mut call = async |method: Method, path: &str, body: Value, good: &[u16]| {
        let answer = client.send(method.clone(), path, Some(&body)).await?;
        ensure!(good.contains(&answer.status.as_u16()), "{method} {path}: {} {}", answer.status, answer.text());
        anyhow::Ok(answer)
    };
    let report = json!({ "if_generation": 1 });
    call(Method::POST, &format!("{}/token/refresh", path(fresh[0].0)), report, &[200]).await?;
    call(Method::DELETE, &path(fresh[1].0), Value::Null, &[204]).await?;
    needles.add("tokens that were put", IN_TOKENS);
    let opaque = json!({ "access_token": format!("{IN_TOKENS}-a"), "refresh_token": format!("{IN_TOKENS}-r"), "expires_in": 3600 });
    call(Method::PUT, &format!("/v1/connections/fake/_default/{IN_THE_CLEAR}"), opaque, &[201]).await?;
    needles.add("another client secret", IN_INTEGRATION);
    let integration = json!({ "provider": "google", "client_id": "c", "client_secret": IN_INTEGRATION });
    call(Method::PUT, "/v1/integrations/google", integration, &[200, 201]).await?;
    needles.add("a password", IN_CREDENTIALS);
    let login = json!({ "credentials": { "username": "u", "password": IN_CREDENTIALS } });
    call(Method::PUT, "/v1/connections/bluestakes/_default/c1", login, &[201, 400, 422]).await?;
    let key = json!({ "name": "canary", "role": "reader" });
    let key = call(Method::POST, "/v1/keys", key, &[201]).await?.json()?;
    needles.add("a new API key", key["secret"].as_str().or(key["key"].as_str()).context("no secret of the new key")?);
    let connect = json!({ "provider": "google", "tenant": "_default", "subject": "carol" });
    let started = call(Method::POST, "/v1/connect", connect, &[200, 201]).await?.json()?;
    let ticket = started["authorize_url"].as_str().and_then(|url| url.rsplit('/').next()).context("no ticket")?;
    needles.add("the ticket of a connect", ticket);
    held_copy(first, backend, upstream).await
}

/// A reply that the store cannot take: its sealed copy waits in the cache.
async fn held_copy(instance: &fleet::Instance, backend: &Backend, upstream: &Upstream) -> anyhow::Result<()> {
    if backend.kind != Kind::Postgres {
        return Ok(());
    }
    let number = put_expired(instance, upstream, 1).await?[0];
    let gate = upstream.provider.hold(1, Fault::default().held_after());
    let addr = instance.addr()?;
    let read = tokio::spawn(async move { Client::new(addr).get(&format!("{}/token", path(number))).await });
    tokio::time::timeout(Duration::from_secs(20), gate.arrivals(1)).await.context("no refresh")?;
    let postgres = |act: fn(&tokenkeep_services::Postgres)| {
        backend.with(move |servers| {
            if let Servers::Postgres { postgres, .. } = servers {
                act(postgres);
            }
            Ok(())
        })
    };
    postgres(tokenkeep_services::Postgres::pause).await?;
    gate.release();
    let answer = read.await??;
    tokio::time::sleep(Duration::from_secs(6)).await;
    postgres(tokenkeep_services::Postgres::resume).await?;
    ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
    Ok(())
}
