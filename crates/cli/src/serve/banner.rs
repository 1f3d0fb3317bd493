//! What the person who started it reads first.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use secrecy::ExposeSecret as _;
use tokenkeep_oauth::Secret;
use url::Url;

use super::store::Choice;
use crate::out;

/// What the server found, made and is.
pub(super) struct Banner<'a> {
    pub(super) store: &'a Choice,
    pub(super) listening: SocketAddr,
    pub(super) socket: Option<PathBuf>,
    pub(super) public_url: &'a Url,
    pub(super) issuer: Option<&'a str>,
    pub(super) data_dir: &'a Path,
    pub(super) sealing: &'a str,
    pub(super) admin_key: Option<&'a Secret>,
}

impl Banner<'_> {
    /// Shows it. The admin key stands in it, this once; the log never has it.
    pub(super) fn show(&self) -> Result<()> {
        if let Some(warning) = self.warning() {
            tracing::warn!("{warning}");
        }
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        out::line(zeroize::Zeroizing::new(text).trim_end())
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        writeln!(text, "tokenkeep {version} · store {} ({})\n", self.store.place, self.store.chosen_by)?;
        writeln!(text, "  listening   http://{}", self.listening)?;
        if let Some(socket) = &self.socket {
            writeln!(text, "  socket      {}", socket.display())?;
        }
        writeln!(text, "  public URL  {}", self.public_url.as_str().trim_end_matches('/'))?;
        if let Some(issuer) = self.issuer {
            writeln!(text, "  issues as   {issuer}")?;
        }
        writeln!(text, "  data        {}", self.data_dir.display())?;
        writeln!(text, "  sealing     {}", self.sealing)?;
        if let Some(key) = self.admin_key {
            writeln!(text, "  admin key   {}   (shown once: put it into your password manager)", key.expose_secret())?;
        }
        if let Some(warning) = self.warning() {
            writeln!(text, "\n  ⚠ {warning}")?;
        }
        if self.admin_key.is_some() {
            writeln!(text, "\nNext, in another terminal of this machine:")?;
            writeln!(text, "  tokenkeep integrations set google --client-id YOUR_CLIENT_ID")?;
            writeln!(text, "  tokenkeep connect google --subject alice")?;
        }
        writeln!(text, "\nReady. Ctrl-C ends it.")
    }

    fn warning(&self) -> Option<String> {
        (!self.listening.ip().is_loopback()).then(|| {
            format!(
                "listening on {} without TLS: whoever is on the way can read keys and tokens. Put a TLS proxy in front, or \
                 listen on 127.0.0.1",
                self.listening
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::store::Place;

    fn banner(listening: &str, admin_key: Option<&Secret>) -> String {
        let store = Choice { place: Place::Memory, chosen_by: "TOKEN_STORE".to_owned() };
        let mut text = String::new();
        Banner {
            store: &store,
            listening: listening.parse().unwrap(),
            socket: None,
            public_url: &Url::parse("http://localhost:7420").unwrap(),
            issuer: None,
            data_dir: Path::new("/data"),
            sealing: "[sealing] key",
            admin_key,
        }
        .write(&mut text)
        .unwrap();
        text
    }

    #[test]
    fn the_first_line_names_the_store_and_who_chose_it() {
        let text = banner("127.0.0.1:7420", None);
        assert!(text.lines().next().unwrap().ends_with("store memory: (gone at exit) (TOKEN_STORE)"), "{text}");
        assert!(!text.contains('⚠') && !text.contains("admin key"), "{text}");
    }

    #[test]
    fn an_open_address_is_warned_about_and_a_new_key_is_shown() {
        let text = banner("0.0.0.0:7420", Some(&Secret::from("tk_x")));
        assert!(text.contains("⚠ listening on 0.0.0.0:7420 without TLS") && text.contains("tk_x"), "{text}");
    }
}
