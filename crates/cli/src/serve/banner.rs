//! What the person who started it reads first.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use secrecy::ExposeSecret as _;
use tokenkeep_engine::issuer::{Admitted, IssuerSettings, Upstream};
use tokenkeep_oauth::Secret;
use tokenkeep_server::Protected;
use url::Url;

use super::store::Choice;
use crate::out;

/// What the server found, made and is.
pub(super) struct Banner<'a> {
    pub(super) store: &'a Choice,
    pub(super) listening: SocketAddr,
    pub(super) socket: Option<PathBuf>,
    pub(super) public_url: &'a Url,
    pub(super) issuer: Option<&'a IssuerSettings>,
    pub(super) protected: &'a [Protected],
    /// Those of their addresses where nobody answers.
    pub(super) silent: &'a [Url],
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
            writeln!(text, "  issues as   {}", issuer.url)?;
        }
        for Protected { resource, upstream, .. } in self.protected {
            let note = if self.silent.contains(upstream) { "   (⚠ does not answer yet)" } else { "" };
            writeln!(text, "  protects    {upstream}{note}\n              as {resource}")?;
        }
        writeln!(text, "  data        {}", self.data_dir.display())?;
        writeln!(text, "  sealing     {}", self.sealing)?;
        if let Some(key) = self.admin_key {
            writeln!(text, "  admin key   {}   (shown once: put it into your password manager)", key.expose_secret())?;
        }
        if let Some(warning) = self.warning() {
            writeln!(text, "\n  ⚠ {warning}")?;
        }
        if let (Some(issuer), [_, ..]) = (self.issuer, self.protected) {
            self.write_protected(text, issuer)?;
        } else if self.admin_key.is_some() {
            writeln!(text, "\nNext, in another terminal of this machine:")?;
            writeln!(text, "  tokenkeep integrations set google --client-id YOUR_CLIENT_ID")?;
            writeln!(text, "  tokenkeep connect google --subject alice")?;
        }
        writeln!(text, "\nReady. Ctrl-C ends it.")
    }

    /// What somebody needs to know who puts a server behind us.
    fn write_protected(&self, text: &mut String, issuer: &IssuerSettings) -> fmt::Result {
        writeln!(text, "\nGive MCP clients this address; they find out the rest:")?;
        for Protected { resource, .. } in self.protected {
            writeln!(text, "  {resource}")?;
        }
        let all = self.protected.iter().flat_map(|one| issuer.upstreams_of(&one.resource));
        let mut places: Vec<&Upstream> = Vec::new();
        all.for_each(|one| {
            if !places.contains(&one) {
                places.push(one);
            }
        });
        let at = places.iter().filter_map(|one| match one {
            Upstream::Integration(id) => Some(id.as_str()),
            Upstream::LocalAdministrator => None,
        });
        let at = at.collect::<Vec<_>>().join(", ");
        if !at.is_empty() {
            let callback = self.public_url.join("oauth/callback").map(String::from).unwrap_or_default();
            writeln!(text, "\nPeople sign in at {at}. This redirect URI (callback URL) must be registered there:")?;
            writeln!(text, "  {callback}")?;
            let Admitted { users, email_domains, organizations } = &issuer.admitted;
            let rules = [("user", users), ("e-mail domain", email_domains), ("organisation", organizations)];
            let named = rules.iter().filter_map(|(what, list)| Some((what, list.as_ref()?)));
            let named: Vec<_> =
                named.flat_map(|(what, list)| list.iter().map(move |one| format!("{what} {one}"))).collect();
            match (users.is_none() && email_domains.is_none() && organizations.is_none(), named.is_empty()) {
                (true, _) => writeln!(
                    text,
                    "  ⚠ everybody with an account there may: --allow-user, --allow-email-domain, --allow-organization (or \
                     `[issuer] allowed_...`) say who may"
                )?,
                (false, true) => writeln!(text, "  ⚠ nobody may: the lists of `[issuer] allowed_...` are empty")?,
                (false, false) => writeln!(text, "  Who may: {}", named.join(", "))?,
            }
        }
        if places.contains(&&Upstream::LocalAdministrator) {
            let which = match self.admin_key {
                Some(_) => "the one above",
                None => "the one of the first start, or another: `tokenkeep keys create me --role admin`",
            };
            writeln!(text, "\nPeople sign in here, with an admin key ({which}): for development.")?;
        }
        Ok(())
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
            protected: &[],
            silent: &[],
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

    fn protecting(upstream: Upstream, admitted: Admitted, admin_key: Option<&Secret>) -> String {
        let file = "[[protect]]\npath = \"/mcp\"\nupstream = \"http://localhost:3000/mcp\"\nprovider = \"local\"";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, file).unwrap();
        let config = crate::config::Config::load(Some(&path), &crate::environment::Environment::default()).unwrap();
        let public_url = Url::parse("http://localhost:7420").unwrap();
        let mut issuer = crate::serve::issuer::settings(&config, &public_url).unwrap().unwrap();
        issuer.resources[0].upstreams = vec![upstream];
        issuer.admitted = admitted;
        let told = crate::serve::protect::read(&config, &public_url).unwrap();
        let protected: Vec<_> = told.into_iter().map(|told| told.server).collect();
        let store = Choice { place: Place::Memory, chosen_by: "TOKEN_STORE".to_owned() };
        let mut text = String::new();
        Banner {
            store: &store,
            listening: "127.0.0.1:7420".parse().unwrap(),
            socket: None,
            public_url: &public_url,
            issuer: Some(&issuer),
            protected: &protected,
            silent: &[protected[0].upstream.clone()],
            data_dir: Path::new("/data"),
            sealing: "[sealing] key",
            admin_key,
        }
        .write(&mut text)
        .unwrap();
        text
    }

    #[test]
    fn who_protects_a_server_reads_what_comes_next() {
        let github = || Upstream::Integration("github".parse().unwrap());
        let everybody = protecting(github(), Admitted::default(), None);
        for said in [
            "protects    http://localhost:3000/mcp   (⚠ does not answer yet)\n              as http://localhost:7420/mcp",
            "Give MCP clients this address; they find out the rest:\n  http://localhost:7420/mcp",
            "People sign in at github.",
            "http://localhost:7420/oauth/callback",
            "⚠ everybody",
        ] {
            assert!(everybody.contains(said), "{said}: {everybody}");
        }
        let some = Admitted { users: Some(["octocat".to_owned()].into()), ..Admitted::default() };
        let some = protecting(github(), some, None);
        assert!(some.contains("Who may: user octocat") && !some.contains("everybody"), "{some}");
        let nobody = protecting(github(), Admitted { users: Some([].into()), ..Admitted::default() }, None);
        assert!(nobody.contains("⚠ nobody may"), "{nobody}");
        let key = Secret::from("tk_x");
        let local = protecting(Upstream::LocalAdministrator, Admitted::default(), Some(&key));
        assert!(local.contains("with an admin key (the one above)") && !local.contains("callback"), "{local}");
        assert!(!local.contains("integrations set"), "{local}");
    }
}
