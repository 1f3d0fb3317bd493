//! A provider that knows no OAuth, made for tests: a user name and a password bring a token that lives for an hour, as at
//! Blue Stakes of Utah 811; and an API that takes it.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{any, post},
};
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::json;
use tokenkeep_core::{Boot, ports::Clock};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::provider::{cut, listen};

/// A provider with user names and passwords, on a loopback port. It stops when dropped.
///
/// `POST /api/login-json` takes `{"username", "password"}` and answers `{"Authorization": "Bearer ..."}`, or 401;
/// everything else below `/api/` answers with the user's name to whoever shows a token that lives, and 403 to others.
#[derive(Debug)]
pub struct FakeLogin {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// How logins are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginManner {
    /// As they deserve.
    Honest,
    /// With this status, and nothing else.
    Status(u16),
    /// With 200 and something that holds no token.
    Garbage,
    /// Not at all: the connection is closed.
    Cut,
}

/// How long a token lives.
const LIFE: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct Shared {
    origin: String,
    clock: Arc<dyn Clock>,
    state: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    manner: LoginManner,
    /// Passwords by user name.
    accounts: HashMap<String, String>,
    /// Whose each token is, and since when.
    tokens: HashMap<String, (String, Boot)>,
    /// Who tried to log in.
    logins: Vec<String>,
    calls: usize,
}

impl FakeLogin {
    /// Starts it on a free port of 127.0.0.1.
    pub async fn start(clock: Arc<dyn Clock>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback interface has a free port");
        Self::start_on(listener, clock).expect("a bound listener has an address")
    }

    fn start_on(listener: TcpListener, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let address: SocketAddr = listener.local_addr()?;
        let state = Known {
            manner: LoginManner::Honest,
            accounts: HashMap::new(),
            tokens: HashMap::new(),
            logins: Vec::new(),
            calls: 0,
        };
        let shared = Arc::new(Shared { origin: format!("http://{address}"), clock, state: Mutex::new(state) });
        let routes = Router::new().route("/api/login-json", post(login)).route("/api/{*path}", any(call));
        let server = tokio::spawn(listen(listener, routes.with_state(Arc::clone(&shared))));
        Ok(Self { shared, server })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// An entry of the catalogue that leads here, without the limits of the real one.
    pub fn provider_toml(&self, id: &str) -> String {
        let origin = self.origin();
        format!(
            "id = \"{id}\"\ndisplay_name = \"Fake Stakes\"\nkind = \"login\"\napi_hosts = [\"{origin}\"]\n\
             default_lifetime = 3600\nmargin = 300\n\n[login]\nurl = \"{origin}/api/login-json\"\nbody = \"json\"\n\
             token = \"/Authorization\"\ntoken_prefix = \"Bearer \"\n\n[api]\nunauthorized = [401, 403]\n"
        )
    }

    /// Opens an account, or changes its password.
    pub fn account(&self, username: &str, password: &str) {
        self.shared.state().accounts.insert(username.to_owned(), password.to_owned());
    }

    /// Answers logins in this manner from now on.
    pub fn answer(&self, manner: LoginManner) {
        self.shared.state().manner = manner;
    }

    /// No token is good any more.
    pub fn end_all_tokens(&self) {
        self.shared.state().tokens.clear();
    }

    /// Who tried to log in, in order.
    pub fn logins(&self) -> Vec<String> {
        self.shared.state().logins.clone()
    }

    /// How many calls the API got, those without a good token included.
    pub fn calls(&self) -> usize {
        self.shared.state().calls
    }
}

impl Drop for FakeLogin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

async fn login(State(shared): State<Arc<Shared>>, Json(login): Json<Login>) -> Response {
    let mut state = shared.state();
    state.logins.push(login.username.clone());
    match state.manner {
        LoginManner::Honest => {}
        LoginManner::Status(status) => {
            return StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        }
        LoginManner::Garbage => return Json(json!({"hello": "there"})).into_response(),
        LoginManner::Cut => return cut(),
    }
    if state.accounts.get(&login.username) != Some(&login.password) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Bad credentials"}))).into_response();
    }
    let token = format!("stakes-{}-{}", login.username, state.logins.len());
    state.tokens.insert(token.clone(), (login.username, shared.clock.now().boot));
    Json(json!({"Authorization": format!("Bearer {token}")})).into_response()
}

async fn call(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let mut state = shared.state();
    state.calls += 1;
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let now = shared.clock.now().boot;
    match shown.and_then(|token| state.tokens.get(token)) {
        Some((username, since)) if now.since(*since) < LIFE => {
            Json(json!({"username": username, "path": uri.path()})).into_response()
        }
        _ => StatusCode::FORBIDDEN.into_response(),
    }
}
