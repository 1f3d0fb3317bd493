//! An OAuth provider made for tests: real HTTP on a loopback port, honest by default, faulty by script, and with a
//! perfect memory.

mod config;
mod control;
mod fault;
mod gotrue;
mod ledger;
mod pages;
mod serve;
mod token;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokenkeep_core::{Boot, ports::Clock};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use url::Url;

pub use self::{
    config::{Config, RequiredAuth},
    fault::{Fault, FaultReply, Gate, Pause},
    gotrue::GOTRUE_APIKEY,
    ledger::{FamilyView, Issued, RefreshView},
};
use self::{fault::Script, ledger::Ledger};
pub(crate) use serve::{cut, listen};

/// An OAuth provider on a loopback port. It stops when dropped.
///
/// It has the endpoints `/authorize` (which approves at once), `/token`, `/login`, `/revoke`, `/device`, `/userinfo`,
/// `/.well-known/openid-configuration`, Supabase Auth's `/auth/v1/token` and, as the API behind the tokens, `/api/echo`.
/// The same observations and
/// faults that this type offers are there over HTTP under `/_control`, for tests in another process.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use tokenkeep_testkit::{Config, FakeProvider, Fault, ManualClock};
///
/// let provider = FakeProvider::start(Arc::new(ManualClock::default()), Config::default()).await;
/// let tokens = provider.seed("alice");
/// assert!(provider.is_live(tokens.refresh_token.as_deref().unwrap()));
/// provider.fault(Fault::cut_after()); // the next reply of the token endpoint is lost
/// assert_eq!(provider.calls(), 0);
/// # });
/// ```
#[derive(Debug)]
pub struct FakeProvider {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What the handlers and the test both see.
#[derive(Debug)]
struct Shared {
    issuer: Url,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// How many token requests came in.
    calls: watch::Sender<usize>,
    /// How many of them the provider is done with.
    finished: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    config: Config,
    ledger: Ledger,
    script: Script,
    codes: HashMap<String, token::Code>,
    devices: HashMap<String, token::Device>,
    log: Vec<TokenCall>,
    revocations: Vec<String>,
    /// The gates that another process holds, by number.
    gates: Vec<Gate>,
}

/// One request to the token endpoint, as the provider saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenCall {
    /// `grant_type`, or empty.
    pub grant_type: String,
    /// The refresh token it carried.
    pub refresh_token: Option<String>,
    /// All parameters, in order; the last of the same name wins.
    pub params: Vec<(String, String)>,
    /// What the provider made of it; `None` while it is held and where it was never processed.
    pub outcome: Option<Outcome>,
    /// Whether the provider is done with it: the reply is on its way, or the connection was closed.
    pub finished: bool,
}

/// What the provider made of a request, whatever it said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It issued these.
    Issued(Issued),
    /// It refused with this error code.
    Refused(String),
}

