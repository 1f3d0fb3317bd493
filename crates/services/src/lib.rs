//! Private servers for tests and development: PostgreSQL, pgbouncer, Redis (alone, with Sentinels, as a Cluster) and a
//! Vault-compatible one. Each runs on free loopback ports in a temporary folder, and goes when its value is dropped or
//! this process ends, however it ends.
//!
//! A server of one's own can be killed, paused and started again on the same port with the same data:
//!
//! ```no_run
//! use tokenkeep_services::{Cluster, Postgres, Redis};
//!
//! let postgres = Postgres::start()?;
//! println!("{}", postgres.url("postgres"));
//! postgres.pause(); // SIGSTOP: connections stay open, and nothing answers
//! postgres.resume();
//! postgres.kill(); // SIGKILL
//! postgres.restart()?;
//!
//! let small = Redis::options().set("maxmemory", "4mb").tls().start()?;
//! let cluster = Cluster::start()?; // three primaries, three replicas
//! let killed = cluster.kill_primary_of(0)?; // the one that has hash slot 0
//! cluster.until_failed_over(0, killed)?;
//! # Ok::<(), tokenkeep_services::Error>(())
//! ```
//!
//! Most tests need no server of their own. They share those that `cargo xtask test` starts (or `cargo xtask services
//! up`, which leaves them running), and keep to a database, a key prefix or a path of their own:
//!
//! ```no_run
//! let url = tokenkeep_services::running().redis.url();
//! ```
//!
//! They need Debian's packages `postgresql`, `pgbouncer`, `redis-server` (7.0 or later) and `openssl`, and the crate
//! `rusty_vault`; `cargo xtask` installs them.
//!
//! What was acknowledged survives `kill`: PostgreSQL runs with fsync, Redis with its append-only file. Every function
//! waits until the server has answered; if it does not, the error shows the end of its log.

mod certificate;
mod error;
mod http;
mod keeper;
mod pgbouncer;
mod port;
mod postgres;
mod redis;
mod running;
mod server;
mod tree;
mod vault;
mod wait;

pub use error::Error;
pub use pgbouncer::{Pgbouncer, PgbouncerAt};
pub use port::free as free_port;
pub use postgres::{Postgres, PostgresAt, PostgresOptions};
pub use redis::{Cluster, ClusterAt, REDIS_PASSWORD, Redis, RedisAt, RedisOptions, Sentinel};
pub use running::{Kind, Running, Shared, SharedServers, VARIABLE, running};
pub use vault::{AppRole, Vault, VaultAt};
