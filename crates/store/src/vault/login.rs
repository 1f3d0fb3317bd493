//! The token: renewed before it ends, by whoever needs it first.
//!
//! There is no task that watches the clock. Whoever is about to use a token in the last third of its life renews it on
//! the way, while others go on with the old one; an AppRole that cannot renew logs in anew, and so it does when Vault
//! suddenly denies a token that should be good.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use reqwest::header::HeaderValue;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokenkeep_core::{Boot, ports::Clock};

use super::{
    error::{Failure, OpenError},
    http::{Answer, Body, Call, Http, Reply},
    options::{VaultAuth, VaultServer},
};

/// After a renewal failed, the next waits that long.
const PAUSE: Duration = Duration::from_secs(5);

/// A server, and a token for it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) http: Http,
    auth: VaultAuth,
    clock: Arc<dyn Clock>,
    // Never held across an await.
    held: RwLock<Held>,
    renewing: tokio::sync::Mutex<()>,
    /// Whether the server is one that says nothing but 404 of what is not there.
    terse: bool,
}

/// A token and its life.
#[derive(Clone, Debug)]
struct Held {
    token: HeaderValue,
    since: Boot,
    /// None: it never ends.
    life: Option<Duration>,
    renewable: bool,
    /// No renewal before.
    next_try: Boot,
}

impl Held {
    /// From the `auth` of a login or renewal.
    fn granted(auth: &Value, now: Boot) -> Option<Self> {
        let life = Duration::from_secs(auth["lease_duration"].as_u64()?);
        Some(Self {
            token: header(auth["client_token"].as_str()?)?,
            since: now,
            life: Some(life).filter(|life| !life.is_zero()),
            renewable: auth["renewable"].as_bool().unwrap_or(false),
            next_try: now,
        })
    }

    fn left(&self, now: Boot) -> Duration {
        self.life.map_or(Duration::MAX, |life| life.saturating_sub(now.since(self.since)))
    }

    fn is_ending(&self, now: Boot) -> bool {
        self.life.is_some_and(|life| self.left(now) <= life / 3)
    }
}

fn header(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(token).ok().filter(|h| !h.is_empty())?;
    header.set_sensitive(true);
    Some(header)
}

impl Session {
    /// Finds the server, open and in order, and a token that it accepts.
    pub(super) async fn open(server: &VaultServer) -> Result<Self, OpenError> {
        let http = Http::new(server)?;
        let terse = check_server(&http).await?;
        let held = match &server.auth {
            VaultAuth::Token(token) => look_up(&http, token.expose_secret(), &*server.clock, terse).await?,
            VaultAuth::AppRole { mount, .. } => {
                log_in(&http, &server.auth, &*server.clock, terse).await.map_err(|failure| match failure {
                    LoginFailure::Refused => {
                        OpenError::LoginRefused { address: http.address.clone(), mount: mount.clone() }
                    }
                    LoginFailure::Other(failure) => OpenError::Unavailable(reason(failure)),
                })?
            }
        };
        Ok(Self {
            http,
            auth: server.auth.clone(),
            clock: Arc::clone(&server.clock),
            held: RwLock::new(held),
            renewing: tokio::sync::Mutex::new(()),
            terse,
        })
    }

    /// Does `call`, and says what came of it.
    pub(super) async fn ask(&self, call: Call<'_>) -> Result<Answer, Failure> {
        self.judge(self.reply(call).await?)
    }

    pub(super) fn judge(&self, reply: Reply) -> Result<Answer, Failure> {
        reply.judge(self.terse)
    }

    /// Does `call`, and gives the reply unjudged.
    pub(super) async fn reply(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let token = self.token().await?;
        let reply = self.http.send(call.clone(), Some(&token)).await?;
        // Denied means not done, so that it can be asked again.
        match reply.status.as_u16() {
            403 if self.replace_denied(&token).await => self.http.send(call, Some(&self.held().token)).await,
            _ => Ok(reply),
        }
    }

