//! Vault's HTTP API on a loopback port: both versions of KV, Transit, AppRole and tokens, by the letter of the documentation
//! that each file names, with a switch for each way in which it can fail.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use tokenkeep_testkit::{FakeVault, ManualClock};
//!
//! let vault = FakeVault::start(ManualClock::default()).await;
//! assert!(vault.address().starts_with("http://127.0.0.1:"));
//! vault.seal(); // From now on it answers 503.
//! # }
//! ```

mod auth;
mod kv1;
mod kv2;
mod reply;
mod transit;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use auth::{Life, Policy};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use serde_json::{Value, json};
use tokenkeep_core::ports::{Clock as _, Entropy as _};
use tokio::{net::TcpListener, task::JoinHandle};

use self::{
    auth::{Doors, Role},
    kv1::Kv1,
    kv2::Kv2,
    reply::Reply,
    transit::Transit,
};
use crate::{
    ManualClock, SeededEntropy,
    provider::{cut, listen},
};

/// A server that behaves as Vault does. It ends when this is dropped.
#[derive(Debug)]
pub struct FakeVault {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultFault {
    /// The connection is cut and nothing is done.
    CutBefore,
    /// It is done, and then the connection is cut.
    CutAfter,
    /// Nothing is done; the body is a web page.
    NotVault,
    /// Nothing is done; a page of a proxy, with this status.
    Proxy(u16),
    /// It is done, and answered with 500.
    ErrorAfter,
    /// Nothing is done: the rate limit, with so many seconds to wait.
    RateLimited(u64),
    /// Nothing is done: a standby that does not know who is active.
    Standby,
}

/// What was asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRequest {
    /// The verb.
    pub method: String,
    /// Below `/v1/`.
    pub path: String,
    /// The namespace header, or nothing.
    pub namespace: String,
}

