//! A Vault-compatible server: RustyVault, with KV version 1 at `secret/` and AppRole.

use std::{ops::Deref, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Error, http, port,
    server::{Folder, Recipe, Server},
};

/// Where a Vault listens and how to get in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VaultAt {
    port: u16,
    root_token: String,
    unseal_key: String,
}

/// What an application logs in with (`auth/approle/login`).
#[derive(Clone, Debug)]
pub struct AppRole {
    /// Its name, as it were.
    pub role_id: String,
    /// Its password, as it were.
    pub secret_id: String,
}

impl VaultAt {
    /// `http://127.0.0.1:PORT`, as `VAULT_ADDR` has it.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// May do everything, for ever.
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// Makes a role, or changes it; its tokens live `ttl_seconds` and can be renewed up to `max_ttl_seconds`.
    ///
    /// `name` has three or more letters. This server judges no policies: a token may do everything.
    pub fn app_role(&self, name: &str, ttl_seconds: u32, max_ttl_seconds: u32) -> Result<AppRole, Error> {
        let role = format!("/v1/auth/approle/role/{name}");
        let lives = json!({
            "token_ttl": format!("{ttl_seconds}s"),
            "token_max_ttl": format!("{max_ttl_seconds}s"),
        });
        self.ask("PUT", &role, &lives)?;
        let text = |answer: Value, field: &str| match &answer["data"][field] {
            Value::String(text) => Ok(text.clone()),
            _ => Err(Error::new(format!("Vault did not tell the {field}: {answer}"))),
        };
        let role_id = text(self.ask("GET", &format!("{role}/role-id"), &Value::Null)?, "role_id")?;
        let secret_id = text(self.ask("PUT", &format!("{role}/secret-id"), &json!({}))?, "secret_id")?;
        Ok(AppRole { role_id, secret_id })
    }

    /// One request with the root token, `/v1/...`; an answer that is no success is an error.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Error> {
        let what = format!("{method} {path} at Vault");
        let answer = http::ask(self.port, Some(&self.root_token), method, path, body);
        match answer.map_err(Error::because(&what))? {
            (200..300, body) => Ok(body),
            (status, body) => Err(Error::new(format!("{what}: {status} {body}"))),
        }
    }

    fn unseal(&self) -> Result<(), Error> {
        self.ask("PUT", "/v1/sys/unseal", &json!({ "key": self.unseal_key })).map(drop)
    }
}

/// A Vault of one's own.
pub struct Vault {
    server: Server,
    at: VaultAt,
}

impl Vault {
    /// Starts one, initialises and unseals it, and enables AppRole.
    pub fn start() -> Result<Self, Error> {
        port::on_a_free_one(Self::start_on)
    }

    fn start_on(port: u16) -> Result<Self, Error> {
        let folder = Folder::new("vault", None)?;
        let config = json!({
            "listener": { "tcp": { "address": format!("127.0.0.1:{port}"), "tls_disable": true } },
            "storage": { "file": { "path": folder.join("data") } },
            "api_addr": format!("http://127.0.0.1:{port}"),
            "log_level": "warn",
            "pid_file": folder.join("pid"),
            "work_dir": folder.path(),
        });
        let recipe = Recipe {
            name: "vault",
            program: program(),
            arguments: vec![
                "server".into(),
                "--config".into(),
                folder.write("vault.json", &config.to_string())?.into(),
            ],
            package: "crate rusty_vault",
        };
        let at = VaultAt { port, root_token: String::new(), unseal_key: String::new() };
        let mut vault = Self { server: Server::new(recipe, folder), at };
        vault.start_sealed()?;
        let keys = vault.ask("PUT", "/v1/sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 }))?;
        match (&keys["root_token"], &keys["keys"][0]) {
            (Value::String(token), Value::String(key)) => {
                vault.at.root_token.clone_from(token);
                vault.at.unseal_key.clone_from(key);
            }
            _ => return Err(Error::new("Vault told no keys when it was initialised")),
        }
        vault.unseal()?;
        vault.ask("POST", "/v1/sys/auth/approle", &json!({ "type": "approle" }))?;
        Ok(vault)
    }

    /// From now on it answers 503 to everything, until [`Vault::unseal`].
    pub fn seal(&self) -> Result<(), Error> {
        self.ask("PUT", "/v1/sys/seal", &Value::Null).map(drop)
    }

    /// It serves again.
    pub fn unseal(&self) -> Result<(), Error> {
        self.at.unseal()
    }

    /// Starts it again, as it starts by itself: sealed.
    pub fn restart_sealed(&self) -> Result<(), Error> {
        self.start_sealed()
    }

    fn server(&self) -> &Server {
        &self.server
    }

    fn start_sealed(&self) -> Result<(), Error> {
        // Whatever it answers, it listens.
        self.server.start(|| http::ask(self.at.port, None, "GET", "/v1/sys/seal-status", &Value::Null).map(drop))
    }

    fn start_again(&self) -> Result<(), Error> {
        self.start_sealed()?;
        self.unseal()
    }
}

crate::server::controls!(Vault);

impl Deref for Vault {
    type Target = VaultAt;

    fn deref(&self) -> &VaultAt {
        &self.at
    }
}

/// `cargo xtask` installs it below the target folder, in which the program that we are part of also lies; else PATH.
fn program() -> PathBuf {
    let found = crate::running::in_target_folder("xtask/rusty_vault/bin/rvault");
    found.unwrap_or_else(|| PathBuf::from("rvault"))
}
