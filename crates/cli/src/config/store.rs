//! `[store]`

use super::section::section;

section! {
    /// Where records are kept. Everything in it is sealed.
    ONE "store" Store {
        /// `sqlite:PATH` or `memory:` (gone at exit). By default `tokenkeep.db` in the data directory.
        url: Option<String> = None, Text "\"sqlite:/var/lib/tokenkeep/tokenkeep.db\"";
        /// Whether labels that name a person are hashed: the database then shows no subject, and lists by subject still
        /// work. Decide before the first connection is stored.
        hash_labels: bool = false, Flag "false";
        /// Seconds between two clean-ups of what has expired and nothing can renew.
        cleanup_interval: u64 = 1800, Number "1800";
    }
}