#[derive(Debug)]
struct Shared {
    clock: ManualClock,
    entropy: SeededEntropy,
    state: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    sealed: bool,
    initialized: bool,
    /// By namespace and path.
    mounts: BTreeMap<(String, String), Engine>,
    doors: Doors,
    /// The verb each waits for, or any.
    faults: VecDeque<(Option<&'static str>, VaultFault)>,
    always: Option<VaultFault>,
    requests: Vec<VaultRequest>,
    /// Whether `sys/internal/ui/mounts` answers.
    tells_mounts: bool,
}

#[derive(Debug)]
enum Engine {
    Kv1(Kv1),
    Kv2(Kv2),
    Transit(Transit),
    /// Another, that is only there.
    Other(String),
}

/// The token that may do everything.
const ROOT: &str = "hvs.root";

impl FakeVault {
    /// A Vault with KV version 2 at `secret` and Transit at `transit`, whose tokens age by `clock`.
    pub async fn start(clock: ManualClock) -> Self {
        let mut inside = Inside {
            sealed: false,
            initialized: true,
            mounts: BTreeMap::new(),
            doors: Doors::default(),
            faults: VecDeque::new(),
            always: None,
            requests: Vec::new(),
            tells_mounts: true,
        };
        let root = inside.doors.issue("", Policy::root(), Life::ENDLESS, clock.now().boot);
        let root = inside.doors.tokens.remove(&root).expect("it was just issued");
        inside.doors.tokens.insert(ROOT.into(), root);
        inside.mounts.insert((String::new(), "secret".into()), Engine::Kv2(Kv2::default()));
        inside.mounts.insert((String::new(), "transit".into()), Engine::Transit(Transit::default()));
        let shared = Arc::new(Shared { clock, entropy: SeededEntropy::new(7), state: Mutex::new(inside) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound port");
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        Self { shared, address, task: tokio::spawn(listen(listener, router)) }
    }

    /// `http://127.0.0.1:...`
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The token that may do everything.
    pub fn root_token(&self) -> &'static str {
        ROOT
    }

    /// A token of `namespace` (or none: "") with `policy`.
    pub fn token(&self, namespace: &str, policy: Policy, life: Life) -> String {
        let now = self.shared.clock.now().boot;
        self.state().doors.issue(namespace, policy, life, now)
    }

    /// Revokes a token.
    pub fn revoke(&self, token: &str) {
        self.state().doors.tokens.remove(token);
    }

    /// Revokes every token but root's; answers how many.
    pub fn revoke_all(&self) -> usize {
        let mut state = self.state();
        let before = state.doors.tokens.len();
        state.doors.tokens.retain(|id, _| id == ROOT);
        before - state.doors.tokens.len()
    }

    /// An AppRole of `namespace`: its role id and its secret id, of which `uses` are allowed.
    pub fn app_role(&self, namespace: &str, policy: Policy, life: Life, uses: Option<u32>) -> (String, String) {
        let mut state = self.state();
        let number = state.doors.roles.len();
        let (role_id, secret_id) = (format!("role-{number}"), format!("secret-of-role-{number}"));
        let role = Role { secret_id: secret_id.clone(), namespace: namespace.into(), policy, life, uses_left: uses };
        state.doors.roles.insert(role_id.clone(), role);
        (role_id, secret_id)
    }

    /// Mounts a KV engine of version 2.
    pub fn mount_kv2(&self, namespace: &str, path: &str) {
        self.state().mounts.insert((namespace.into(), path.into()), Engine::Kv2(Kv2::default()));
    }

    /// Mounts a KV engine of version 1.
    pub fn mount_kv1(&self, path: &str) {
        self.state().mounts.insert((String::new(), path.into()), Engine::Kv1(Kv1::default()));
    }

    /// Mounts an engine of another kind, which does nothing.
    pub fn mount_other(&self, path: &str, kind: &str) {
        self.state().mounts.insert((String::new(), path.into()), Engine::Other(kind.into()));
    }

    /// Takes a mount away, with all it holds.
    pub fn unmount(&self, path: &str) {
        self.state().mounts.remove(&(String::new(), path.into()));
    }

    /// It answers 503 until unsealed.
    pub fn seal(&self) {
        self.state().sealed = true;
    }

    /// It answers again.
    pub fn unseal(&self) {
        self.state().sealed = false;
    }

    /// As it is before `vault operator init`.
    pub fn uninitialize(&self) {
        self.state().initialized = false;
    }

    /// It no longer tells which engine is mounted where.
    pub fn keep_mounts_secret(&self) {
        self.state().tells_mounts = false;
    }

    /// Lets the next request, or the next with that verb, fail. Several happen one after the other.
    pub fn fail_next(&self, method: Option<&'static str>, fault: VaultFault) {
        self.state().faults.push_back((method, fault));
    }

    /// Lets every request fail, or none.
    pub fn fail_always(&self, fault: Option<VaultFault>) {
        self.state().always = fault;
    }

    /// What was asked since the last time this was.
    pub fn take_requests(&self) -> Vec<VaultRequest> {
        std::mem::take(&mut self.state().requests)
    }

    /// Does, as root and without the network, what an operator might: `("POST", "secret/data/x", body)`. The status and
    /// the body.
    pub fn operate(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let reply = self.state().route(&self.shared, method, path, "", ROOT, body);
        (reply.status, reply.body.unwrap_or_default())
    }

    fn state(&self) -> MutexGuard<'_, Inside> {
        self.shared.state()
    }
}

impl Drop for FakeVault {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, 4 << 20).await else { return cut() };
    let Some(path) = head.uri.path().strip_prefix("/v1/") else {
        return respond(&Reply::error(404, "unsupported path"));
    };
    let header = |name: &str| text(&head.headers, name);
    let (namespace, token) = (header("X-Vault-Namespace"), header("X-Vault-Token"));
    let namespace = namespace.trim_matches('/').to_owned();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    let method = head.method.as_str();
    let mut state = shared.state();
    state.requests.push(VaultRequest { method: method.into(), path: path.into(), namespace: namespace.clone() });
    let waiting = state.faults.iter().position(|(verb, _)| verb.is_none_or(|verb| verb == method));
    let fault = waiting.and_then(|n| state.faults.remove(n)).map(|(_, fault)| fault).or(state.always);
    let page = || axum::response::Html("<html>hello</html>");
    let status = |code| http::StatusCode::from_u16(code).unwrap_or_default();
    match fault {
        Some(VaultFault::CutBefore) => return cut(),
        Some(VaultFault::NotVault) => return page().into_response(),
        Some(VaultFault::Proxy(code)) => return (status(code), page()).into_response(),
        // https://developer.hashicorp.com/vault/docs/concepts/resource-quotas
        Some(VaultFault::RateLimited(seconds)) => {
            let error = Reply::error(429, "request path \"x\": rate limit quota exceeded");
            return respond(&Reply { retry_after: Some(seconds), ..error });
        }
        Some(VaultFault::Standby) => {
            return respond(&Reply::error(500, "local node not active but active cluster node not found"));
        }
        Some(VaultFault::CutAfter | VaultFault::ErrorAfter) | None => {}
    }
    let reply = state.route(&shared, method, path, &namespace, &token, &body);
    match fault {
        Some(VaultFault::CutAfter) => cut(),
        Some(VaultFault::ErrorAfter) => respond(&Reply::error(500, "internal error")),
        _ => respond(&reply),
    }
}

