//! Child processes that never outlive us.
//!
//! Every child leads a process group of its own, so that ending it ends what it started. A group ends when its
//! [`Child`] is waited for or dropped (a panic drops it too), and all of them when we are told to end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::report::Counts;

/// The groups that are alive.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// How long a group may take to end by itself once asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// From now on, SIGINT, SIGTERM and SIGHUP end our children before they end us.
pub(crate) fn end_with_us() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
                _ = hangup.recv() => 129,
            }
        });
        // Held to the end: nothing new starts.
        let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        groups.iter().for_each(|group| tell(*group, Signal::TERM));
        runtime.block_on(async {
            let all_gone = async {
                while groups.iter().any(|group| is_alive(*group)) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let _ = tokio::time::timeout(PATIENCE, all_gone).await;
        });
        groups.iter().for_each(|group| tell(*group, Signal::KILL));
        println!("xtask: told to end, and so is what it started");
        std::process::exit(code);
    });
    Ok(())
}

/// A child and all it starts.
pub(crate) struct Child {
    leader: std::process::Child,
    group: Pid,
    ended: bool,
}

impl Child {
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let leader = command.process_group(0).spawn()?;
        let group = Pid::from_child(&leader);
        groups.push(group);
        Ok(Self { leader, group, ended: false })
    }

    /// Waits for the child, then ends what it left behind.
    fn wait(mut self) -> Result<ExitStatus> {
        // Not reaped yet, so that the group's number cannot have become somebody else's when it is told to end.
        let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(self.group), exited).is_err_and(|error| error == Errno::INTR) {}
        self.end()
    }

    /// Ends the group, and only then lets go of the child, by whose number the group goes.
    fn end(&mut self) -> Result<ExitStatus> {
        tell(self.group, Signal::KILL);
        let status = self.leader.wait()?;
        self.ended = true;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).retain(|group| *group != self.group);
    }
}

fn tell(group: Pid, signal: Signal) {
    // It may have ended in the meantime.
    let _ = kill_process_group(group, signal);
}

fn is_alive(group: Pid) -> bool {
    test_kill_process_group(group).is_ok()
}

/// Runs `command` to its end, showing what it is and what it says. `Ok(false)` = it failed.
pub(crate) fn run(command: &mut Command) -> Result<bool> {
    announce(command);
    let child = start(command.stdin(Stdio::null()))?;
    Ok(child.wait()?.success())
}

/// Runs `command` likewise, and counts the tests it says passed and failed. `None` = it said nothing of tests.
pub(crate) fn run_counting(command: &mut Command) -> Result<(bool, Option<Counts>)> {
    announce(command);
    let mut child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (stdout, stderr) = (child.leader.stdout.take(), child.leader.stderr.take());
    thread::scope(|scope| {
        let output = scope.spawn(|| stdout.map(|from| pass_on(from, std::io::stdout())));
        let errors = scope.spawn(|| stderr.map(|from| pass_on(from, std::io::stderr())));
        // Waited for before the readers: whatever it left behind would hold its output open.
        let status = child.wait()?;
        let found = [output.join(), errors.join()].into_iter().filter_map(|found| found.ok().flatten());
        Ok((status.success(), Counts::sum(found.flatten())))
    })
}

/// What `command` prints on standard output, if it succeeds.
pub(crate) fn output_of(command: &mut Command) -> Result<Vec<u8>> {
    let mut child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut bytes = Vec::new();
    if let Some(mut stdout) = child.leader.stdout.take() {
        stdout.read_to_end(&mut bytes)?;
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "`{}` failed ({status})", shown(command));
    Ok(bytes)
}

/// Whether `command` can be run at all and succeeds; what it says is nobody's business.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Child::start(quiet).is_ok_and(|child| child.wait().is_ok_and(|status| status.success()))
}

fn start(command: &mut Command) -> Result<Child> {
    Child::start(command).with_context(|| format!("cannot run `{}`", shown(command)))
}

fn announce(command: &Command) {
    print!("$ ");
    for (name, value) in command.get_envs() {
        print!("{}={} ", name.display(), value.unwrap_or_default().display());
    }
    println!("{}", shown(command));
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Copies line by line; answers the counts found on the way.
fn pass_on(from: impl Read, mut to: impl Write) -> Vec<Counts> {
    let (mut from, mut line, mut counts) = (BufReader::new(from), Vec::new(), Vec::new());
    while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        // Nobody may be listening any more; the child's work goes on all the same.
        let _ = to.write_all(&line);
        counts.extend(Counts::parse(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_leaves_behind_ends_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo left"]).stdout(Stdio::piped());
        let mut child = Child::start(&mut command).unwrap();
        let mut stdout = child.leader.stdout.take().unwrap();
        assert!(child.wait().unwrap().success());
        // The sleeper holds the other end open for as long as it lives.
        let mut said = String::new();
        stdout.read_to_string(&mut said).unwrap();
        assert_eq!(said, "left\n");
    }

    #[test]
    fn a_dropped_child_ends() {
        let child = Child::start(Command::new("sleep").arg("1000")).unwrap();
        let group = child.group;
        drop(child);
        assert!(!is_alive(group));
        assert!(!GROUPS.lock().unwrap().contains(&group));
    }
}
