//! `doctor`: looks at an installation from the outside, part by part, and changes nothing.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde_json::json;
use tokenkeep_core::ports::Clock as _;
use tokenkeep_engine::system::SystemClock;

use super::Context;
use crate::{
    args::Output,
    client::Call,
    config::Config,
    out,
    serve::{
        data_dir::DataDir,
        installation::Installation,
        listen::is_answered,
        sealing_key::readable_by_others,
        store::{self, Choice, Place},
    },
};

/// The year this was written: a clock before it is wrong, and every token would look fresh.
const THIS_CENTURY: i64 = 1_735_689_600;

/// What was found of one part.
struct Finding {
    part: &'static str,
    verdict: Verdict,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Doubtful,
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Doubtful => "warning",
            Verdict::Bad => "error",
        }
    }

    fn mark(self) -> char {
        match self {
            Verdict::Good => '✓',
            Verdict::Doubtful => '⚠',
            Verdict::Bad => '✕',
        }
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, part: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.0.push(Finding { part, verdict, text: text.into() });
    }

    fn of(&mut self, part: &'static str, result: Result<String>) {
        match result {
            Ok(text) => self.add(part, Verdict::Good, text),
            Err(error) => self.add(part, Verdict::Bad, format!("{error:#}")),
        }
    }
}

pub(super) async fn run(context: &Context, output: Output) -> Result<ExitCode> {
    let mut findings = Findings::default();
    examine(context, &mut findings).await;
    let bad = findings.0.iter().any(|finding| finding.verdict == Verdict::Bad);
    if output.json {
        let list = |f: &Finding| json!({"part": f.part, "verdict": f.verdict.word(), "text": f.text});
        out::json(&findings.0.iter().map(list).collect::<Vec<_>>())?;
    } else {
        for Finding { part, verdict, text } in &findings.0 {
            out::line(format_args!("{} {part:<14} {text}", verdict.mark()))?;
        }
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(context: &Context, findings: &mut Findings) {
    clock(findings);
    let config = match Config::load(context.global.config.as_deref(), &context.environment) {
        Ok(config) => config,
        Err(error) => return findings.add("configuration", Verdict::Bad, format!("{error:#}")),
    };
    let file = config.file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    findings.of("configuration", Installation::read(&config, &context.environment).map(|_| format!("{file}, valid")));
    let dir = match (&context.global.data_dir, config.data_dir(&context.environment)) {
        (Some(dir), _) => DataDir::at(std::path::absolute(dir).unwrap_or_else(|_| dir.clone())),
        (None, Ok(dir)) => DataDir::at(dir),
        (None, Err(error)) => return findings.add("data", Verdict::Bad, format!("{error:#}")),
    };
    if !dir.path().is_dir() {
        let text = format!("{} is not there yet; `tokenkeep serve` makes it", dir.path().display());
        return findings.add("data", Verdict::Doubtful, text);
    }
    match dir.exposure() {
        Ok(None) => findings.add("data", Verdict::Good, format!("{}, for this user only", dir.path().display())),
        Ok(Some(exposed)) => findings.add("data", Verdict::Doubtful, exposed),
        Err(error) => findings.add("data", Verdict::Bad, format!("{error:#}")),
    }
    let choice = Choice::make(&config, &context.environment, &dir);
    for note in choice.iter().flat_map(|choice| store::unused(choice, &context.environment)) {
        findings.add("environment", Verdict::Doubtful, note);
    }
    findings.of("store", choice.as_ref().map_err(|e| anyhow!("{e:#}")).and_then(database));
    sealing_key(&config, &dir, findings);
    server(context, &dir, findings).await;
}

fn clock(findings: &mut Findings) {
    let now = SystemClock.now().wall;
    if now.as_second() < THIS_CENTURY {
        findings.add("clock", Verdict::Bad, format!("this machine believes it is {now}: every token would look fresh"));
    } else {
        findings.add("clock", Verdict::Good, now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    }
}

/// A running server owns the database: it is looked at, not opened.
fn database(choice: &Choice) -> Result<String> {
    let Choice { place, chosen_by } = choice;
    match place {
        Place::Memory | Place::EnvFile(_) | Place::Postgres(_) | Place::Redis(_) | Place::Vault(_) => {
            Ok(format!("{place} ({chosen_by})"))
        }
        Place::Sqlite(path) => match std::fs::metadata(path) {
            Ok(meta) => Ok(format!("{place} ({chosen_by}), {} KiB", meta.len() / 1024)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(format!("{place} ({chosen_by}), not made yet"))
            }
            Err(error) => Err(anyhow!("{place} cannot be looked at: {error}")),
        },
    }
}

fn sealing_key(config: &Config, dir: &DataDir, findings: &mut Findings) {
    const PART: &str = "sealing key";
    let path = dir.sealing_key();
    let configured = &config.sealing;
    if configured.key.is_some() || configured.key_command.is_some() {
        return findings.add(PART, Verdict::Good, "from the configuration");
    }
    let path = configured.key_file.clone().unwrap_or(path);
    match readable_by_others(&path) {
        Ok(None) => findings.add(PART, Verdict::Good, format!("{}, for this user only", path.display())),
        Ok(Some(mode)) => {
            let text =
                format!("{path} may be read by other users (mode {mode:o}): `chmod 600 {path}`", path = path.display());
            findings.add(PART, Verdict::Bad, text);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !dir.database().exists() => {
            findings.add(PART, Verdict::Good, "not made yet");
        }
        Err(error) => {
            findings.add(PART, Verdict::Bad, format!("{}: {error}; put it back from your copy", path.display()));
        }
    }
}

async fn server(context: &Context, dir: &DataDir, findings: &mut Findings) {
    let socket = dir.socket();
    if is_answered(&socket).await {
        findings.add("socket", Verdict::Good, socket.display().to_string());
    } else if context.global.url.is_none() && context.environment.os("TOKENKEEP_URL").is_none() {
        return findings.add("server", Verdict::Doubtful, "not running (`tokenkeep serve`)");
    }
    let asked = async { context.client()?.ask(Call::get("/readyz")).await };
    match asked.await {
        Ok(answer) if answer.status.is_success() => {
            let ready: serde_json::Value = answer.read().unwrap_or_default();
            let status = ready["status"].as_str().unwrap_or("answers").to_owned();
            let verdict = if status == "ready" { Verdict::Good } else { Verdict::Doubtful };
            findings.add("server", verdict, status);
        }
        Ok(answer) => findings.add("server", Verdict::Bad, format!("answers {}", answer.status)),
        Err(error) => findings.add("server", Verdict::Bad, format!("{error:#}")),
    }
}
