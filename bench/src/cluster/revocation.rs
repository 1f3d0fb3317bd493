//! A connection is deleted at one instance: how long does another one serve its token from memory?

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use hyper::{Method, StatusCode};

use super::{
    Common,
    backend::{Backend, Kind, NEVER},
    client::Client,
    fleet::{self, Ground},
    steady,
    storm::put_fresh,
    upstream::{Upstream, path},
};
use crate::{report::Report, service};

#[derive(clap::Args)]
pub struct Arguments {
    /// How often, in each setting.
    #[arg(long, default_value_t = 200)]
    deletions: usize,
    #[command(flatten)]
    common: Common,
}

/// Watched at the same time.
const AT_ONCE: usize = 20;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What instances have, and what was promised for it.
struct Setting {
    name: &'static str,
    kind: Kind,
    /// Without its Redis in front.
    without_cache: bool,
    within: Duration,
}

const SETTINGS: [Setting; 4] = [
    Setting {
        name: "PostgreSQL, the bus on Redis",
        kind: Kind::Postgres,
        without_cache: false,
        within: Duration::from_secs(1),
    },
    Setting {
        name: "PostgreSQL, the bus on LISTEN/NOTIFY",
        kind: Kind::Postgres,
        without_cache: true,
        within: Duration::from_secs(1),
    },
    Setting {
        name: "Redis, the bus on the same",
        kind: Kind::Redis,
        without_cache: false,
        within: Duration::from_secs(1),
    },
    Setting { name: "SQLite, no bus", kind: Kind::Sqlite, without_cache: false, within: Duration::from_secs(5) },
];

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    for setting in &SETTINGS {
        let mut ground = Ground::new(arguments.common.keep)?;
        let measured = measure(&arguments, setting, ground.path()).await;
        let promise = format!("{}: no longer served after {:?}", setting.name, setting.within);
        let result = measured.and_then(|mut took| {
            took.sort_unstable();
            let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
            let seen = format!("{} deletions, median {middle:.1?}, max {longest:.1?}", took.len());
            ensure!(longest <= setting.within, "{seen}");
            Ok(seen)
        });
        if result.is_err() {
            ground.keep();
        }
        report.note(&promise, result);
    }
    report.finish("the settings")
}

async fn measure(arguments: &Arguments, setting: &Setting, ground: &Path) -> anyhow::Result<Vec<Duration>> {
    let common = &arguments.common;
    let binary = service::binary(common.tokenkeep.as_ref())?;
    let mut backend = Backend::start(setting.kind, ground).await?;
    if setting.without_cache {
        backend.cache_url = None;
    }
    let upstream = Upstream::start().await;
    let instances = fleet::start(ground, 2, &backend.plan(&binary, &upstream, NEVER)).await?;
    let (one, other) = (&instances[0], &instances[1]);
    let deletions = if common.quick { AT_ONCE } else { arguments.deletions };
    let expected = put_fresh(one, &upstream, deletions).await?;
    steady::warm(one, &expected, Duration::from_secs(10)).await?;
    let mut took = Vec::new();
    for batch in expected.chunks(AT_ONCE) {
        let batch_of = steady::Expected::new(batch.to_vec());
        steady::warm(other, &batch_of, Duration::from_secs(10)).await?;
        let watching: Vec<_> =
            batch.iter().map(|(number, _)| tokio::spawn(delete_and_watch(one.addr(), other.addr(), *number))).collect();
        for watched in watching {
            took.push(watched.await??);
        }
    }
    Ok(took)
}

/// Deletes at one, then reads at the other until it says that there is nothing; answers how long after the deletion was
/// confirmed the last request was sent that still got the token.
async fn delete_and_watch(
    one: anyhow::Result<SocketAddr>,
    other: anyhow::Result<SocketAddr>,
    number: usize,
) -> anyhow::Result<Duration> {
    let (mut deleting, mut reading) = (Client::new(one?), Client::new(other?));
    let token = format!("{}/token", path(number));
    ensure!(reading.get(&token).await?.status == StatusCode::OK, "it was not served before");
    let answer = deleting.send(Method::DELETE, &path(number), None).await?;
    ensure!(answer.status == StatusCode::NO_CONTENT, "DELETE: {} {}", answer.status, answer.text());
    let deleted = Instant::now();
    let mut last = Duration::ZERO;
    loop {
        let asked = deleted.elapsed();
        let answer = reading.get(&token).await?;
        match answer.status {
            StatusCode::OK => last = asked,
            StatusCode::NOT_FOUND => return Ok(last),
            status => anyhow::bail!("{status} {}", answer.text()),
        }
        ensure!(asked < Duration::from_secs(60), "it is served for ever");
        tokio::time::sleep(PAUSE).await;
    }
}
