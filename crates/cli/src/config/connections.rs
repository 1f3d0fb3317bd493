//! `[[connection]]`

use super::section::section;

section! {
    /// A refresh token obtained elsewhere, to begin with. It is stored only where nothing is: from then on what is
    /// stored is the truth, and the variable is ignored.
    MANY "connection" SeededConnection {
        /// The integration's id.
        provider: Option<String> = None, Text "\"qontak\"";
        /// Whose workspace.
        tenant: String = "_default".to_owned(), Text "\"_default\"";
        /// Whose account.
        subject: String = "_default".to_owned(), Text "\"_default\"";
        /// The environment variable that holds the refresh token.
        refresh_token_env: Option<String> = None, Text "\"QONTAK_REFRESH_TOKEN\"";
    }
}
