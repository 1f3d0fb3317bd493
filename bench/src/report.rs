//! What was promised, what was seen, and the line of counts that the chores read.

use anyhow::ensure;

#[derive(Default)]
pub struct Report {
    passed: u32,
    failed: u32,
    left_out: u32,
}

impl Report {
    /// A scenario that ended well or did not.
    pub fn note(&mut self, name: &str, result: anyhow::Result<String>) {
        match result {
            Ok(what) => {
                self.passed += 1;
                println!("  ok    {name}: {what}");
            }
            Err(error) => {
                self.failed += 1;
                println!("  FAIL  {name}: {error:#}");
            }
        }
    }

    /// A promise and whether it was kept.
    pub fn promise(&mut self, promise: &str, kept: bool, seen: impl std::fmt::Display) {
        let (word, count) = if kept { ("ok  ", &mut self.passed) } else { ("FAIL", &mut self.failed) };
        *count += 1;
        println!("  {word}  {promise}: {seen}");
    }

    /// A promise that could not be looked at, which is neither kept nor broken.
    pub fn leave_out(&mut self, promise: &str, why: impl std::fmt::Display) {
        self.left_out += 1;
        println!("  ----  {promise}: left out, {why}");
    }

    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// Prints the counts; an error if anything failed.
    pub fn finish(self, what: &str) -> anyhow::Result<()> {
        if self.left_out > 0 {
            println!("{} left out", self.left_out);
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        ensure!(self.failed == 0, "{} of {what} failed", self.failed);
        Ok(())
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
