//! The two KV engines as one: read a secret, replace what was read, list a folder.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokenkeep_core::{
    Boot,
    ports::{Record, StoreError},
};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    error::{Failure, unavailable},
    http::{Answer, Call},
    login::Session,
    options::KvVersion,
    secret::{Secret, build_secret, parse_secret},
};

/// Older than this, what was read is read again before it is replaced. See [`REST`](super::change::REST) for why.
pub(super) const STALE: std::time::Duration = std::time::Duration::from_secs(60);
/// Vault ends a request after 90 seconds, unless told otherwise; what was lost on the way to it ends sooner.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(120);
/// How many locks there are for all keys of version 1.
const STRIPES: usize = 64;

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) secret: Option<Secret>,
    /// What Vault counts: 0 if there never was a version.
    number: u64,
    /// Before it was asked for.
    asked: Boot,
}

impl Found {
    /// What is there if there never was anything.
    pub(super) fn nothing(now: Boot) -> Self {
        Self { secret: None, number: 0, asked: now }
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.secret.as_ref().and_then(Secret::record)
    }
}

/// How a write ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// It is not there any more, what was read.
    Mismatch,
}

/// A mounted KV engine.
#[derive(Debug)]
pub(super) struct Kv {
    pub(super) session: Session,
    pub(super) mount: String,
    pub(super) version: KvVersion,
    /// Of version 1: who holds one is alone with its keys. It remembers which writes may still be on their way.
    locks: [Mutex<InDoubt>; STRIPES],
}

/// Since when, by path.
type InDoubt = HashMap<String, Boot>;

/// The right to replace what was read at a path.
pub(super) struct Turn<'a>(Option<MutexGuard<'a, InDoubt>>);

impl Kv {
    pub(super) fn new(session: Session, mount: String, version: KvVersion) -> Self {
        Self { session, mount, version, locks: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Waits for the right to replace what is at `path`: with version 2 everybody has it, and Vault judges.
    pub(super) async fn turn(&self, path: &str) -> Result<Turn<'_>, Failure> {
        if self.version == KvVersion::V2 {
            return Ok(Turn(None));
        }
        let stripe = path.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let mut in_doubt = self.locks[stripe % STRIPES].lock().await;
        let now = self.session.now();
        in_doubt.retain(|_, since| now.since(*since) < SETTLED);
        if in_doubt.contains_key(path) {
            return Err(Failure::nothing_done("an earlier write of this record may still be on its way to Vault"));
        }
        Ok(Turn(Some(in_doubt)))
    }

    pub(super) async fn read(&self, path: &str) -> Result<Found, StoreError> {
        let url = match self.version {
            KvVersion::V1 => format!("{}/{path}", self.mount),
            KvVersion::V2 => format!("{}/data/{path}", self.mount),
        };
        let asked = self.session.now();
        let (secret, number) = match (self.version, self.session.ask(Call::get(&url)).await?) {
            (KvVersion::V1, Answer::Done(mut reply)) => (Some(reply["data"].take()), 0),
            (KvVersion::V2, Answer::Done(mut reply)) => {
                let number = reply["data"]["metadata"]["version"].as_u64();
                let number = number.ok_or_else(|| unavailable("what answers is not Vault's KV version 2"))?;
                (Some(reply["data"]["data"].take()), number)
            }
            // Deleted by somebody's hand, or nothing; the next version counts on either way.
            (_, Answer::Absent(reply)) => (None, reply["data"]["metadata"]["version"].as_u64().unwrap_or(0)),
            (_, Answer::Mismatch) => return Err(unavailable("Vault answers a read as if it were a write")),
        };
        Ok(Found { secret: secret.map(parse_secret).transpose()?, number, asked })
    }

    /// Writes `secret` in the place of what was `found`.
    pub(super) async fn write(
        &self,
        turn: &mut Turn<'_>,
        path: &str,
        secret: &Secret,
        found: &Found,
    ) -> Result<Written, Failure> {
        let data = build_secret(secret).map_err(|_| Failure::nothing_done("it cannot be written as JSON"))?;
        let written = match self.version {
            KvVersion::V1 => self.write_v1(path, &data).await,
            KvVersion::V2 => self.write_v2(path, data, found).await,
        };
        if let (Err(Failure::InDoubt(_)), Some(in_doubt)) = (&written, &mut turn.0) {
            in_doubt.insert(path.to_owned(), self.session.now());
        }
        written
    }

    async fn write_v1(&self, path: &str, data: &Value) -> Result<Written, Failure> {
        let url = format!("{}/{path}", self.mount);
        match self.session.ask(Call::post(&url, data)).await? {
            Answer::Done(_) => Ok(Written::Done),
            _ => Err(Failure::nothing_done("Vault answers a write as if it were a read")),
        }
    }

    async fn write_v2(&self, path: &str, data: Value, found: &Found) -> Result<Written, Failure> {
        // What is replaced is of no use to anybody; that only the last version is kept must be said once.
        if found.number == 1 {
            let url = format!("{}/metadata/{path}", self.mount);
            let keep_one = json!({"max_versions": 1});
            self.session.ask(Call::post(&url, &keep_one)).await.map_err(nothing_done)?;
        }
        if self.session.now().since(found.asked) > STALE {
            return Ok(Written::Mismatch);
        }
        let url = format!("{}/data/{path}", self.mount);
        let body = json!({"options": {"cas": found.number}, "data": data});
        match self.session.ask(Call::post(&url, &body)).await? {
            Answer::Done(reply) if reply["data"]["version"].as_u64() == Some(found.number + 1) => Ok(Written::Done),
            Answer::Done(_) => Err(Failure::in_doubt("what answers is not Vault's KV version 2")),
            Answer::Mismatch => Ok(Written::Mismatch),
            Answer::Absent(_) => Err(Failure::nothing_done("Vault answers a write as if it were a read")),
        }
    }

    /// What stands in the folder at `path`: names of secrets, and of folders, which end in a slash.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let url = match self.version {
            KvVersion::V1 => format!("{}/{path}", self.mount),
            KvVersion::V2 => format!("{}/metadata/{path}", self.mount),
        };
        match self.session.ask(Call::list(&url)).await? {
            Answer::Done(mut reply) => serde_json::from_value(reply["data"]["keys"].take())
                .map_err(|_| unavailable("what answers a list is not Vault")),
            Answer::Absent(_) => Ok(Vec::new()),
            Answer::Mismatch => Err(unavailable("Vault answers a list as if it were a write")),
        }
    }

    /// Removes all there is at `path`, whatever it is: Vault checks nothing here.
    pub(super) async fn remove(&self, turn: &mut Turn<'_>, path: &str) -> Result<(), Failure> {
        let url = match self.version {
            KvVersion::V1 => format!("{}/{path}", self.mount),
            KvVersion::V2 => format!("{}/metadata/{path}", self.mount),
        };
        let removed = self.session.ask(Call::delete(&url)).await.map(drop);
        if let (Err(Failure::InDoubt(_)), Some(in_doubt)) = (&removed, &mut turn.0) {
            in_doubt.insert(path.to_owned(), self.session.now());
        }
        removed
    }
}

/// The record has not been touched by this.
fn nothing_done(failure: Failure) -> Failure {
    Failure::NothingDone(failure.into())
}
