//! Everything that the servers hold, in files.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokenkeep_services::{Postgres, REDIS_PASSWORD, Redis, Vault};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::cluster::backend::Servers;

/// Writes dumps below `into`; answers the folders with the servers' own files.
pub fn all(servers: &Servers, into: &Path) -> anyhow::Result<Vec<PathBuf>> {
    match servers {
        Servers::Postgres { postgres, redis } => {
            self::postgres(postgres, into)?;
            self::redis(redis, into)?;
            Ok(vec![postgres.folder().to_owned(), redis.folder().to_owned()])
        }
        Servers::Redis(redis) => {
            self::redis(redis, into)?;
            Ok(vec![redis.folder().to_owned()])
        }
        Servers::Vault(vault) => {
            self::vault(vault, into)?;
            Ok(vec![vault.folder().to_owned()])
        }
        Servers::None | Servers::Sentinel(_) | Servers::Cluster(_) => Ok(Vec::new()),
    }
}

fn postgres(postgres: &Postgres, into: &Path) -> anyhow::Result<()> {
    // So that the tables' files hold what the log of changes does.
    postgres.sql("postgres", "CHECKPOINT")?;
    let output = Command::new("pg_dump").arg("--dbname").arg(postgres.url("tokenkeep")).output()?;
    ensure!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.stdout.len() > 10_000, "pg_dump wrote {} bytes", output.stdout.len());
    Ok(std::fs::write(into.join("pg_dump.sql"), output.stdout)?)
}

fn redis(redis: &Redis, into: &Path) -> anyhow::Result<()> {
    let keys = redis.command(&["KEYS", "*"])?;
    let mut text = String::new();
    for key in keys.split_whitespace() {
        let value = match redis.command(&["TYPE", key])?.trim() {
            "string" => redis.command(&["GET", key])?,
            "hash" => redis.command(&["HGETALL", key])?,
            "set" => redis.command(&["SMEMBERS", key])?,
            "zset" => redis.command(&["ZRANGE", key, "0", "-1", "WITHSCORES"])?,
            "list" => redis.command(&["LRANGE", key, "0", "-1"])?,
            other => other.to_owned(),
        };
        writeln!(text, "{key}\n{value}")?;
    }
    ensure!(!text.is_empty(), "Redis holds nothing");
    redis.command(&["SAVE"])?;
    Ok(std::fs::write(into.join("redis-keys-and-values"), text)?)
}

fn vault(vault: &Vault, into: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    read_below(vault, "", &mut text)?;
    ensure!(!text.is_empty(), "Vault holds nothing");
    Ok(std::fs::write(into.join("vault-secrets"), text)?)
}

fn read_below(vault: &Vault, path: &str, text: &mut String) -> anyhow::Result<()> {
    let listed = vault.ask("LIST", &format!("/v1/secret/{path}"), &Value::Null)?;
    let keys = listed["data"]["keys"].as_array().context("Vault listed no keys")?.clone();
    for key in keys.iter().filter_map(Value::as_str) {
        let below = format!("{path}{key}");
        if key.ends_with('/') {
            read_below(vault, &below, text)?;
        } else {
            let secret = vault.ask("GET", &format!("/v1/secret/{below}"), &Value::Null)?;
            writeln!(text, "{below}\n{}", secret["data"])?;
        }
    }
    Ok(())
}

/// How many bytes the files below `places` have.
pub fn size(places: &[&Path]) -> u64 {
    let mut bytes = 0;
    let mut waiting: Vec<PathBuf> = places.iter().map(|place| place.to_path_buf()).collect();
    while let Some(place) = waiting.pop() {
        match std::fs::read_dir(&place) {
            Ok(entries) => waiting.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
            Err(_) => bytes += std::fs::metadata(&place).map_or(0, |file| file.len()),
        }
    }
    bytes
}

/// What `MONITOR` shows: every command that Redis is sent.
pub struct Monitor {
    watching: JoinHandle<anyhow::Result<()>>,
    file: PathBuf,
}

impl Monitor {
    pub async fn start(port: u16, file: PathBuf) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("AUTH {REDIS_PASSWORD}\r\nMONITOR\r\n").as_bytes()).await?;
        let mut said = [0; 10];
        stream.read_exact(&mut said).await?;
        ensure!(&said == b"+OK\r\n+OK\r\n", "MONITOR was refused");
        let mut writing = tokio::fs::File::create(&file).await?;
        let watching = tokio::spawn(async move {
            tokio::io::copy(&mut stream, &mut writing).await?;
            Ok(())
        });
        Ok(Self { watching, file })
    }

    /// Answers how many bytes it showed.
    pub async fn end(self) -> anyhow::Result<u64> {
        self.watching.abort();
        Ok(tokio::fs::metadata(&self.file).await?.len())
    }
}
