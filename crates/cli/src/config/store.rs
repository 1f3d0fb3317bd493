//! `[store]`

use std::path::PathBuf;

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// Where records are kept. Everything in it is sealed. docs/stores.md compares them.
    ONE "store" Store {
        /// `sqlite:PATH`, `postgres://USER@HOST/DATABASE`, `redis://HOST:PORT`, `redis+sentinel://HOST:PORT,HOST:PORT/NAME`,
        /// `redis+cluster://HOST:PORT,HOST:PORT`, `vault://HOST:PORT/MOUNT/PATH`, `env:FILE` or `memory:` (gone at exit). By
        /// default `tokenkeep.db` in the data directory.
        url: Option<Secret> = None, Text "\"sqlite:/var/lib/tokenkeep/tokenkeep.db\"";
        /// A file that holds the URL.
        url_file: Option<PathBuf> = None, Text "\"/run/secrets/tokenkeep-store-url\"";
        /// The password, for a URL without one.
        password: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        password_file: Option<PathBuf> = None, Text "\"/run/secrets/tokenkeep-store-password\"";
        /// Certificates (PEM) to trust beside those of the machine, where the store is reached by TLS.
        ca_file: Option<PathBuf> = None, Text "\"/etc/ssl/private-ca.pem\"";
        /// The most connections this instance opens to it; 0 = 10 to PostgreSQL, 50 to Redis.
        connections: u32 = 0, Number "0";
        /// Whether labels that name a person are hashed: the database then shows no subject, and lists by subject still
        /// work. Decide before the first connection is stored.
        hash_labels: bool = false, Flag "false";
        /// Seconds between two clean-ups of what has expired and nothing can renew.
        cleanup_interval: u64 = 1800, Number "1800";
        /// PostgreSQL: where to listen for the other instances, if the URL leads to a pooler and no Redis carries the bus.
        postgres_listen_url: Option<Secret> = None, Text "\"postgres://tokenkeep@db-primary/tokenkeep\"";
        /// PostgreSQL: how many hash partitions the table of records is made with; 0 = none. Only the first start asks.
        postgres_partitions: u32 = 0, Number "0";
        /// Redis: what every key begins with. REDIS_KEY_PREFIX is honoured where this is not set.
        redis_prefix: Option<String> = None, Text "\"oauth:\"";
        /// Redis: go on although `maxmemory-policy` lets it drop records when it is full. Accounts are lost that way.
        redis_allow_eviction: bool = false, Flag "false";
        /// Redis: go on although nothing is written to disk (`appendonly no`). A restart of it loses every record.
        redis_allow_volatile: bool = false, Flag "false";
        /// Vault: the role of an AppRole login, instead of VAULT_TOKEN.
        vault_role_id: Option<String> = None, Text "\"...\"";
        /// Vault: the secret of that role.
        vault_secret_id: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        vault_secret_id_file: Option<PathBuf> = None, Text "\"/run/secrets/tokenkeep-vault-secret-id\"";
    }
}
