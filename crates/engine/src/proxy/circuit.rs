//! Who does not answer is left alone for a while: one call that finds out, rather than each.
//!
//! Closed, everything passes. After so many failures in a row the circuit of that origin opens: nothing passes until
//! it has cooled down. Then one call goes as a probe, and what comes of it closes the circuit or opens it again; as long
//! as nothing does, another goes after each cool-down.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokenkeep_core::Boot;

use crate::metrics::Metrics;

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// After how many failures in a row; 0 = never.
    pub failures: u32,
    /// How long nothing passes before a probe does.
    pub cool_down: Duration,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        Self { failures: 5, cool_down: Duration::from_secs(10) }
    }
}

/// The circuits to all origins. Each is of this instance alone: it costs the others as few calls to find out. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub(crate) struct Circuit {
    settings: CircuitSettings,
    origins: Arc<Origins>,
    open: Gauge,
    refused: Counter,
}

#[derive(Debug, Default)]
struct Origins {
    states: Mutex<HashMap<String, State>>,
    /// Whether there is anything in it: while nobody fails, as nearly always, nobody looks.
    failing: AtomicBool,
}

/// The circuit to one origin; one that is not there is closed, without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many failures in a row.
    Closed(u32),
    /// Nothing passes until then.
    Open { until: Boot },
    /// Nothing passes while one call finds out, since then. Such calls are told apart by it.
    Probing { since: Boot },
}

impl State {
    fn wait(self, settings: CircuitSettings, now: Boot) -> Option<Duration> {
        match self {
            State::Closed(_) => None,
            State::Open { until } => left(until, now),
            // A call may take long by its caller's doing: then the next one finds out.
            State::Probing { since } => left(since + settings.cool_down, now),
        }
    }
}

/// The right to one call. If it is dropped before the call's end is reported, nothing was found out.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Which origin this probes, and since when.
    probe: Option<(Circuit, String, Boot)>,
}

impl Circuit {
    /// All closed.
    pub(crate) fn new(settings: CircuitSettings, metrics: &Metrics) -> Self {
        let this = Self { settings, origins: Arc::default(), open: Gauge::default(), refused: Counter::default() };
        metrics.register(|registry| {
            registry.register(
                "circuits_open",
                "Origins of APIs that are left alone because they fail",
                this.open.clone(),
            );
            registry.register(
                "circuit_refusals",
                "Calls that were refused because their origin fails",
                this.refused.clone(),
            );
        });
        this
    }

    /// Lets one call to `origin` (`https://api.example.com`) pass, or says when to ask again. Its end is to be
    /// [reported](Self::report).
    pub(crate) fn enter(&self, origin: &str, now: Boot) -> Result<Pass, Duration> {
        if !self.origins.failing.load(Relaxed) {
            return Ok(Pass { probe: None });
        }
        let mut origins = self.origins();
        let Some(state) = origins.get_mut(origin) else { return Ok(Pass { probe: None }) };
        if let Some(wait) = state.wait(self.settings, now) {
            self.refused.inc();
            return Err(wait);
        }
        if matches!(state, State::Closed(_)) {
            return Ok(Pass { probe: None });
        }
        *state = State::Probing { since: now };
        tracing::info!(%origin, "one call finds out whether the provider is back");
        Ok(Pass { probe: Some((self.clone(), origin.to_owned(), now)) })
    }

    /// The same for who had to wait for something else meanwhile. A probe is one still.
    pub(crate) fn enter_after(&self, pass: Pass, origin: &str, now: Boot) -> Result<Pass, Duration> {
        if pass.probe.is_some() { Ok(pass) } else { self.enter(origin, now) }
    }

