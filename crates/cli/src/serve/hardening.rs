//! What lies in memory stays there.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Turns core dumps off: one would hold every secret of this process. Where the system refuses, it is said and the
/// server runs all the same.
pub(super) fn no_core_dumps() {
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // Also keeps processes of the same user from reading this one's memory.
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::warn!(%error, "this process's memory cannot be closed to others");
        }
    }
}
