//! The servers that all tests share: started once by `cargo xtask test` or `cargo xtask services up`, written down in a
//! file, and read from it by every test.

use std::{
    env, fs,
    ops::Deref,
    path::{Path, PathBuf},
    process, thread,
};

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, ClusterAt, Error, Pgbouncer, PgbouncerAt, Postgres, PostgresAt, Redis, RedisAt, Vault, VaultAt, keeper,
};

/// Names the file, if it is not `services.json` in the target folder.
pub const VARIABLE: &str = "TOKENKEEP_SERVICES";

/// The servers that tests share. A test keeps to a database, a key prefix or a path of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    process: i32,
    /// PostgreSQL.
    pub postgres: Shared<PostgresAt>,
    /// pgbouncer in front of that PostgreSQL, in transaction mode.
    pub pgbouncer: Shared<PgbouncerAt>,
    /// Redis, alone.
    pub redis: Shared<RedisAt>,
    /// A Redis Cluster.
    pub redis_cluster: Shared<ClusterAt>,
    /// A Vault-compatible server with KV version 1.
    pub vault: Shared<VaultAt>,
}

/// A server that may not have been chosen when the shared ones were started; using it panics then.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shared<T>(Option<T>);

impl<T> Shared<T> {
    /// It, if it was started.
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap_or_else(|| panic!("{} is not running: {UP}", std::any::type_name::<T>()))
    }
}

const UP: &str = "run `cargo xtask services up` in another terminal, or the tests with `cargo xtask test`";

/// The shared servers. Panics if there are none: a test that needs them must not pass without.
pub fn running() -> Running {
    let file = file().unwrap_or_else(|| panic!("no servers are running: {UP}"));
    Running::read(&file).unwrap_or_else(|why| panic!("{why}: {UP}"))
}

impl Running {
    fn read(file: &Path) -> Result<Self, Error> {
        let shown = file.display();
        let text = fs::read(file).map_err(Error::because(format!("{shown} cannot be read")))?;
        let running: Self = serde_json::from_slice(&text).map_err(Error::because(format!("{shown} is not ours")))?;
        match Pid::from_raw(running.process).map(test_kill_process) {
            Some(Ok(())) => Ok(running),
            _ => Err(Error::new(format!("the servers that {shown} names have ended"))),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how `cargo xtask` tells the tests where its servers are")]
fn file() -> Option<PathBuf> {
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    named.or_else(|| in_target_folder("services.json"))
}

/// A file below the target folder, in which the program that we are part of also lies.
pub(crate) fn in_target_folder(name: &str) -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let above = program.ancestors().skip(1).take(4).map(Path::to_owned);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    above.chain([usual]).map(|folder| folder.join(name)).find(|file| file.exists())
}

/// One of the servers that tests share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Kind {
    Postgres,
    Pgbouncer,
    Redis,
    RedisCluster,
    Vault,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Postgres, Kind::Pgbouncer, Kind::Redis, Kind::RedisCluster, Kind::Vault];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Postgres => "postgres",
            Kind::Pgbouncer => "pgbouncer",
            Kind::Redis => "redis",
            Kind::RedisCluster => "redis-cluster",
            Kind::Vault => "vault",
        }
    }
}

/// The shared servers, in the hands of whoever started them; they end when this is dropped.
pub struct SharedServers {
    // In front of what it needs, so that it ends first.
    _pgbouncer: Option<Pgbouncer>,
    _postgres: Option<Postgres>,
    _redis: Option<Redis>,
    _redis_cluster: Option<Cluster>,
    _vault: Option<Vault>,
    running: Running,
}

impl SharedServers {
    /// Starts the chosen ones, all at once; pgbouncer brings its PostgreSQL along.
    pub fn start(chosen: &[Kind]) -> Result<Self, Error> {
        let wants = |kind| chosen.contains(&kind);
        thread::scope(|scope| {
            let databases = scope.spawn(|| {
                let postgres = (wants(Kind::Postgres) || wants(Kind::Pgbouncer)).then(Postgres::start).transpose()?;
                let behind = postgres.as_ref().filter(|_| wants(Kind::Pgbouncer));
                let pgbouncer = behind.map(|postgres| Pgbouncer::start(postgres)).transpose()?;
                Ok((postgres, pgbouncer))
            });
            let redis = scope.spawn(|| wants(Kind::Redis).then(Redis::start).transpose());
            let cluster = scope.spawn(|| wants(Kind::RedisCluster).then(Cluster::start_steady).transpose());
            let vault = scope.spawn(|| wants(Kind::Vault).then(Vault::start).transpose());
            let (postgres, pgbouncer) = joined(databases)?;
            let (redis, redis_cluster, vault) = (joined(redis)?, joined(cluster)?, joined(vault)?);
            let running = Running {
                process: i32::try_from(process::id()).map_err(Error::because("our process number"))?,
                postgres: Shared(postgres.as_deref().cloned()),
                pgbouncer: Shared(pgbouncer.as_deref().cloned()),
                redis: Shared(redis.as_deref().cloned()),
                redis_cluster: Shared(redis_cluster.as_deref().cloned()),
                vault: Shared(vault.as_deref().cloned()),
            };
            Ok(Self {
                _pgbouncer: pgbouncer,
                _postgres: postgres,
                _redis: redis,
                _redis_cluster: redis_cluster,
                _vault: vault,
                running,
            })
        })
    }

    /// Where they are.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Writes down where they are, for [`running`]; the file goes when this process ends.
    pub fn write(&self, file: &Path) -> Result<(), Error> {
        let write = || {
            keeper::remove(file)?;
            let json = serde_json::to_string_pretty(&self.running)?;
            let folder = file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let new = tempfile::NamedTempFile::new_in(folder)?;
            fs::write(new.path(), json)?;
            new.persist(file)?;
            Ok(())
        };
        write().map_err(Error::because::<std::io::Error>(format!("{} cannot be written", file.display())))
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().map_err(|_| Error::new("a thread that starts a server panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below/services.json");
        let servers = SharedServers::start(&[Kind::Redis]).unwrap();
        servers.write(&file).unwrap();
        let running = Running::read(&file).unwrap();
        assert_eq!(running.redis.url(), servers.running().redis.url());
        assert_eq!(running.redis.command(&["PING"]).unwrap(), "PONG");
        assert!(running.postgres.get().is_none());
    }

    #[test]
    #[should_panic(expected = "run `cargo xtask services up`")]
    fn what_was_not_chosen_is_not_used_silently() {
        let _ = SharedServers::start(&[]).unwrap().running().postgres.url("postgres");
    }

    #[test]
    fn servers_of_a_process_that_has_ended_are_not_found() {
        let mut ended = process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let servers = SharedServers::start(&[]).unwrap();
        let running = Running { process: ended.id().try_into().unwrap(), ..servers.running.clone() };
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), serde_json::to_vec(&running).unwrap()).unwrap();
        assert!(Running::read(file.path()).unwrap_err().to_string().contains("have ended"));
    }
}
