//! A process and all its descendants. A process group would not do: PostgreSQL's children lead groups of their own.

use std::{fs, process::Child};

use rustix::process::{Pid, Signal, kill_process};

use crate::{keeper, wait};

/// A running process and what it started.
pub(crate) struct Tree {
    leader: Child,
    pid: Pid,
}

impl Tree {
    /// Takes over a child that was just started.
    pub(crate) fn of(leader: Child) -> std::io::Result<Self> {
        let tree = Self { pid: Pid::from_child(&leader), leader };
        keeper::watch(tree.pid)?;
        Ok(tree)
    }

    /// Whether the leader has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.leader.try_wait(), Ok(None))
    }

    /// Stops everybody and says who that is.
    pub(crate) fn pause(&self) -> Vec<Pid> {
        self.everybody(|pid| tell(pid, Signal::STOP))
    }

    pub(crate) fn resume(&self) {
        self.everybody(|pid| tell(pid, Signal::CONT));
    }

    /// `kill -9` to everybody at once; answers when all have gone.
    fn kill(&mut self) {
        let all = self.pause();
        for pid in &all {
            tell(*pid, Signal::KILL);
        }
        let _ = self.leader.wait();
        keeper::forget(self.pid);
        let gone = || match all[1..].iter().find(|pid| is_alive(**pid)) {
            None => wait::Asked::Done(()),
            Some(pid) => wait::Asked::NotYet(format!("process {} lives", pid.as_raw_nonzero())),
        };
        // One that cannot be killed hangs in the kernel; whoever needs what it holds will say so.
        let _ = wait::until(wait::PATIENCE, gone);
    }

    /// Parents come first, and are told before their children are looked for: one that was stopped starts no other.
    fn everybody(&self, tell: impl Fn(Pid)) -> Vec<Pid> {
        let mut all = vec![self.pid];
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            tell(pid);
            all.extend(children(pid));
            next += 1;
        }
        all
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tell(pid: Pid, signal: Signal) {
    // It may have ended in the meantime.
    let _ = kill_process(pid, signal);
}

fn children(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent.as_raw_nonzero().get())).collect()
}

/// Ended but not yet asked how is not alive.
fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

struct Stat {
    state: char,
    parent: i32,
}

/// proc(5), `/proc/PID/stat`: the state and the parent follow the name, which is in parentheses and may hold anything.
fn stat(pid: Pid) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}
