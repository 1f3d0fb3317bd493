//! `[[key]]`

use std::path::PathBuf;

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// Keys to the API, for infrastructure as code. Others are made with `tokenkeep keys create`.
    MANY "key" ApiKey {
        /// For people; names it in this file.
        name: Option<String> = None, Text "\"mailer\"";
        /// `admin` (everything), `operator` (everything except reading secrets, deciding where they are sent, and
        /// managing keys), `application` (connect, put, token, refresh, delete) or `reader` (token and status).
        role: Option<String> = None, Text "\"application\"";
        /// The only tenants it may name. Left out: all.
        tenants: Option<Vec<String>> = None, List "[\"_default\"]";
        /// The only integrations it may name. Left out: all.
        providers: Option<Vec<String>> = None, List "[\"google\"]";
        /// The key: `tk_` and at least 32 characters that nobody can guess, as `tokenkeep secret api-key` makes it.
        secret: Option<Secret> = None, Text "\"tk_...\"";
        /// A file that holds it.
        secret_file: Option<PathBuf> = None, Text "\"/run/secrets/mailer-key\"";
    }
}
