//! What was checked, and what came of it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Counts {
    /// Reads a line in which a test runner sums up: cargo-nextest's, libtest's, or `N passed, N failed` of our own.
    pub(crate) fn parse(line: &str) -> Option<Counts> {
        let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let number_before = |word| words.windows(2).find(|w| w[1] == word).and_then(|w| w[0].parse::<u64>().ok());
        let sums_up = line.contains("tests run:") || line.contains("test run:") || line.starts_with("test result:");
        let own = words.len() == 4 && words[1] == "passed" && words[3] == "failed";
        if !sums_up && !own {
            return None;
        }
        let or_none = Option::unwrap_or_default;
        let failed = ["failed", "timed", "exec"].map(|word| or_none(number_before(word))).iter().sum();
        Some(Counts { passed: or_none(number_before("passed")), failed })
    }

    /// All of them together; `None` if there are none.
    pub(crate) fn sum(all: impl IntoIterator<Item = Counts>) -> Option<Counts> {
        all.into_iter().reduce(|a, b| Counts { passed: a.passed + b.passed, failed: a.failed + b.failed })
    }
}

/// How a step ended.
pub(crate) enum Outcome {
    /// It ran.
    Ran(Counts),
    /// It could not run, because something is not there and could not be fetched.
    Missing(String),
}

impl Outcome {
    /// One check, which passed or failed.
    pub(crate) fn one(passed: bool) -> Outcome {
        Outcome::Ran(Counts { passed: u64::from(passed), failed: u64::from(!passed) })
    }
}

struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// The steps of a chore.
#[derive(Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Runs a step and notes what came of it. An error is a failure.
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<Outcome>) {
        println!("\n==> {name}");
        #[expect(clippy::disallowed_methods, reason = "tells people how long a step took")]
        let began = Instant::now();
        let outcome = run().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Outcome::one(false)
        });
        self.0.push(Row { name, outcome, took: began.elapsed() });
    }

    pub(crate) fn append(&mut self, mut other: Report) {
        self.0.append(&mut other.0);
    }

    /// Whether nothing failed.
    pub(crate) fn is_good(&self, allow_missing: bool) -> bool {
        self.total(allow_missing).failed == 0
    }

    fn total(&self, allow_missing: bool) -> Counts {
        let counts = self.0.iter().map(|row| match row.outcome {
            Outcome::Ran(counts) => counts,
            Outcome::Missing(_) => Counts { passed: 0, failed: u64::from(!allow_missing) },
        });
        Counts::sum(counts).unwrap_or_default()
    }

    /// Prints the summary; its last line is `N passed, N failed`.
    pub(crate) fn finish(&self, allow_missing: bool) -> ExitCode {
        println!();
        for Row { name, outcome, took } in &self.0 {
            let what = match outcome {
                Outcome::Ran(Counts { passed, failed: 0 }) => format!("ok: {passed} passed"),
                Outcome::Ran(Counts { passed, failed }) => format!("FAILED: {passed} passed, {failed} failed"),
                Outcome::Missing(why) if allow_missing => format!("skipped: {why}"),
                Outcome::Missing(why) => format!("FAILED, could not run (--allow-missing skips it): {why}"),
            };
            println!("{:>7.1} s  {name:<42} {what}", took.as_secs_f64());
        }
        let Counts { passed, failed } = self.total(allow_missing);
        println!("{passed} passed, {failed} failed");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_are_understood() {
        let counts = |passed, failed| Some(Counts { passed, failed });
        let nextest = "     Summary [   3.412s] 290 tests run: 286 passed (1 slow), 3 failed, 1 timed out, 2 skipped\n";
        assert_eq!(Counts::parse(nextest), counts(286, 4));
        assert_eq!(Counts::parse("     Summary [   0.1s] 1 test run: 1 passed, 0 skipped"), counts(1, 0));
        let libtest = "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s";
        assert_eq!(Counts::parse(libtest), counts(12, 2));
        assert_eq!(Counts::parse("100 passed, 0 failed\n"), counts(100, 0));
    }

    #[test]
    fn other_lines_are_not() {
        for line in ["", "test a::passed ... ok", "the provider failed", "3 passed, 1 failed, which is odd"] {
            assert_eq!(Counts::parse(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_missing_fails_unless_allowed() {
        let mut report = Report::default();
        report.step("one", || Ok(Outcome::one(true)));
        report.step("two", || Ok(Outcome::Missing("no network".to_owned())));
        assert!(!report.is_good(false));
        assert!(report.is_good(true));
    }

    #[test]
    fn an_error_is_a_failure() {
        let mut report = Report::default();
        report.step("one", || anyhow::bail!("no such program"));
        assert!(!report.is_good(true));
    }
}
