//! pgbouncer in front of a PostgreSQL.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, port,
    postgres::{self, PostgresAt},
    server::{Folder, Recipe, Server, User},
};

/// The first version that keeps track of prepared statements in transaction mode.
const PREPARED_STATEMENTS_SINCE: (u32, u32) = (1, 21);

/// Where a pgbouncer listens. Its users are those of the PostgreSQL behind it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PgbouncerAt {
    port: u16,
    keeps_prepared_statements: bool,
}

impl PgbouncerAt {
    /// The superuser's way into a database through the pool, in transaction mode.
    pub fn url(&self, database: &str) -> String {
        self.url_of("postgres", "postgres", database)
    }

    /// Somebody else's way in, with what needs encoding encoded already.
    pub fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether this version carries prepared statements from one server connection to the next.
    pub fn keeps_prepared_statements(&self) -> bool {
        self.keeps_prepared_statements
    }

    /// Runs SQL as the superuser, with psql, and answers what it says. On the database `pgbouncer`: its own commands.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, Error> {
        postgres::psql(&self.url(database), sql)
    }
}

/// A pgbouncer of one's own, in transaction mode, for any database of its PostgreSQL.
pub struct Pgbouncer {
    server: Server,
    at: PgbouncerAt,
}

impl Pgbouncer {
    /// Starts one in front of `postgres`.
    pub fn start(postgres: &PostgresAt) -> Result<Self, Error> {
        port::on_a_free_one(|port| Self::start_on(port, postgres))
    }

    fn start_on(port: u16, postgres: &PostgresAt) -> Result<Self, Error> {
        let folder = Folder::new("pgbouncer", User::for_server())?;
        let users = folder.write("users.txt", "\"postgres\" \"postgres\"\n")?;
        let keeps_prepared_statements = version().is_some_and(|version| version >= PREPARED_STATEMENTS_SINCE);
        let config = folder.write("pgbouncer.ini", &config(port, postgres, &users, keeps_prepared_statements))?;
        let recipe = Recipe {
            name: "pgbouncer",
            program: program(),
            arguments: vec![config.into()],
            package: "Debian package pgbouncer",
        };
        let at = PgbouncerAt { port, keeps_prepared_statements };
        let pgbouncer = Self { server: Server::new(recipe, folder), at };
        pgbouncer.start_again()?;
        Ok(pgbouncer)
    }

    fn server(&self) -> &Server {
        &self.server
    }

    fn start_again(&self) -> Result<(), Error> {
        self.server.start(|| postgres::accepts_connections(self.port))
    }
}

crate::server::controls!(Pgbouncer);

impl Deref for Pgbouncer {
    type Target = PgbouncerAt;

    fn deref(&self) -> &PgbouncerAt {
        &self.at
    }
}

/// Users other than the superuser are looked up in the database, so that tests may create them.
fn config(port: u16, postgres: &PostgresAt, users: &Path, keeps_prepared_statements: bool) -> String {
    let tls = if postgres.tls_authority().is_some() { "server_tls_sslmode = require\n" } else { "" };
    let prepared = if keeps_prepared_statements { "max_prepared_statements = 200\n" } else { "" };
    format!(
        "[databases]\n\
         * = host=127.0.0.1 port={}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {}\n\
         auth_user = postgres\n\
         admin_users = postgres\n\
         pool_mode = transaction\n\
         max_client_conn = 500\n\
         default_pool_size = 20\n\
         server_login_retry = 1\n\
         server_idle_timeout = 10\n\
         ignore_startup_parameters = extra_float_digits\n\
         {tls}{prepared}",
        postgres.port(),
        users.display(),
    )
}

/// Debian keeps it where only root looks.
fn program() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/pgbouncer");
    if debian.exists() { debian } else { PathBuf::from("pgbouncer") }
}

fn version() -> Option<(u32, u32)> {
    parse_version(&String::from_utf8(Command::new(program()).arg("--version").output().ok()?.stdout).ok()?)
}

fn parse_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.lines().next()?.strip_prefix("PgBouncer ")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_version_is_understood() {
        assert_eq!(parse_version("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n"), Some((1, 18)));
        assert_eq!(parse_version("something else"), None);
    }
}
