//! What Vault answers, after <https://developer.hashicorp.com/vault/api-docs#http-status-codes>.

use serde_json::{Value, json};

/// A status and a body.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    pub(super) retry_after: Option<u64>,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: Some(body.clone()), retry_after: None }
    }

    /// 200 with `data` in Vault's usual wrapping.
    pub(super) fn data(data: &Value) -> Self {
        let wrapped = json!({
            "request_id": "00000000-0000-0000-0000-000000000000", "lease_id": "", "renewable": false,
            "lease_duration": 0, "data": data, "wrap_info": null, "warnings": null, "auth": null,
        });
        Self { status: 200, body: Some(wrapped), retry_after: None }
    }

    /// "204 - Success, no data returned."
    pub(super) fn nothing() -> Self {
        Self { status: 204, body: None, retry_after: None }
    }

    pub(super) fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"errors": [message]}))
    }

    pub(super) fn warn(status: u16, warning: &str) -> Self {
        Self::json(status, &json!({"errors": [], "warnings": [warning]}))
    }

    /// What stands in a folder: "Folders are suffixed with /. The input must be a folder; list on a file will not return
    /// a value."
    pub(super) fn names<'a>(keys: impl Iterator<Item = &'a String>, folder: &str) -> Self {
        let folder = match folder.trim_end_matches('/') {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let below = keys.filter_map(|key| key.strip_prefix(&folder));
        let mut names: Vec<_> = below.map(|rest| rest.split_inclusive('/').next().unwrap_or(rest)).collect();
        names.dedup();
        if names.is_empty() { Self::absent() } else { Self::data(&json!({"keys": names})) }
    }

    /// Of a key that is not there.
    pub(super) fn absent() -> Self {
        Self::json(404, &json!({"errors": []}))
    }

    /// Of a mount that is not there.
    pub(super) fn no_handler(path: &str) -> Self {
        Self::error(404, &format!("no handler for route \"{path}\". route entry not found."))
    }

    pub(super) fn denied() -> Self {
        Self::error(403, "1 error occurred:\n\t* permission denied\n\n")
    }

    pub(super) fn unsupported() -> Self {
        Self::error(405, "1 error occurred:\n\t* unsupported operation\n\n")
    }
}
