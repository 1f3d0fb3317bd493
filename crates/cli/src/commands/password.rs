//! A secret typed at the terminal, unseen.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

/// Asks for a secret; `None` = an empty answer.
pub(super) fn ask(question: &str) -> Result<Option<Secret>> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question}: ")?;
    stderr.flush()?;
    let mut text = Zeroizing::new(String::new());
    {
        let _unseen = Unseen::begin().context("the terminal cannot be told not to show what is typed")?;
        io::stdin().lock().read_line(&mut text)?;
    }
    writeln!(stderr)?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Secret::from))
}

/// While this lives, what is typed is not shown.
struct Unseen(Termios);

impl Unseen {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &unseen)?;
        Ok(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // The terminal is gone, then.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
