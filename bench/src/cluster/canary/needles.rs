//! What is searched for, and the search: `grep`, which none of us wrote.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Secrets, each in every form that somebody may have written it down in.
#[derive(Default)]
pub struct Needles {
    secrets: Vec<(&'static str, String)>,
}

impl Needles {
    pub fn add(&mut self, what: &'static str, secret: &str) {
        self.secrets.push((what, secret.to_owned()));
    }

    pub fn secrets(&self) -> usize {
        self.secrets.len()
    }

    pub fn forms(&self) -> usize {
        self.all().len()
    }

    fn all(&self) -> Vec<String> {
        let mut forms: Vec<String> = self.secrets.iter().flat_map(|(_, secret)| forms(secret)).collect();
        forms.sort_unstable();
        forms.dedup();
        forms
    }

    /// One file for each form, amid other bytes.
    pub fn write_samples(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir)?;
        for (index, form) in self.all().iter().enumerate() {
            let amid = [b"\0\xff some bytes ", form.as_bytes(), b"\x01\n"].concat();
            std::fs::write(dir.join(index.to_string()), amid)?;
        }
        Ok(())
    }

    /// The files below `places` that hold any form.
    pub fn search(&self, places: &[&Path]) -> anyhow::Result<Vec<PathBuf>> {
        let patterns = tempfile::NamedTempFile::new()?;
        std::fs::write(patterns.path(), self.all().join("\n"))?;
        let output = Command::new("grep")
            .args(["--recursive", "--fixed-strings", "--text", "--files-with-matches", "--file"])
            .arg(patterns.path())
            .args(places)
            // Bytes are bytes, whatever the language.
            .env("LC_ALL", "C")
            .output()
            .context("cannot run grep")?;
        // 1 = nothing found, 2 = something could not be read.
        ensure!(output.status.code() < Some(2), "grep: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
    }
}

/// As it is; in hex; in base64 of both alphabets, wherever it begins within three bytes.
fn forms(secret: &str) -> Vec<String> {
    let hex = secret.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex];
    for before in 0..3 {
        let padded = [vec![0; before], secret.as_bytes().to_vec()].concat();
        let encoded = BASE64_STANDARD.encode(&padded);
        // The characters that other bytes have no part in.
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        let inner = &encoded[first..last];
        forms.push(inner.to_owned());
        forms.push(inner.replace('+', "-").replace('/', "_"));
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_whatever_surrounds_it() {
        let secret = "fake_rt_";
        for before in 0..4 {
            for after in 0..4 {
                let text = ["x".repeat(before).as_str(), secret, "y".repeat(after).as_str()].concat();
                let encoded = BASE64_STANDARD.encode(text);
                assert!(forms(secret).iter().any(|form| encoded.contains(form)), "{before} {after}");
            }
        }
    }
}
