//! `[connect]`

use super::section::section;

section! {
    /// Connecting users.
    ONE "connect" Connect {
        /// Origins that `return_to` of `POST /v1/connect` may name, besides our own.
        return_to_origins: Vec<String> = Vec::new(), List "[\"https://app.example.com\"]";
    }
}
