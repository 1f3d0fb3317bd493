//! `[cache]`

use std::path::PathBuf;

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// Tokens in memory, ready to be served; and, with a Redis between them, instances that hear of each other at once.
    ONE "cache" Cache {
        /// How much memory they may take, in MiB.
        max_mib: u64 = 64, Number "64";
        /// Seconds a cached token is served without asking the store whether it is still the newest, where no bus says so.
        soft_life: u64 = 5, Number "5";
        /// A Redis that several instances share: sealed copies of tokens, and the bus. REDIS_URL is honoured where this is
        /// not set. Nothing is lost with it. The forms are those of `[store] url`.
        redis_url: Option<Secret> = None, Text "\"redis://127.0.0.1:6379\"";
        /// A file that holds the URL.
        redis_url_file: Option<PathBuf> = None, Text "\"/run/secrets/tokenkeep-redis-url\"";
        /// The password, for a URL without one. REDIS_PASSWORD is honoured where this is not set.
        redis_password: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        redis_password_file: Option<PathBuf> = None, Text "\"/run/secrets/tokenkeep-redis-password\"";
        /// Go on although a Redis on another machine asks for no password.
        redis_allow_no_password: bool = false, Flag "false";
    }
}
