//! One redis-server process.

use std::{io, path::PathBuf};

use super::{
    REDIS_PASSWORD, RedisAt, RedisOptions, Tls,
    protocol::{self, Reply},
};
use crate::{
    Error, certificate, port,
    server::{Folder, Recipe, Server},
    wait::{self, Asked},
};

/// The append-only file makes what was answered survive a kill.
const USUAL: &[(&str, &str)] = &[
    ("bind", "127.0.0.1"),
    ("requirepass", REDIS_PASSWORD),
    ("masterauth", REDIS_PASSWORD),
    ("appendonly", "yes"),
    ("save", "\"\""),
    ("maxmemory-policy", "noeviction"),
    // Otherwise a replica that has just caught up gets no writes for up to a second.
    ("repl-diskless-sync", "no"),
    ("repl-ping-replica-period", "1"),
    ("enable-debug-command", "yes"),
];

pub(super) struct Node {
    server: Server,
    at: RedisAt,
}

impl Node {
    pub(super) fn start(name: &'static str, options: &RedisOptions) -> Result<Self, Error> {
        port::on_a_free_one(|port| Self::start_on(name, port, options))
    }

    fn start_on(name: &'static str, port: u16, options: &RedisOptions) -> Result<Self, Error> {
        let folder = Folder::new(name, None)?;
        let mut at = RedisAt { port, tls: None };
        let mut settings = usual();
        settings.push(("port", port.to_string()));
        settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        if options.tls {
            let certificate = certificate::issue(&folder)?;
            let port = port::free();
            settings.push(("tls-port", port.to_string()));
            settings.push(("tls-auth-clients", "no".to_owned()));
            settings.push(("tls-cert-file", certificate.file.display().to_string()));
            settings.push(("tls-key-file", certificate.key_file.display().to_string()));
            settings.push(("tls-ca-cert-file", certificate.authority_file.display().to_string()));
            at.tls = Some(Tls { port, authority: certificate.authority });
        }
        let node = Self { server: server(name, folder, &settings)?, at };
        node.restart()?;
        Ok(node)
    }

    pub(super) fn at(&self) -> &RedisAt {
        &self.at
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn restart(&self) -> Result<(), Error> {
        self.server.start(|| self.ask(&["PING"]).map(drop))
    }

    pub(super) fn ask(&self, command: &[&str]) -> io::Result<Reply> {
        protocol::ask(self.at.port, Some(REDIS_PASSWORD), command)
    }

    pub(super) fn until_replicating(&self) -> Result<(), Error> {
        wait::until(wait::PATIENCE, || match self.ask(&["INFO", "replication"]) {
            Ok(info) if info.field("master_link_status") == "up" => Asked::Done(()),
            Ok(info) => Asked::NotYet(format!("the replica has not caught up: {info}")),
            Err(why) => Asked::NotYet(why.to_string()),
        })
    }
}

/// A line of redis.conf; a later one replaces an earlier one.
pub(super) type Setting<'a> = (&'a str, String);

fn usual() -> Vec<Setting<'static>> {
    USUAL.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// A server, not started yet. Redis rewrites its configuration file, so a restart finds what it has learnt.
pub(super) fn server(name: &'static str, folder: Folder, settings: &[Setting]) -> Result<Server, Error> {
    let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    let file = folder.write("redis.conf", &lines.concat())?;
    let mut recipe = Recipe {
        name,
        program: PathBuf::from("redis-server"),
        arguments: vec![file.into()],
        package: "Debian package redis-server",
    };
    if name == "sentinel" {
        recipe.arguments.push("--sentinel".into());
    }
    Ok(Server::new(recipe, folder))
}
