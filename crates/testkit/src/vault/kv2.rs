//! The KV secrets engine, version 2, after <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::reply::Reply;

/// How many versions are kept if nobody says ("Configure the KV engine").
const DEFAULT_MAX_VERSIONS: u64 = 10;

/// A mounted engine.
#[derive(Debug, Default)]
pub(super) struct Kv2 {
    max_versions: u64,
    cas_required: bool,
    keys: BTreeMap<String, Key>,
}

/// A key: its metadata and what is left of its versions.
#[derive(Debug, Default)]
struct Key {
    max_versions: u64,
    cas_required: bool,
    current: u64,
    versions: BTreeMap<u64, Version>,
}

#[derive(Debug)]
struct Version {
    data: Value,
    created: Timestamp,
    deleted: Option<Timestamp>,
    destroyed: bool,
}

impl Version {
    fn metadata(&self, number: u64) -> Value {
        json!({
            "created_time": self.created.to_string(),
            "custom_metadata": null,
            "deletion_time": self.deleted.map(|at| at.to_string()).unwrap_or_default(),
            "destroyed": self.destroyed,
            "version": number,
        })
    }
}

impl Kv2 {
    /// Answers a request below the mount.
    pub(super) fn answer(&mut self, method: &str, path: &str, body: &Value, now: Timestamp) -> Reply {
        let (area, key) = path.split_once('/').unwrap_or((path, ""));
        match (method, area, key) {
            ("GET", "config", "") => self.config(),
            ("POST" | "PUT", "config", "") => self.configure(body),
            (_, "config", _) => Reply::unsupported(),
            // "Read secret version", "Create/Update secret" and the rest take a path; only a list may go without.
            ("LIST", "metadata", folder) => self.list(folder),
            (_, _, "") => Reply::unsupported(),
            ("GET", "data", key) => self.read(key),
            ("POST" | "PUT", "data", key) => self.write(key, body, now),
            ("DELETE", "data", key) => self.delete(key, None, now),
            ("POST" | "PUT", "delete", key) => self.delete(key, numbers(body), now),
            ("POST" | "PUT", "undelete", key) => self.undelete(key, numbers(body)),
            ("POST" | "PUT", "destroy", key) => self.destroy(key, numbers(body)),
            ("GET", "metadata", key) => self.metadata(key),
            ("POST" | "PUT", "metadata", key) => self.set_metadata(key, body),
            ("DELETE", "metadata", key) => {
                // "This endpoint permanently deletes the key metadata and all version data": whoever wrote last.
                self.keys.remove(key);
                Reply::nothing()
            }
            (_, "data" | "delete" | "undelete" | "destroy" | "metadata", _) => Reply::unsupported(),
            // What a client of version 1 asks for.
            _ => Reply::warn(
                404,
                "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use.",
            ),
        }
    }

    fn config(&self) -> Reply {
        Reply::data(&json!({
            "cas_required": self.cas_required,
            "delete_version_after": "0s",
            "max_versions": self.max_versions,
        }))
    }

    fn configure(&mut self, body: &Value) -> Reply {
        self.max_versions = body["max_versions"].as_u64().unwrap_or(self.max_versions);
        self.cas_required = body["cas_required"].as_bool().unwrap_or(self.cas_required);
        Reply::nothing()
    }

    fn read(&self, key: &str) -> Reply {
        let Some(key) = self.keys.get(key) else { return Reply::absent() };
        let Some(version) = key.versions.get(&key.current) else { return Reply::absent() };
        let metadata = version.metadata(key.current);
        if version.deleted.is_some() || version.destroyed {
            // "If the secret has been soft deleted ... the response is 404 with the metadata".
            return Reply::json(404, &json!({"data": {"data": null, "metadata": metadata}}));
        }
        Reply::data(&json!({"data": version.data, "metadata": metadata}))
    }

    fn write(&mut self, path: &str, body: &Value, now: Timestamp) -> Reply {
        if !body["data"].is_object() {
            return Reply::error(400, "no data provided");
        }
        let there = self.keys.get(path);
        let required = self.cas_required || there.is_some_and(|key| key.cas_required);
        match &body["options"]["cas"] {
            // "If true all keys will require the cas parameter to be set on all write requests."
            Value::Null if required => return Reply::error(400, "check-and-set parameter required for this call"),
            Value::Null => {}
            // "If set to 0 a write will only be allowed if the key doesn't exist ... If the index is non-zero the write
            // will only be allowed if the key's current version matches". Also, "in order to write to a soft deleted
            // key, the cas parameter must match the key's current version".
            cas if cas.as_u64() == Some(there.map_or(0, |key| key.current)) => {}
            cas if cas.is_u64() => {
                return Reply::error(400, "check-and-set parameter did not match the current version");
            }
            _ => return Reply::error(400, "error parsing check-and-set parameter"),
        }
        let key = self.keys.entry(path.to_owned()).or_default();
        key.current += 1;
        let version = Version { data: body["data"].clone(), created: now, deleted: None, destroyed: false };
        let metadata = version.metadata(key.current);
        key.versions.insert(key.current, version);
        // "Once a key has more than the configured allowed versions, the oldest version will be permanently deleted";
        // of the key's number and the mount's, the higher counts.
        let kept = match key.max_versions.max(self.max_versions) {
            0 => DEFAULT_MAX_VERSIONS,
            kept => kept,
        };
        key.versions = key.versions.split_off(&(key.current + 1).saturating_sub(kept));
        Reply::data(&metadata)
    }

    /// Soft: "marks the versions as deleted", the latest unless some are named.
    fn delete(&mut self, key: &str, versions: Option<Vec<u64>>, now: Timestamp) -> Reply {
        self.each(key, versions, |version| version.deleted = version.deleted.or(Some(now)))
    }

    fn undelete(&mut self, key: &str, versions: Option<Vec<u64>>) -> Reply {
        self.each(key, versions, |version| version.deleted = None)
    }

    /// "Permanently removes the specified version data": its number remains.
    fn destroy(&mut self, key: &str, versions: Option<Vec<u64>>) -> Reply {
        self.each(key, versions, |version| {
            version.destroyed = true;
            version.data = Value::Null;
        })
    }

    fn each(&mut self, key: &str, versions: Option<Vec<u64>>, change: impl Fn(&mut Version)) -> Reply {
        if let Some(key) = self.keys.get_mut(key) {
            for number in versions.unwrap_or_else(|| vec![key.current]) {
                key.versions.get_mut(&number).map(&change);
            }
        }
        Reply::nothing()
    }

    fn metadata(&self, key: &str) -> Reply {
        let Some(key) = self.keys.get(key) else { return Reply::absent() };
        let versions: BTreeMap<_, _> = key.versions.iter().map(|(n, v)| (n.to_string(), v.metadata(*n))).collect();
        Reply::data(&json!({
            "cas_required": key.cas_required,
            "current_version": key.current,
            "max_versions": key.max_versions,
            "oldest_version": key.versions.keys().next().copied().unwrap_or(0),
            "versions": versions,
        }))
    }

    fn set_metadata(&mut self, path: &str, body: &Value) -> Reply {
        let key = self.keys.entry(path.to_owned()).or_default();
        key.max_versions = body["max_versions"].as_u64().unwrap_or(key.max_versions);
        key.cas_required = body["cas_required"].as_bool().unwrap_or(key.cas_required);
        Reply::nothing()
    }

    fn list(&self, folder: &str) -> Reply {
        Reply::names(self.keys.keys(), folder)
    }
}

fn numbers(body: &Value) -> Option<Vec<u64>> {
    Some(body["versions"].as_array()?.iter().filter_map(Value::as_u64).collect())
}
