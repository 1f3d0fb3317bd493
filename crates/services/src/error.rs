use std::fmt;

/// A server did not do what it was asked to; says what, and shows the end of its log.
#[derive(thiserror::Error)]
#[error("{what}{}", shown(log))]
pub struct Error {
    what: String,
    log: String,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), log: String::new() }
    }

    pub(crate) fn with_log(what: impl Into<String>, log: String) -> Self {
        Self { what: what.into(), log }
    }

    /// Whether somebody else was faster to take the port.
    pub(crate) fn is_port_taken(&self) -> bool {
        self.log.to_ascii_lowercase().contains("address already in use")
    }

    /// Why `what` could not be done.
    pub(crate) fn because<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |cause| Self::new(format!("{what}: {cause}"))
    }
}

/// As it reads, so that a test that unwraps one shows the log.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn shown(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n--- its log ---\n{log}---------------") }
}