    /// How a call to `origin` ended: well, if there was an answer that is no [failure](is_failure).
    pub(crate) fn report(&self, origin: &str, ok: bool, now: Boot) {
        if (ok && !self.origins.failing.load(Relaxed)) || self.settings.failures == 0 {
            return;
        }
        let mut origins = self.origins();
        if ok && !origins.contains_key(origin) {
            return;
        }
        let state = origins.entry(origin.to_owned()).or_insert(State::Closed(0));
        match (*state, ok) {
            (State::Closed(_), true) => {
                origins.remove(origin);
            }
            (State::Open { .. } | State::Probing { .. }, true) => {
                origins.remove(origin);
                self.open.dec();
                tracing::info!(%origin, "the provider answers again");
            }
            (State::Closed(failures), false) if failures + 1 < self.settings.failures => {
                *state = State::Closed(failures + 1);
            }
            (State::Closed(failures), false) => {
                *state = State::Open { until: now + self.settings.cool_down };
                self.open.inc();
                tracing::warn!(%origin, failures = failures + 1, "the provider fails; it is left alone for a while");
            }
            // Calls that were under way when it opened say nothing new.
            (State::Open { .. }, false) => {}
            (State::Probing { .. }, false) => {
                *state = State::Open { until: now + self.settings.cool_down };
                tracing::info!(%origin, "the provider still fails");
            }
        }
        self.origins.failing.store(!origins.is_empty(), Relaxed);
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.origins.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn left(until: Boot, now: Boot) -> Option<Duration> {
    (until > now).then(|| until.since(now))
}

/// Whether the API itself fails, as its answer says. What any caller can provoke by a method or a version that nobody
/// knows says nothing of it.
pub(crate) fn is_failure(status: StatusCode) -> bool {
    let of_the_request = matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    status.is_server_error() && !of_the_request
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some((circuit, origin, began)) = self.probe.take() else { return };
        let mut origins = circuit.origins();
        if let Some(state) = origins.get_mut(&origin)
            && *state == (State::Probing { since: began })
        {
            // Its caller went away: the next one finds out.
            *state = State::Open { until: began };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://api.example.com";

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(1000 + seconds))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn circuit() -> (Circuit, Metrics) {
        let metrics = Metrics::new();
        (Circuit::new(CircuitSettings::default(), &metrics), metrics)
    }

    fn fail(circuit: &Circuit, times: u32, now: Boot) {
        for _ in 0..times {
            circuit.report(ORIGIN, false, now);
        }
    }

    /// What a refused call is told.
    fn wait(circuit: &Circuit, now: Boot) -> Option<Duration> {
        circuit.enter(ORIGIN, now).err()
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row() {
        let (circuit, metrics) = circuit();
        fail(&circuit, 4, at(0));
        circuit.report(ORIGIN, true, at(0));
        fail(&circuit, 4, at(0));
        assert_eq!(wait(&circuit, at(0)), None, "they were not in a row");
        fail(&circuit, 1, at(1));
        assert_eq!(wait(&circuit, at(2)), Some(seconds(9)));
        assert_eq!(wait(&circuit, at(3)), Some(seconds(8)));
        assert!(circuit.enter("https://other.example.com", at(2)).is_ok(), "it is that origin's alone");
        assert!(metrics.render().contains("tokenkeep_circuits_open 1"));
        assert!(metrics.render().contains("tokenkeep_circuit_refusals_total 2"));
    }

    #[test]
    fn one_probe_closes_it() {
        let (circuit, metrics) = circuit();
        fail(&circuit, 5, at(0));
        let probe = circuit.enter(ORIGIN, at(10)).expect("it has cooled down");
        assert_eq!(wait(&circuit, at(10)), Some(seconds(10)), "one is enough");
        assert_eq!(wait(&circuit, at(19)), Some(seconds(1)));
        circuit.report(ORIGIN, true, at(31));
        drop(probe);
        assert_eq!(wait(&circuit, at(31)), None);
        assert!(metrics.render().contains("tokenkeep_circuits_open 0"));
        fail(&circuit, 4, at(31));
        assert_eq!(wait(&circuit, at(31)), None, "it starts at nothing");
    }

    #[test]
    fn one_probe_opens_it_again() {
        let (circuit, metrics) = circuit();
        fail(&circuit, 5, at(0));
        let probe = circuit.enter(ORIGIN, at(10)).expect("it has cooled down");
        fail(&circuit, 1, at(12));
        drop(probe);
        assert_eq!(wait(&circuit, at(12)), Some(seconds(10)));
        assert!(circuit.enter(ORIGIN, at(22)).is_ok());
        assert!(metrics.render().contains("tokenkeep_circuits_open 1"));
    }

    #[test]
    fn a_probe_whose_caller_goes_away_leaves_it_to_the_next() {
        let (circuit, _metrics) = circuit();
        fail(&circuit, 5, at(0));
        drop(circuit.enter(ORIGIN, at(10)).expect("it has cooled down"));
        let second = circuit.enter(ORIGIN, at(11)).expect("nothing was found out");
        assert!(wait(&circuit, at(11)).is_some());
        circuit.report(ORIGIN, true, at(11));
        drop(second);
        assert_eq!(wait(&circuit, at(11)), None);
    }

    #[test]
    fn a_probe_that_takes_long_holds_nobody_up_for_longer_than_an_open_circuit_does() {
        let (circuit, metrics) = circuit();
        fail(&circuit, 5, at(0));
        let slow = circuit.enter(ORIGIN, at(10)).expect("it has cooled down");
        let second = circuit.enter(ORIGIN, at(20)).expect("the first has had its time");
        assert_eq!(wait(&circuit, at(21)), Some(seconds(9)), "one at a time");
        drop(slow);
        assert_eq!(wait(&circuit, at(22)), Some(seconds(8)), "the second is under way yet");
        circuit.report(ORIGIN, true, at(23));
        drop(second);
        assert_eq!(wait(&circuit, at(23)), None);
        assert!(metrics.render().contains("tokenkeep_circuits_open 0"));
    }

    #[test]
    fn what_was_under_way_when_it_opened_prolongs_nothing() {
        let (circuit, _metrics) = circuit();
        fail(&circuit, 5, at(0));
        fail(&circuit, 50, at(9));
        assert!(circuit.enter(ORIGIN, at(10)).is_ok());
    }

    #[test]
    fn it_can_be_switched_off() {
        let circuit = Circuit::new(CircuitSettings { failures: 0, ..CircuitSettings::default() }, &Metrics::new());
        fail(&circuit, 100, at(0));
        assert_eq!(wait(&circuit, at(0)), None);
        assert!(circuit.origins().is_empty(), "nothing is remembered");
    }
}
