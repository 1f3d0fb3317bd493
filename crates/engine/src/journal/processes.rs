//! The journal in processes of their own: killed, and short of space for real.
//!
//! A child is this test binary again, asked for one of the ignored tests below, in the directory it shall use.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use tokenkeep_testkit::{ManualClock, SeededEntropy};

use super::{
    tests::{alice, attempt, attempts, instance, read_all},
    *,
};
use crate::barrier::RootKey;

/// The same in parent and child, as a root key from a file is.
fn barrier() -> (Arc<Barrier>, Arc<SeededEntropy>) {
    let entropy = Arc::new(SeededEntropy::default());
    (Arc::new(Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone())), entropy)
}

fn open_here(chunk: u64) -> Journal {
    let (barrier, entropy) = barrier();
    let limits = Limits { chunk, reserve: 4096, max_bytes: 1 << 30 };
    let dir = env::current_dir().unwrap().join("journal");
    Journal::open(&dir, instance(1), limits, barrier, Arc::new(ManualClock::default()), entropy).unwrap()
}

/// What a child finds in its directory; without it an ignored test that is run by hand has nothing to do.
const MARK: &str = "child";

fn is_child() -> bool {
    Path::new(MARK).exists()
}

/// Runs one of the ignored tests below, behind `prelude` in a shell.
fn child(dir: &Path, test: &str, prelude: &str) -> Child {
    std::fs::write(dir.join(MARK), b"").unwrap();
    Command::new("sh")
        .args(["-c", &format!(r#"{prelude} exec "$0" "$@""#)])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("journal::processes::{test}"), "--ignored", "--nocapture"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "run in a process of its own"]
async fn appends_until_it_is_killed() {
    if !is_child() {
        return;
    }
    let journal = open_here(64 << 10);
    for n in 0.. {
        journal.append(&alice(), attempt(n), &[1; 700]).await.unwrap();
        if n % 3 == 0 {
            journal.append(&alice(), attempt(1_000_000 + n), b"soon released").await.unwrap();
            journal.release(&alice(), attempt(1_000_000 + n));
        }
        writeln!(io::stdout(), "durable {n}").unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = child(dir.path(), "appends_until_it_is_killed", "");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = lines.filter_map(|line| line.ok()?.rsplit_once("durable ")?.1.parse::<u128>().ok());
    let last = acknowledged.find(|n| *n == 300).unwrap();
    let journal = dir.path().join("journal");
    assert_eq!(adopt(&journal, instance(2), &barrier().0).unwrap().running, [instance(1)], "it is alive");
    child.kill().unwrap();
    child.wait().unwrap();
    let last = acknowledged.last().unwrap_or(last);

    let mut abandoned = adopt(&journal, instance(2), &barrier().0).unwrap().abandoned.pop().unwrap();
    let kept = attempts(&read_all(&mut abandoned));
    assert!((0..=last).all(|n| kept.contains(&n)), "acknowledged up to {last}, kept {} entries", kept.len());
    abandoned.remove().unwrap();
}

#[tokio::test]
#[ignore = "run in a process of its own, with a limit on the size of its files"]
async fn fills_the_disk_and_recovers() {
    if !is_child() {
        return;
    }
    let journal = open_here(64 << 10);
    let mut kept = Vec::new();
    let error = loop {
        let next = attempt(kept.len() as u128);
        match journal.append(&alice(), next, &[1; 3000]).await {
            Ok(()) => kept.push(next),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, JournalError::Unwritable { source, .. } if source.kind() == io::ErrorKind::FileTooLarge));
    assert!(kept.len() > 20 && !journal.is_writable());
    assert!(!journal.probe().await, "nothing has changed");
    for attempt in &kept[1..] {
        journal.release(&alice(), *attempt);
    }
    assert!(journal.probe().await && journal.is_writable(), "there is space again");
    journal.append(&alice(), attempt(1_000_000), b"one more").await.unwrap();
}

#[test]
fn a_full_disk_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    // 512-byte blocks in some shells, 1024-byte ones in others: 128 or 256 KiB. Without the trap the kernel would
    // kill the process instead of failing its write.
    let child = child(dir.path(), "fills_the_disk_and_recovers", "trap '' XFSZ; ulimit -f 256;");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut abandoned = adopt(&dir.path().join("journal"), instance(2), &barrier().0).unwrap().abandoned.pop().unwrap();
    assert_eq!(attempts(&read_all(&mut abandoned)), [0, 1_000_000]);
}
