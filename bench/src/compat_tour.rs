//! The commands of `docs/compat.md`, run with `curl` against a real server and a provider with user names and passwords;
//! their replies compared with those that stand there.

use std::{path::PathBuf, process::Command, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokenkeep_engine::system::SystemClock;
use tokenkeep_testkit::{FakeLogin, LoginManner};

use crate::service::{ADMIN_KEY, Service, binary};

#[derive(clap::Args)]
pub struct Arguments {
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
}

const DOCUMENT: &str = include_str!("../../docs/compat.md");
/// Where the document's commands go.
const BASE: &str = "http://localhost:7420";

/// A server that some of the document's blocks are about: their word after `console`, or none for every server that has
/// the credentials of its callers taken.
struct Setting {
    word: &'static str,
    /// What stands in `[compat]`, beside the name of company 123.
    compat: &'static str,
    /// Whether the blocks without a word are about it, too.
    everyday: bool,
    provider: LoginManner,
}

const SETTINGS: [Setting; 4] = [
    Setting { word: "off", compat: "", everyday: true, provider: LoginManner::Honest },
    Setting { word: "on", compat: "credentials_in_query = true", everyday: true, provider: LoginManner::Honest },
    Setting { word: "closed", compat: "companies = \"closed\"", everyday: false, provider: LoginManner::Honest },
    Setting { word: "down", compat: "", everyday: false, provider: LoginManner::Status(500) },
];

/// One command of the document.
#[derive(Debug, PartialEq)]
struct Step {
    /// The word after `console`, or empty.
    word: String,
    command: String,
    status: u16,
    reply: String,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let binary = binary(arguments.tokenkeep.as_ref())?;
    let steps = steps(DOCUMENT)?;
    for step in &steps {
        let known = step.word.is_empty() || SETTINGS.iter().any(|setting| setting.word == step.word);
        ensure!(known, "no server is called `{}`", step.word);
    }
    let (mut passed, mut failed) = (0, 0);
    for setting in &SETTINGS {
        let provider = FakeLogin::start(Arc::new(SystemClock)).await;
        provider.account("ann", "correct horse");
        provider.answer(setting.provider);
        let config = format!(
            "[compat]\ncompany_names = {{ 123 = \"Rocky Mountain Excavating\" }}\n{}\n\n[[provider]]\n{}",
            setting.compat,
            provider.provider_toml("bluestakes").replace("\n[", "\n[provider.")
        );
        let service = Service::start(&binary, &config, None).with_context(|| format!("with `{}`", setting.word))?;
        let base = format!("http://{}", service.addr);
        for step in &steps {
            if step.word != setting.word && !(step.word.is_empty() && setting.everyday) {
                continue;
            }
            match tokio::task::block_in_place(|| step.run(&base)) {
                Ok(()) => passed += 1,
                Err(error) => {
                    eprintln!("with `{}`: {}\n{error:#}", setting.word, step.command);
                    failed += 1;
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    ensure!(failed == 0, "docs/compat.md does not say what happens");
    Ok(())
}

impl Step {
    /// Runs the command as a person would, and compares what it says.
    fn run(&self, base: &str) -> anyhow::Result<()> {
        let command = self.command.replacen("curl -s", "curl -s -w '\\n%{http_code}'", 1).replace(BASE, base);
        let output = Command::new("sh").arg("-c").arg(&command).env("KEY", ADMIN_KEY).output()?;
        ensure!(output.status.success(), "curl ended with {}", output.status);
        let said = String::from_utf8(output.stdout)?;
        let (body, status) = said.rsplit_once('\n').context("it said no status")?;
        let (body, expected): (Value, Value) = (serde_json::from_str(body)?, serde_json::from_str(&self.reply)?);
        ensure!(status == self.status.to_string(), "status {status} instead of {}: {body}", self.status);
        ensure!(body == expected, "it says {body}\ninstead of {expected}");
        Ok(())
    }
}

/// The commands in the `console` blocks: `$ curl -s ...`, further lines after a `\`, ` # 404` where the status is not 200;
/// the line below is the reply.
fn steps(document: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(word) = line.strip_prefix("```console") else { continue };
        loop {
            let line = lines.next().context("a block has no end")?;
            if line == "```" {
                break;
            }
            let mut command = line.strip_prefix("$ ").context("a block holds something else than commands")?.to_owned();
            while command.ends_with('\\') {
                command = format!("{command}\n{}", lines.next().context("a command has no end")?);
            }
            ensure!(command.starts_with("curl -s "), "only `curl -s` is understood: {command}");
            let status = match command.rsplit_once(" # ") {
                None => 200,
                Some((_, status)) => status.parse().with_context(|| format!("no status: {command}"))?,
            };
            let reply = lines.next().context("a command has no reply")?.to_owned();
            steps.push(Step { word: word.trim().to_owned(), command, status, reply });
        }
    }
    if steps.is_empty() {
        bail!("the document holds no commands");
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_go_over_lines_and_say_their_status() {
        let found =
            steps("a\n```console on\n$ curl -s x \\\n  -d y # 404\n{}\n$ curl -s z\n[]\n```\n```toml\nb\n```\n")
                .unwrap();
        let step = |command: &str, status, reply: &str| Step {
            word: "on".to_owned(),
            command: command.to_owned(),
            status,
            reply: reply.to_owned(),
        };
        assert_eq!(found, [step("curl -s x \\\n  -d y # 404", 404, "{}"), step("curl -s z", 200, "[]")]);
        assert!(steps("nothing").is_err());
    }

    #[test]
    fn every_route_is_in_the_document() {
        let all: Vec<_> = steps(DOCUMENT).unwrap().into_iter().map(|step| step.command).collect();
        for (method, path) in [
            ("", "/tokens/stats"),
            ("", "/tokens/123/status"),
            ("-X POST", "/tokens/cleanup"),
            ("-X POST", "/tokens/credentials/test"),
            ("-X POST", "/tokens/credentials/123"),
            ("-X POST", "/tickets/store-credentials/124"),
            ("-X DELETE", "/tokens/123"),
        ] {
            assert!(all.iter().any(|command| command.contains(method) && command.contains(path)), "{path}");
        }
    }
}
