//! PostgreSQL.

use std::{fs, ops::Deref, path::PathBuf, process::Command};

use serde::{Deserialize, Serialize};

use crate::{
    Error, certificate, port,
    server::{Folder, Recipe, Server, User},
    wait::{self, Asked},
};

/// The superuser's name and password.
const SUPERUSER: &str = "postgres";
/// Only TCP on loopback; room for many tests at once.
const USUAL: [(&str, &str); 4] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "300"),
    ("shared_buffers", "32MB"),
];

const ONLY_TLS: &str = "hostssl all,replication all 127.0.0.1/32 scram-sha-256\n";
const PACKAGE: &str = "Debian package postgresql";

/// Where a PostgreSQL listens and how to get in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostgresAt {
    port: u16,
    tls_authority: Option<String>,
}

impl PostgresAt {
    /// The superuser's way into a database: `postgres://postgres:postgres@127.0.0.1:PORT/DATABASE`.
    pub fn url(&self, database: &str) -> String {
        self.url_of(SUPERUSER, SUPERUSER, database)
    }

    /// Somebody else's way in, with what needs encoding encoded already.
    pub fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that signed its certificate, as PEM, if it was started with [`PostgresOptions::tls`]. The
    /// certificate is for `localhost` and 127.0.0.1; connections without TLS are refused then.
    pub fn tls_authority(&self) -> Option<&str> {
        self.tls_authority.as_deref()
    }

    /// Runs SQL as the superuser, with psql, and answers what it says (unaligned, without headings).
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, Error> {
        psql(&self.url(database), sql)
    }
}

/// How a PostgreSQL differs from the usual: `fsync` on, no TLS, room for 300 connections.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    settings: Vec<(String, String)>,
    tls: bool,
}

impl PostgresOptions {
    /// Any setting of postgresql.conf, for example `("max_connections", "20")`; it replaces the usual one.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without `fsync`: quicker, and what was committed still survives [`Postgres::kill`] (but not a power cut).
    pub fn without_fsync(self) -> Self {
        self.set("fsync", "off")
    }

    /// TLS with a certificate of its own; connections without it are refused.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Postgres, Error> {
        port::on_a_free_one(|port| Postgres::start_on(port, &self))
    }
}

/// A PostgreSQL of one's own.
pub struct Postgres {
    server: Server,
    at: PostgresAt,
}

impl Postgres {
    /// Starts one, with the usual settings.
    pub fn start() -> Result<Self, Error> {
        Self::options().start()
    }

    /// Settings of one's own: `Postgres::options().set("max_connections", "20").tls().start()`.
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// A read-only hot standby of `primary`, fed by streaming replication.
    pub fn standby_of(primary: &PostgresAt) -> Result<Self, Error> {
        port::on_a_free_one(|port| {
            let folder = Folder::new("postgres-standby", User::for_server())?;
            let mut copy = Command::new(program("pg_basebackup"));
            copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"]).arg(folder.join("data"));
            folder.run(copy.arg("--dbname").arg(primary.url("postgres")))?;
            let standby = Self::start_in(folder, port, primary.tls_authority.clone())?;
            // It takes connections before it has made its own to the primary.
            let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            wait::until(wait::PATIENCE, || match primary.sql("postgres", streaming) {
                Ok(standbys) if standbys == "0" => Asked::NotYet("nothing is replicated to it".to_owned()),
                asked => asked.map(drop).into(),
            })?;
            Ok(standby)
        })
    }

    fn start_on(port: u16, options: &PostgresOptions) -> Result<Self, Error> {
        let folder = Folder::new("postgres", User::for_server())?;
        let password = folder.write("password", SUPERUSER)?;
        let mut initdb = Command::new(program("initdb"));
        initdb.args(["--username", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg("--pwfile").arg(password).arg("--pgdata").arg(folder.join("data"));
        folder.run(&mut initdb)?;

        let mut settings = USUAL.map(|(name, value)| (name, value.to_owned())).to_vec();
        settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let mut tls_authority = None;
        if options.tls {
            let certificate = certificate::issue(&folder)?;
            settings.push(("ssl", "on".to_owned()));
            settings.push(("ssl_cert_file", certificate.file.display().to_string()));
            settings.push(("ssl_key_file", certificate.key_file.display().to_string()));
            folder.write("data/pg_hba.conf", ONLY_TLS)?;
            tls_authority = Some(certificate.authority);
        }
        let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
        // What stands later in the file, or in one that is included, replaces what stood before.
        folder.append("data/postgresql.conf", "include = 'tokenkeep.conf'\n")?;
        folder.write("data/tokenkeep.conf", &lines.concat())?;
        Self::start_in(folder, port, tls_authority)
    }

    fn start_in(folder: Folder, port: u16, tls_authority: Option<String>) -> Result<Self, Error> {
        let recipe = Recipe {
            name: "postgres",
            program: program("postgres"),
            arguments: vec!["-D".into(), folder.join("data").into(), "-p".into(), port.to_string().into()],
            package: PACKAGE,
        };
        let postgres = Self { server: Server::new(recipe, folder), at: PostgresAt { port, tls_authority } };
        postgres.start_again()?;
        Ok(postgres)
    }

    fn server(&self) -> &Server {
        &self.server
    }

    fn start_again(&self) -> Result<(), Error> {
        self.server.start(|| accepts_connections(self.port))
    }
}

crate::server::controls!(Postgres);

impl Deref for Postgres {
    type Target = PostgresAt;

    fn deref(&self) -> &PostgresAt {
        &self.at
    }
}

/// Asks a PostgreSQL, or what stands in front of one, whether it takes connections.
pub(crate) fn accepts_connections(port: u16) -> Result<(), String> {
    let mut ask = Command::new(program("pg_isready"));
    ask.args(["--quiet", "--host=127.0.0.1", "--username", SUPERUSER, "--dbname=postgres", "--port"]);
    ask.arg(port.to_string());
    match ask.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("it takes no connections".to_owned()),
        Err(why) => Err(format!("pg_isready cannot be run ({PACKAGE}): {why}")),
    }
}

pub(crate) fn psql(url: &str, sql: &str) -> Result<String, Error> {
    let mut psql = Command::new(program("psql"));
    psql.args([
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--command",
        sql,
        url,
    ]);
    let output = psql.output().map_err(Error::because("psql cannot be run"))?;
    if !output.status.success() {
        return Err(Error::with_log(format!("`{sql}` failed"), String::from_utf8_lossy(&output.stderr).into()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// A program of PostgreSQL's newest version on this machine. Debian keeps servers out of PATH.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let folders = versions.map(|entry| entry.path()).filter(|path| path.join("bin").join(name).exists());
    folders.max_by_key(version).map_or_else(|| PathBuf::from(name), |newest| newest.join("bin").join(name))
}