impl FakeProvider {
    /// Starts it on a free port of 127.0.0.1.
    pub async fn start(clock: Arc<dyn Clock>, config: Config) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback interface has a free port");
        Self::start_on(listener, clock, config).expect("a bound listener has an address")
    }

    fn start_on(listener: TcpListener, clock: Arc<dyn Clock>, config: Config) -> io::Result<Self> {
        let shared = Shared::new(listener.local_addr()?, clock, config);
        let server = tokio::spawn(serve::run(listener, Arc::clone(&shared)));
        Ok(Self { shared, server })
    }

    /// Its issuer identifier, which is also the base of its endpoints: `http://127.0.0.1:PORT`.
    pub fn issuer(&self) -> String {
        self.shared.issuer()
    }

    /// The URL of one of its endpoints: `provider.url("/token")`.
    pub fn url(&self, path: &str) -> Url {
        self.shared.issuer.join(path).expect("paths in tests are paths")
    }

    /// Changes how it behaves from now on.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut self.shared.state().config);
    }

    /// Issues tokens to `subject` as if it had consented just now.
    pub fn seed(&self, subject: &str) -> Issued {
        self.shared.seed(subject)
    }

    /// The next token request (after those already scripted) goes wrong like this.
    ///
    /// # Panics
    /// If the fault has a gate: use [`hold`](Self::hold).
    pub fn fault(&self, fault: Fault) {
        self.faults(1, fault);
    }

    /// The next `times` token requests go wrong like this.
    ///
    /// # Panics
    /// If the fault has a gate: use [`hold`](Self::hold).
    pub fn faults(&self, times: usize, fault: Fault) {
        assert!(fault.before != Pause::Gate && fault.after != Pause::Gate, "a fault with a gate goes through `hold`");
        self.shared.state().script.push(fault, times);
    }

    /// The next `times` token requests go wrong like this, held at one gate.
    pub fn hold(&self, times: usize, fault: Fault) -> Gate {
        Gate::new(self.shared.state().script.push(fault, times))
    }

    /// The next token request is held before it is processed, then answered.
    pub fn hold_next(&self) -> Gate {
        self.hold(1, Fault::default().held_before())
    }

    /// The next token request is processed at once, but its reply is held.
    pub fn hold_reply(&self) -> Gate {
        self.hold(1, Fault::default().held_after())
    }

    /// Forgets the faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.shared.state().script.clear();
    }

    /// How many token requests came in, of any grant, processed or not.
    pub fn calls(&self) -> usize {
        *self.shared.calls.borrow()
    }

    /// Waits until `count` token requests came in.
    pub async fn called(&self, count: usize) {
        let mut calls = self.shared.calls.subscribe();
        // The sender lives in `self.shared`, so the channel cannot close under us.
        let _open = calls.wait_for(|calls| *calls >= count).await;
    }

    /// Waits until the provider is done with `count` token requests: replies on their way, connections closed.
    pub async fn finished(&self, count: usize) {
        let mut finished = self.shared.finished.subscribe();
        // The sender lives in `self.shared`, so the channel cannot close under us.
        let _open = finished.wait_for(|finished| *finished >= count).await;
    }

    /// Every token request, in the order of arrival.
    pub fn log(&self) -> Vec<TokenCall> {
        self.shared.state().log.clone()
    }

    /// How many requests carried this refresh token, processed or not.
    pub fn spends(&self, refresh_token: &str) -> u32 {
        self.shared.state().ledger.presented(refresh_token)
    }

    /// Refresh tokens that more than one request carried, in the order of issue.
    pub fn spent_twice(&self) -> Vec<String> {
        self.shared.state().ledger.spent_twice()
    }

    /// How many requests carried the same refresh token at the same time, at most. A request counts from its arrival
    /// until its reply is ready to go out, even if the caller has gone away.
    pub fn max_in_flight(&self) -> u32 {
        self.shared.state().ledger.max_in_flight()
    }

    /// Every authorization and the refresh tokens that descend from it.
    pub fn families(&self) -> Vec<FamilyView> {
        self.shared.families()
    }

    /// Whether spending this refresh token now would bring tokens.
    pub fn is_live(&self, refresh_token: &str) -> bool {
        self.shared.is_live(refresh_token)
    }

    /// Whether the API would take this access token now.
    pub fn is_access_live(&self, access_token: &str) -> bool {
        self.shared.is_access_live(access_token)
    }

    /// Tokens that were sent to the revocation endpoint.
    pub fn revocations(&self) -> Vec<String> {
        self.shared.state().revocations.clone()
    }

    /// Ends everything of one subject, as a user does who removes the application.
    pub fn revoke_subject(&self, subject: &str) {
        self.shared.state().ledger.revoke_subject(subject);
    }

    /// Answers a device request as its user would; see [`Config::user`].
    pub fn decide_device(&self, user_code: &str, approve: bool) {
        self.shared.decide_device(user_code, approve);
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Runs a provider on `listener` until the future is dropped: for a process of its own, scripted over `/_control`.
pub async fn serve(listener: TcpListener, clock: Arc<dyn Clock>, config: Config) -> io::Result<()> {
    let shared = Shared::new(listener.local_addr()?, clock, config);
    serve::run(listener, shared).await;
    Ok(())
}

impl Shared {
    fn new(address: SocketAddr, clock: Arc<dyn Clock>, config: Config) -> Arc<Self> {
        let issuer = Url::parse(&format!("http://{address}")).expect("a socket address is a host and a port");
        let state = State {
            config,
            ledger: Ledger::default(),
            script: Script::default(),
            codes: HashMap::new(),
            devices: HashMap::new(),
            log: Vec::new(),
            revocations: Vec::new(),
            gates: Vec::new(),
        };
        Arc::new(Self {
            issuer,
            clock,
            state: Mutex::new(state),
            calls: watch::Sender::new(0),
            finished: watch::Sender::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issuer(&self) -> String {
        self.issuer.origin().ascii_serialization()
    }

    fn now(&self) -> Boot {
        self.clock.now().boot
    }

    fn seed(&self, subject: &str) -> Issued {
        let State { ledger, config, .. } = &mut *self.state();
        ledger.open(subject, "", !config.omit_refresh_token, self.now(), config)
    }

    fn families(&self) -> Vec<FamilyView> {
        let state = self.state();
        state.ledger.families(self.now(), &state.config)
    }

    fn is_live(&self, refresh_token: &str) -> bool {
        let state = self.state();
        state.ledger.is_live(refresh_token, self.now(), &state.config)
    }

    fn is_access_live(&self, access_token: &str) -> bool {
        self.state().ledger.subject_of(access_token, self.now()).is_some()
    }
}