    pub(super) fn now(&self) -> Boot {
        self.clock.now().boot
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Held) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
    }

    async fn token(&self) -> Result<HeaderValue, Failure> {
        let held = self.held();
        let now = self.now();
        if !held.is_ending(now) {
            return Ok(held.token);
        }
        if !held.left(now).is_zero() {
            // One renews; the others, and it too if it fails, go on with what there still is.
            if let Ok(_renewing) = self.renewing.try_lock() {
                let held = self.held();
                if held.is_ending(now) && now >= held.next_try && self.renew(&held).await.is_err() {
                    tracing::warn!(left = ?held.left(now), "the Vault token could not be renewed; it will be tried again");
                    self.hold(Held { next_try: now + PAUSE, ..held });
                }
            }
            return Ok(self.held().token);
        }
        let _renewing = self.renewing.lock().await;
        let held = self.held();
        if held.left(now).is_zero() {
            self.log_in_again().await?;
        }
        Ok(self.held().token)
    }

    /// Renews the token, or takes another.
    async fn renew(&self, held: &Held) -> Result<(), Failure> {
        if held.renewable {
            let body = json!({});
            let reply = self.http.send(Call::post("auth/token/renew-self", &body), Some(&held.token)).await;
            if let Ok(Answer::Done(value)) = reply.and_then(|reply| reply.judge(self.terse))
                && let Some(renewed) = Held::granted(&value["auth"], self.now())
                // Close to the end that no renewal can move, each grants less than the one before.
                && renewed.life.is_none_or(|life| life > held.left(self.now()))
            {
                self.hold(renewed);
                return Ok(());
            }
        }
        self.log_in_again().await
    }

    async fn log_in_again(&self) -> Result<(), Failure> {
        match log_in(&self.http, &self.auth, &*self.clock, self.terse).await {
            Ok(held) => {
                self.hold(held);
                Ok(())
            }
            Err(LoginFailure::Refused) => Err(Failure::nothing_done(match self.auth {
                VaultAuth::Token(_) => "the Vault token has expired and can be renewed no more",
                VaultAuth::AppRole { .. } => "Vault refuses the AppRole login",
            })),
            Err(LoginFailure::Other(failure)) => Err(Failure::NothingDone(failure.into())),
        }
    }

    /// Logs in anew because `denied` was; whether there is another token now. One that is fresh is denied for another
    /// reason than its age.
    async fn replace_denied(&self, denied: &HeaderValue) -> bool {
        if matches!(self.auth, VaultAuth::Token(_)) {
            return false;
        }
        let _renewing = self.renewing.lock().await;
        let held = self.held();
        if held.token != *denied {
            return true;
        }
        let is_fresh = self.now().since(held.since) < PAUSE;
        !is_fresh && self.now() >= held.next_try && {
            let replaced = self.log_in_again().await.is_ok();
            if !replaced {
                self.hold(Held { next_try: self.now() + PAUSE, ..held });
            }
            replaced
        }
    }
}

/// What [`Session::open`] reports of a failure.
pub(super) fn reason(failure: Failure) -> String {
    match failure.into() {
        tokenkeep_core::ports::StoreError::Unavailable { reason, .. }
        | tokenkeep_core::ports::StoreError::Corrupt { reason } => reason,
    }
}

/// Asks the server how it is, which needs no token. Whether it is terse.
async fn check_server(http: &Http) -> Result<bool, OpenError> {
    let address = || http.address.clone();
    let reply = http.send(Call::get("sys/seal-status"), None).await;
    let reply = reply.map_err(|failure| OpenError::Unreachable { address: address(), problem: reason(failure) })?;
    let messages = reply.body.messages();
    let Body::Json(status) = &reply.body else { return Err(OpenError::NotVault { address: address() }) };
    if status["initialized"] == false || messages.contains("seal config not found") {
        return Err(OpenError::NotInitialized { address: address() });
    }
    match status["sealed"].as_bool() {
        Some(true) => Err(OpenError::Sealed { address: address() }),
        // Vault and OpenBao give their version; rusty_vault says no more than it must, here as elsewhere.
        Some(false) => Ok(status["version"].as_str().is_none()),
        None if reply.status.is_success() => Err(OpenError::NotVault { address: address() }),
        None => Err(OpenError::Unavailable(format!("it answers {}: {messages}", reply.status.as_u16()))),
    }
}

/// How long a token that was given to us lives.
async fn look_up(http: &Http, token: &str, clock: &dyn Clock, terse: bool) -> Result<Held, OpenError> {
    let unusable =
        || OpenError::Setting { setting: "token", problem: "it is empty, or holds what no token can".into() };
    let token = header(token).ok_or_else(unusable)?;
    let since = clock.now().boot;
    let reply = http.send(Call::get("auth/token/lookup-self"), Some(&token)).await;
    let reply = reply.map_err(|failure| OpenError::Unavailable(reason(failure)))?;
    if reply.status.as_u16() == 403 {
        return Err(OpenError::TokenRefused { address: http.address.clone() });
    }
    match reply.judge(terse) {
        Ok(Answer::Done(value)) => {
            let life = Duration::from_secs(value["data"]["ttl"].as_u64().unwrap_or(0));
            Ok(Held {
                token,
                since,
                life: Some(life).filter(|life| !life.is_zero()),
                renewable: value["data"]["renewable"].as_bool().unwrap_or(false),
                next_try: since,
            })
        }
        Ok(_) => Err(OpenError::NotVault { address: http.address.clone() }),
        Err(failure) => Err(OpenError::Unavailable(reason(failure))),
    }
}

enum LoginFailure {
    /// There is no way in.
    Refused,
    Other(Failure),
}

async fn log_in(http: &Http, auth: &VaultAuth, clock: &dyn Clock, terse: bool) -> Result<Held, LoginFailure> {
    let VaultAuth::AppRole { mount, role_id, secret_id } = auth else { return Err(LoginFailure::Refused) };
    // Counted from before the request, so that it never seems to live longer than it does.
    let since = clock.now().boot;
    let body = json!({"role_id": role_id, "secret_id": secret_id.expose_secret()});
    let path = format!("auth/{mount}/login");
    let reply = http.send_login(Call::post(&path, &body)).await.map_err(LoginFailure::Other)?;
    if matches!(reply.status.as_u16(), 400 | 403 | 404) {
        return Err(LoginFailure::Refused);
    }
    match reply.judge(terse) {
        Ok(Answer::Done(value)) => Held::granted(&value["auth"], since)
            .ok_or_else(|| LoginFailure::Other(Failure::nothing_done("what answers a login is not Vault"))),
        Ok(_) => Err(LoginFailure::Refused),
        Err(failure) => Err(LoginFailure::Other(failure)),
    }
}
