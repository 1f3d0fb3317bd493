//! What goes wrong on purpose at the token endpoint.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What happens to one token request instead of the usual. As JSON every member is optional.
///
/// A request passes four stations: pause, processing, pause, reply. A fault says what each of them does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Before the request is processed.
    pub before: Pause,
    /// Whether it is: whether a refresh token in it is spent.
    pub process: bool,
    /// Before the reply goes out.
    pub after: Pause,
    /// What goes out.
    pub reply: FaultReply,
}

/// A stop on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// None.
    #[default]
    No,
    /// Until the gate is released.
    Gate,
    /// For so many milliseconds of the provider's clock.
    Millis(u64),
}

/// What goes out in place of the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultReply {
    /// The reply as it should be.
    #[default]
    Honest,
    /// Nothing: the connection is closed.
    Cut,
    /// The head and half of the body, then the connection is closed.
    Truncated,
    /// This, word for word.
    Verbatim {
        /// The status.
        status: u16,
        /// The headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
}

impl Default for Fault {
    /// No fault.
    fn default() -> Self {
        Self { before: Pause::No, process: true, after: Pause::No, reply: FaultReply::Honest }
    }
}

impl Fault {
    /// The connection is closed and nothing was processed.
    pub fn cut_before() -> Self {
        Self { process: false, ..Self::cut_after() }
    }
    /// The request was processed (the token is rotated), but its reply is lost.
    pub fn cut_after() -> Self {
        Self { reply: FaultReply::Cut, ..Self::default() }
    }
    /// The request was processed, but half of its reply is lost.
    pub fn truncated() -> Self {
        Self { reply: FaultReply::Truncated, ..Self::default() }
    }
    /// This answer, nothing processed.
    pub fn answer(status: u16, body: &str) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let reply = FaultReply::Verbatim { status, headers, body: body.to_owned() };
        Self { process: false, reply, ..Self::default() }
    }
    /// An OAuth error (RFC 6749 5.2), nothing processed.
    pub fn error(status: u16, code: &str) -> Self {
        Self::answer(status, &serde_json::json!({ "error": code }).to_string())
    }
    /// 200 with a body that is no token reply.
    pub fn garbage() -> Self {
        Self::answer(200, "<html>It works!</html>")
    }
    /// 503 from a proxy in front.
    pub fn server_error() -> Self {
        Self::answer(503, "upstream connect error")
    }
    /// 429 with `Retry-After`, in seconds.
    pub fn too_many_requests(retry_after: u64) -> Self {
        Self::error(429, "rate_limited").with_header("retry-after", &retry_after.to_string())
    }
    /// 200 with `{"ok": false}`, as Slack says no.
    pub fn slack(error: &str) -> Self {
        Self::answer(200, &serde_json::json!({ "ok": false, "error": error }).to_string())
    }
    /// The same, but the request was processed first.
    #[must_use]
    pub fn after_processing(self) -> Self {
        Self { process: true, ..self }
    }
    /// The same, but held at a gate before processing.
    #[must_use]
    pub fn held_before(self) -> Self {
        Self { before: Pause::Gate, ..self }
    }
    /// The same, but held at a gate before the reply.
    #[must_use]
    pub fn held_after(self) -> Self {
        Self { after: Pause::Gate, ..self }
    }
    /// The same verbatim answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let FaultReply::Verbatim { headers, .. } = &mut self.reply {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

impl Pause {
    pub(super) fn duration(self) -> Option<Duration> {
        match self {
            Pause::Millis(millis) => Some(Duration::from_millis(millis)),
            Pause::No | Pause::Gate => None,
        }
    }
}

/// Where requests are held until the test lets them go. Dropping it lets them go as well.
#[derive(Debug)]
#[must_use = "dropping the gate opens it"]
pub struct Gate {
    door: Arc<Door>,
}

/// The two sides of a gate.
#[derive(Debug, Default)]
pub(super) struct Door {
    arrivals: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Gate {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
    /// Waits until a request is held here (or was).
    pub async fn arrived(&self) {
        self.arrivals(1).await;
    }
    /// Waits until `count` requests came here. The future does not borrow the gate.
    pub fn arrivals(&self, count: usize) -> impl Future<Output = ()> + Send + use<> {
        let mut arrivals = self.door.arrivals.subscribe();
        async move {
            // An error means that the gate is gone: then there is nothing left to wait for.
            let _gone = arrivals.wait_for(|arrived| *arrived >= count).await;
        }
    }
    /// How many requests came here so far.
    pub fn arrived_so_far(&self) -> usize {
        *self.door.arrivals.borrow()
    }
    /// Lets everything go, now and later.
    pub fn release(&self) {
        self.door.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

impl Door {
    /// Waits for the gate to be opened.
    pub(super) async fn pass(&self) {
        self.arrivals.send_modify(|arrived| *arrived += 1);
        let mut open = self.open.subscribe();
        // The sender lives in `self`, so the channel cannot close under us.
        let _open = open.wait_for(|open| *open).await;
    }
}

/// The faults to come, first come first served.
#[derive(Debug, Default)]
pub(super) struct Script(VecDeque<Scripted>);

#[derive(Debug)]
struct Scripted {
    fault: Fault,
    door: Arc<Door>,
    left: usize,
}

impl Script {
    /// The next `times` token requests get this fault.
    pub(super) fn push(&mut self, fault: Fault, times: usize) -> Arc<Door> {
        let door = Arc::<Door>::default();
        self.0.push_back(Scripted { fault, door: Arc::clone(&door), left: times });
        door
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What this request gets.
    pub(super) fn next(&mut self) -> (Fault, Arc<Door>) {
        while self.0.front().is_some_and(|scripted| scripted.left == 0) {
            self.0.pop_front();
        }
        let Some(scripted) = self.0.front_mut() else { return (Fault::default(), Arc::default()) };
        scripted.left -= 1;
        (scripted.fault.clone(), Arc::clone(&scripted.door))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_order_and_end() {
        let mut script = Script::default();
        script.push(Fault::garbage(), 2);
        script.push(Fault::cut_after(), 1);
        let faults: Vec<_> = (0..4).map(|_| script.next().0).collect();
        assert_eq!(faults, [Fault::garbage(), Fault::garbage(), Fault::cut_after(), Fault::default()]);
    }

    #[test]
    fn a_fault_can_be_written_as_json() {
        let fault: Fault =
            serde_json::from_str(r#"{"after": "gate", "reply": "cut", "before": {"millis": 5}}"#).unwrap();
        assert_eq!(fault, Fault { before: Pause::Millis(5), ..Fault::cut_after().held_after() });
    }
}
