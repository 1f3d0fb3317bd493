//! One code, one refresh token, fifty at once, over several instances, on the stores that people run.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret as _;
use tokenkeep_core::{Client, Rotation, ports::Store};
use tokenkeep_engine::{Engine, issuer::Refused};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::AuthMethod,
        token::{TokenReply, TokenRequest},
    },
};
use tokenkeep_services::{Postgres as PostgresServer, Redis as RedisServer};
use tokenkeep_store::{Postgres, PostgresOptions, Redis, RedisOptions, Sqlite};

use self::common::{
    Switchable, World,
    issuer::{granted, make_client, redeem, refresh, settings},
};

const ROUNDS: u64 = 100;
const AT_ONCE: usize = 50;
const INSTANCES: u64 = 3;

struct Ground {
    world: World,
    engines: Vec<Engine>,
    client: Arc<Client>,
}

impl Ground {
    async fn on(store: Arc<dyn Store>) -> Self {
        let mut world = World::new(Rotation::Strict).await;
        world.store = Arc::new(Switchable::over(store));
        world.issuer = Some(settings());
        let mut engines = Vec::new();
        for n in 1..=INSTANCES {
            engines.push(world.engine(n, None).await);
        }
        let (client, _) = make_client(engines[0].issuer().unwrap(), AuthMethod::ClientSecretPost).await;
        Self { world, engines, client: Arc::new(client) }
    }

    /// All at once, each at one of the instances.
    async fn at_once(&self, request: impl Fn() -> TokenRequest) -> Vec<Result<TokenReply, Refused>> {
        let asking = (0..AT_ONCE).map(|n| {
            let issuer = self.engines[n % self.engines.len()].issuer().unwrap().clone();
            let (client, request) = (self.client.clone(), request());
            tokio::spawn(async move { issuer.token(&client, request).await })
        });
        let asking: Vec<_> = asking.collect();
        let mut answers = Vec::with_capacity(AT_ONCE);
        for answer in asking {
            answers.push(answer.await.unwrap());
        }
        answers
    }

    /// A hundred codes, each redeemed fifty times at once.
    async fn one_redemption_of_each_code(&self) {
        for round in 0..ROUNDS {
            let (_, code) = granted(&self.world, &self.client.id, 1000 + round).await;
            let answers = self.at_once(|| redeem(&code)).await;
            let good = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(good, 1, "round {round}");
            let others = answers.into_iter().filter_map(Result::err);
            let codes: Vec<_> = others.map(|error| error.told().code.as_str().to_owned()).collect();
            assert!(codes.iter().all(|code| code == "invalid_grant"), "round {round}: {codes:?}");
        }
    }

    /// One refresh token, presented fifty times at once, leads to one successor; that one to another.
    async fn one_successor(&self) {
        let (_, code) = granted(&self.world, &self.client.id, 1).await;
        let first = self.engines[0].issuer().unwrap().token(&self.client, redeem(&code)).await.unwrap();
        let mut refresh_token: Secret = first.refresh_token.unwrap();
        for round in 0..5 {
            let answers = self.at_once(|| refresh(&refresh_token)).await;
            let mut successors: Vec<String> = answers
                .into_iter()
                .map(|answer| answer.unwrap().refresh_token.unwrap().expose_secret().to_owned())
                .collect();
            successors.sort();
            successors.dedup();
            assert_eq!(successors.len(), 1, "round {round}");
            assert_ne!(successors[0], refresh_token.expose_secret());
            refresh_token = successors.remove(0).into();
        }
    }

    async fn everything(&self) {
        self.one_redemption_of_each_code().await;
        self.one_successor().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wins_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(folder.path().join("tokenkeep.db")).await.unwrap();
    Ground::on(Arc::new(store)).await.everything().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wins_on_postgres() {
    let server = PostgresServer::start().unwrap();
    // Fifty ask in the same moment, and most of the connections are made then.
    let acquire_timeout = Duration::from_secs(30);
    let options = PostgresOptions { acquire_timeout, ..PostgresOptions::new(server.url("postgres")) };
    let store = Postgres::connect(options).await.unwrap();
    Ground::on(Arc::new(store)).await.everything().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wins_on_redis() {
    let server = RedisServer::start().unwrap();
    let connect_timeout = Duration::from_secs(20);
    let options = RedisOptions { connect_timeout, ..RedisOptions::new(&server.url()).unwrap() };
    let store = Redis::connect(options).await.unwrap();
    Ground::on(Arc::new(store)).await.everything().await;
}
