//! The KV secrets engine, version 1, after <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1>.

use std::collections::BTreeMap;

use serde_json::Value;

use super::reply::Reply;

/// A mounted engine: whoever writes last is right.
#[derive(Debug, Default)]
pub(super) struct Kv1 {
    keys: BTreeMap<String, Value>,
}

impl Kv1 {
    /// Answers a request below the mount.
    pub(super) fn answer(&mut self, method: &str, key: &str, body: &Value) -> Reply {
        match method {
            "GET" => self.keys.get(key).map_or_else(Reply::absent, Reply::data),
            "POST" | "PUT" if body.as_object().is_none_or(serde_json::Map::is_empty) => {
                Reply::error(400, "missing data fields")
            }
            "POST" | "PUT" => {
                self.keys.insert(key.to_owned(), body.clone());
                Reply::nothing()
            }
            "DELETE" => {
                self.keys.remove(key);
                Reply::nothing()
            }
            "LIST" => Reply::names(self.keys.keys(), key),
            _ => Reply::unsupported(),
        }
    }
}
