//! Secrets from where they are kept: in place, in a file (`x_file`), or behind a command.

use std::{
    io::{BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

/// The largest file that can be a secret, in bytes; service account files are a few KiB.
const MAX_SECRET: u64 = 64 * 1024;

/// How long a command may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// What `inline` or the file holds; both at once are an error. `name` is the key's, for the error.
pub(crate) fn secret(name: &str, inline: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>> {
    match (inline, file) {
        (Some(_), Some(_)) => bail!("`{name}` and `{name}_file` are both set; keep one"),
        (Some(secret), None) => Ok(Some(secret.clone())),
        (None, Some(path)) => read_secret_file(path).map(Some).with_context(|| format!("`{name}_file` cannot be used")),
        (None, None) => Ok(None),
    }
}

/// A secret that is a file's whole content, without the line break that editors leave at its end.
pub(crate) fn read_secret_file(path: &Path) -> Result<Secret> {
    let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_SECRET + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("{} cannot be read as text", path.display()))?;
    if text.len() as u64 > MAX_SECRET {
        bail!("{} is too large to be a secret", path.display());
    }
    if text.trim().is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(Secret::from(trimmed(&text)))
}

/// What `command` prints, run by `sh -c`. Where it fails, what it wrote to standard error is shown.
pub(crate) fn secret_of_command(command: &str) -> Result<Secret> {
    secret_of_command_within(command, COMMAND_PATIENCE)
}

fn secret_of_command_within(command: &str, patience: Duration) -> Result<Secret> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("`sh` cannot be run")?;
    let (done, finished) = mpsc::channel();
    let stdout = child.stdout.take().context("its output is piped")?;
    let stderr = child.stderr.take().context("its errors are piped")?;
    std::thread::spawn(move || {
        let mut text = Zeroizing::new(String::new());
        let read = stdout.take(MAX_SECRET).read_to_string(&mut text).map(|_| text);
        // Nobody listens any more once the time is over.
        let _ = done.send(read);
    });
    let complaint = std::thread::spawn(move || last_lines(BufReader::new(stderr)));
    let Ok(text) = finished.recv_timeout(patience) else {
        end(&mut child);
        bail!("the command did not finish within {} s", patience.as_secs());
    };
    let status = child.wait().context("the command's end cannot be awaited")?;
    if !status.success() {
        let said = complaint.join().unwrap_or_default();
        return Err(anyhow!(
            "the command failed ({status}){}",
            if said.is_empty() { String::new() } else { format!(": {said}") }
        ));
    }
    let text = text.map_err(|_| anyhow!("the command did not print text"))?;
    if text.trim().is_empty() {
        bail!("the command printed nothing");
    }
    Ok(Secret::from(trimmed(&text)))
}

fn end(child: &mut Child) {
    // It may have ended in this moment: then there is nothing to end.
    let _ = child.kill();
    let _ = child.wait();
}

/// The end of what was said, printable.
fn last_lines(stderr: impl std::io::BufRead) -> String {
    let lines: Vec<String> = stderr.lines().map_while(Result::ok).collect();
    let tail = lines.len().saturating_sub(5);
    lines[tail..].join("; ").chars().filter(|c| !c.is_control()).take(500).collect()
}

fn trimmed(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn of(command: &str) -> Result<String> {
        secret_of_command_within(command, Duration::from_secs(20)).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn a_command_prints_the_secret() {
        assert_eq!(of("printf 'abc\\n'").unwrap(), "abc");
        assert_eq!(of("echo ' a b '").unwrap(), " a b ");
        assert!(of("true").unwrap_err().to_string().contains("printed nothing"));
    }

    #[test]
    fn a_failing_command_says_why_and_not_what_it_printed() {
        let error = of("echo SECRET; echo 'no such entry' >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("no such entry") && error.contains('3') && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = secret_of_command_within("exec sleep 1000", Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("did not finish"), "{error}");
    }

    #[test]
    fn files_lose_their_last_line_break_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (content, wanted) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("a\nb\n\n", "a\nb\n"), ("abc", "abc")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_secret_file(&path).unwrap().expose_secret(), wanted);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(read_secret_file(&path).unwrap_err().to_string().contains("is empty"));
        std::fs::write(&path, "x".repeat(100_000)).unwrap();
        assert!(read_secret_file(&path).unwrap_err().to_string().contains("too large"));
        assert!(secret("x", Some(&Secret::from("a")), Some(&path)).unwrap_err().to_string().contains("`x_file`"));
    }
}
