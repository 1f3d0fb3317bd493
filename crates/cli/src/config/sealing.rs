//! `[sealing]`

use std::path::PathBuf;

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// The key that seals everything: 32 bytes in base64, as `tokenkeep secret sealing-key` makes it. With the default
    /// store one is made at the first start, in `sealing.key` in the data directory. Keep a copy: without the key, the
    /// database is noise.
    ONE "sealing" Sealing {
        /// The key itself. Better in the environment (TOKENKEEP__SEALING__KEY) than in this file.
        key: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it, readable by this user only.
        key_file: Option<PathBuf> = None, Text "\"/run/secrets/tokenkeep-sealing-key\"";
        /// A command that prints it; run by `sh -c`, 30 seconds at most.
        key_command: Option<String> = None, Text "\"pass show tokenkeep/sealing-key\"";
        /// The key of Vault's Transit engine that wraps the keys here: they then read `vault:v1:...`, as `vault write
        /// transit/encrypt/NAME plaintext=KEY` makes them. VAULT_ADDR and the login of `[store]` say where.
        transit_key: Option<String> = None, Text "\"tokenkeep\"";
        /// Former keys, which still open what they sealed.
        retired_keys: Vec<Secret> = Vec::new(), List "[]";
        /// Files that hold former keys.
        retired_key_files: Vec<PathBuf> = Vec::new(), List "[]";
    }
}
