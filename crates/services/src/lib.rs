//! Private servers for tests: PostgreSQL, pgbouncer, Redis and Vault-compatible ones, on free ports and in temporary directories.
