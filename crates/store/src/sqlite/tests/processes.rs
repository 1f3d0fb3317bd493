//! With a second process: this test binary again, told to run one of the parts below in the directory of the database.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use tokenkeep_core::ports::{Expect, Put, Record, Store, StoreError};

use super::{Sqlite, all, create, place, record};

/// The name of the file in the directory that a part runs in.
const FILE: &str = "tokenkeep.db";

fn start(part: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", &format!("sqlite::tests::processes::{part}")])
        .current_dir(directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn add_one(store: &Sqlite) {
    loop {
        let mut there = store.get(&record("sum").key).await.unwrap().unwrap();
        there.sealed[0] += 1;
        let version = there.version.clone();
        match store.put(&there, Expect::Version(&version)).await {
            Ok(Put::Conflict) => {}
            // The other had the lock all the time, which is not shared out fairly: nothing was written.
            Err(StoreError::Unavailable { .. }) => {}
            put => {
                put.unwrap();
                return;
            }
        }
    }
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_adds_a_hundred() {
    if Path::new(FILE).exists() {
        let store = Sqlite::open(FILE).await.unwrap();
        for _ in 0..100 {
            add_one(&store).await;
        }
    }
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_writes_until_it_is_killed() {
    if Path::new(FILE).exists() {
        let store = Sqlite::open(FILE).await.unwrap();
        for n in 0.. {
            assert!(matches!(create(&store, &n.to_string()).await, Ok(Put::Committed(_))));
            println!("\ncommitted {n}");
        }
    }
}

#[tokio::test]
async fn two_processes_lose_no_increment() {
    let place = place();
    let store = Sqlite::open(&place.path).await.unwrap();
    store.put(&Record { sealed: vec![0], ..record("sum") }, Expect::Absent).await.unwrap();
    let mut other = start("part_adds_a_hundred", place.directory.path());
    for _ in 0..100 {
        add_one(&store).await;
    }
    assert!(other.wait().unwrap().success());
    assert_eq!(store.get(&record("sum").key).await.unwrap().unwrap().sealed, [200]);
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    let place = place();
    let store = Sqlite::open(&place.path).await.unwrap();
    let mut other = start("part_writes_until_it_is_killed", place.directory.path());
    let lines = BufReader::new(other.stdout.take().unwrap()).lines().map(Result::unwrap);
    let committed = lines.filter_map(|line| line.strip_prefix("committed ").map(str::to_owned));
    let committed: Vec<_> = committed.take(50).collect();
    other.kill().unwrap();
    other.wait().unwrap();
    let there = |records: Vec<Record>| records.into_iter().map(|r| r.key.id).collect::<Vec<_>>();
    // For who had it open all the time, and for who comes later.
    for store in [store, Sqlite::open(&place.path).await.unwrap()] {
        let found = there(store.list(&all()).await.unwrap().records);
        assert!(committed.iter().all(|id| found.contains(id)), "{committed:?} were committed, {found:?} are there");
        assert!(matches!(create(&store, "after").await, Ok(Put::Committed(_) | Put::Conflict)));
    }
}