impl Inside {
    fn route(
        &mut self,
        shared: &Shared,
        method: &str,
        path: &str,
        namespace: &str,
        token: &str,
        body: &Value,
    ) -> Reply {
        let now = shared.clock.now();
        // https://developer.hashicorp.com/vault/api-docs/system/seal-status: unauthenticated, in the root namespace.
        if path == "sys/seal-status" {
            if !namespace.is_empty() {
                return Reply::error(400, "unsupported path");
            }
            let (initialized, sealed) = (self.initialized, self.sealed || !self.initialized);
            return Reply::json(200, &json!({"initialized": initialized, "sealed": sealed, "version": "1.99.0-fake"}));
        }
        if self.sealed {
            return Reply::error(503, "Vault is sealed");
        }
        if path == "auth/approle/login" {
            return self.doors.log_in(namespace, body, now.boot);
        }
        let Some(holder) = self.doors.token(token, namespace, now.boot) else {
            return Reply::error(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n");
        };
        let policy = holder.policy.clone();
        // What the default policy allows every token.
        match (method, path) {
            ("GET", "auth/token/lookup-self") => return self.doors.look_up(token, now.boot),
            ("POST" | "PUT", "auth/token/renew-self") => return self.doors.renew(token, now.boot),
            ("POST" | "PUT", "sys/capabilities-self") => return capabilities(&policy, body),
            ("GET", _) if path.starts_with("sys/internal/ui/mounts/") => {
                let mount = path.trim_start_matches("sys/internal/ui/mounts/").to_owned();
                return self.mount(namespace, &mount);
            }
            _ => {}
        }
        // Policies come before routes: of what one may not see, one does not learn whether it is there.
        let granted = policy.on(path);
        let mount = self.mounts.keys().find(|(space, mount)| {
            space == namespace && path.strip_prefix(mount.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        let mount = mount.cloned();
        let wanted: &[&str] = match method {
            "GET" => &["read"],
            "LIST" => &["list"],
            "DELETE" => &["delete"],
            _ => &["create", "update"],
        };
        if !granted.contains(&"root") && !wanted.iter().any(|capability| granted.contains(capability)) {
            return Reply::denied();
        }
        let Some(mount) = mount else { return Reply::no_handler(path) };
        let below = &path[mount.1.len() + 1..];
        match self.mounts.get_mut(&mount) {
            Some(Engine::Kv1(kv)) => kv.answer(method, below, body),
            Some(Engine::Kv2(kv)) => kv.answer(method, below, body, now.wall),
            Some(Engine::Transit(transit)) => transit.answer(method, below, body, shared.entropy.bytes32()),
            Some(Engine::Other(_)) | None => Reply::unsupported(),
        }
    }

    /// What the web interface asks; a mount that is not there is denied like one that may not be seen.
    fn mount(&self, namespace: &str, path: &str) -> Reply {
        match self.mounts.get(&(namespace.to_owned(), path.to_owned())).filter(|_| self.tells_mounts) {
            Some(Engine::Kv1(_)) => Reply::data(&json!({"type": "kv", "options": {"version": "1"}})),
            Some(Engine::Kv2(_)) => Reply::data(&json!({"type": "kv", "options": {"version": "2"}})),
            Some(Engine::Transit(_)) => Reply::data(&json!({"type": "transit", "options": null})),
            Some(Engine::Other(kind)) => Reply::data(&json!({"type": kind, "options": null})),
            None => Reply::error(
                403,
                "preflight capability check returned 403, please ensure client's policies grant access to path",
            ),
        }
    }
}

/// <https://developer.hashicorp.com/vault/api-docs/system/capabilities-self>
fn capabilities(policy: &Policy, body: &Value) -> Reply {
    let paths = body["paths"].as_array().cloned().unwrap_or_default();
    let on = |path: &Value| path.as_str().map(|path| (path.to_owned(), policy.on(path)));
    let by_path: BTreeMap<_, _> = paths.iter().filter_map(on).collect();
    Reply::data(&json!(by_path))
}

fn respond(reply: &Reply) -> Response {
    let mut builder = http::Response::builder().status(reply.status);
    if let Some(seconds) = reply.retry_after {
        builder = builder.header(http::header::RETRY_AFTER, seconds);
    }
    let body = match &reply.body {
        Some(body) => Body::from(body.to_string()),
        None => Body::empty(),
    };
    builder.header(http::header::CONTENT_TYPE, "application/json").body(body).unwrap_or_else(|_| cut())
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
