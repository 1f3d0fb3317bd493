use std::time::Duration;

use super::CircuitSettings;

/// How providers' APIs are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// How long a call waits at most for a provider's limits.
    pub max_wait: Duration,
    /// When a provider that fails is left alone.
    pub circuit: CircuitSettings,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self { max_wait: Duration::from_secs(10), circuit: CircuitSettings::default() }
    }
}
