//! `[transport]`

use std::path::PathBuf;

use super::section::section;

section! {
    /// How providers are reached.
    ONE "transport" Transport {
        /// Seconds that connecting may take.
        connect_timeout: u64 = 5, Number "5";
        /// Exchanges with one provider at the same time.
        concurrency: usize = 64, Number "64";
        /// New connections to one provider in a second; 0 = no limit.
        per_second: u32 = 0, Number "0";
        /// Certificates (PEM) to trust beside those of the machine.
        extra_ca_file: Option<PathBuf> = None, Text "\"/etc/ssl/private-ca.pem\"";
        /// Allows providers to be reached in the clear, on other machines too. Tokens can then be read on the way.
        allow_plain_http: bool = false, Flag "false";
    }
}
