use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use tokenkeep_core::{IntegrationId, Subject, id::Ulid};
use tokenkeep_testkit::{ManualClock, SeededEntropy};

use super::*;
use crate::barrier::RootKey;

const CANARY: &str = "CANARY-refresh-token";

struct Fixture {
    dir: tempfile::TempDir,
    barrier: Arc<Barrier>,
    clock: ManualClock,
    entropy: Arc<SeededEntropy>,
    faults: Arc<Faults>,
    limits: Limits,
}

impl Fixture {
    fn new() -> Self {
        let entropy = Arc::new(SeededEntropy::default());
        Self {
            dir: tempfile::tempdir().unwrap(),
            barrier: Arc::new(Barrier::new(&RootKey::generate(&*entropy), &[], entropy.clone())),
            clock: ManualClock::default(),
            entropy,
            faults: Arc::default(),
            limits: Limits { chunk: 4096, reserve: 512, max_bytes: 64 << 10 },
        }
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn open(&self, n: u128) -> Journal {
        self.try_open(n).unwrap()
    }

    fn try_open(&self, n: u128) -> Result<Journal, JournalError> {
        let (clock, entropy) = (Arc::new(self.clock.clone()), self.entropy.clone());
        let (barrier, faults) = (self.barrier.clone(), self.faults.clone());
        Journal::open_with(&self.dir(), instance(n), self.limits, barrier, clock, entropy, faults)
    }

    fn adopt(&self) -> Adoption {
        adopt(&self.dir(), instance(999), &self.barrier).unwrap()
    }

    /// The attempts in the only abandoned journal, which is left where it is.
    fn left_behind(&self) -> Vec<u128> {
        let mut adoption = self.adopt();
        assert_eq!(adoption.abandoned.len(), 1);
        attempts(&read_all(&mut adoption.abandoned[0]))
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

pub(super) fn instance(n: u128) -> InstanceId {
    InstanceId(Ulid::from_parts(1, n))
}

pub(super) fn attempt(n: u128) -> AttemptId {
    AttemptId(Ulid::from_parts(2, n))
}

pub(super) fn alice() -> ConnectionId {
    connection("alice")
}

fn connection(subject: &str) -> ConnectionId {
    ConnectionId {
        integration: IntegrationId::new("google").unwrap(),
        tenant: Tenant::default_tenant(),
        subject: Subject::new(subject).unwrap(),
    }
}

pub(super) fn read_all(abandoned: &mut Abandoned) -> Vec<Entry> {
    std::iter::from_fn(|| abandoned.next_entry().unwrap()).collect()
}

pub(super) fn attempts(entries: &[Entry]) -> Vec<u128> {
    entries.iter().map(|entry| entry.attempt.0.random()).collect()
}

#[tokio::test]
async fn what_was_appended_is_there_for_the_next_process() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), CANARY.as_bytes()).await.unwrap();
    journal.append(&connection("bob"), attempt(2), b"two").await.unwrap();
    assert_eq!((journal.depth(), journal.kept()), (2, 2));
    journal.close().await;

    let mut adoption = f.adopt();
    let mut abandoned = adoption.abandoned.pop().unwrap();
    assert_eq!(abandoned.instance(), instance(1));
    let first = abandoned.next_entry().unwrap().unwrap();
    assert_eq!((&first.connection, first.attempt), (&alice(), attempt(1)));
    assert_eq!(&first.payload[..], CANARY.as_bytes());
    assert_eq!(first.recorded_at, f.clock.now().wall);
    assert!(matches!(f.adopt().running[..], [one] if one == instance(1)), "an heir's lock counts");
    assert_eq!(read_all(&mut abandoned).len(), 1);
    abandoned.remove().unwrap();
    assert_eq!(f.files(), [""; 0]);
}

#[tokio::test]
async fn a_running_process_is_not_robbed() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    let adoption = f.adopt();
    assert!(adoption.abandoned.is_empty());
    assert_eq!(adoption.running, [instance(1)]);

    let second = f.open(2);
    second.append(&alice(), attempt(2), b"two").await.unwrap();
    assert_eq!(f.files().len(), 2, "each its own file");
    journal.append(&alice(), attempt(3), b"three").await.unwrap();
}

#[tokio::test]
async fn a_process_that_just_ends_leaves_everything() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    // What is in the file at this instant, as a machine that lost power finds it.
    let elsewhere = Fixture { dir: tempfile::tempdir().unwrap(), barrier: f.barrier.clone(), ..Fixture::new() };
    fs::create_dir(elsewhere.dir()).unwrap();
    let name = &f.files()[0];
    fs::copy(f.dir().join(name), elsewhere.dir().join(name)).unwrap();
    assert_eq!(elsewhere.left_behind(), [1]);
}

#[tokio::test]
async fn a_torn_end_is_ignored_wherever_it_tore() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    journal.append(&alice(), attempt(2), b"two").await.unwrap();
    let path = segment::path_of(&f.dir(), instance(1));
    let before = fs::read(&path).unwrap();
    journal.append(&alice(), attempt(3), CANARY.as_bytes()).await.unwrap();
    journal.close().await;
    let after = fs::read(&path).unwrap();
    assert_eq!(f.left_behind(), [1, 2, 3]);

    let start = (0..after.len()).find(|i| before[*i] != after[*i]).unwrap();
    let end = (0..after.len()).rfind(|i| before[*i] != after[*i]).unwrap() + 1;
    assert!(end - start > CANARY.len());
    for torn in start..end {
        // Cut off there; not written from there on; and written only from there on.
        let missing = [&after[..torn], &before[torn..]].concat();
        let headless = [&before[..=torn], &after[torn + 1..]].concat();
        for bytes in [&after[..torn], &missing, &headless] {
            fs::write(&path, bytes).unwrap();
            let mut adoption = f.adopt();
            let found = attempts(&read_all(&mut adoption.abandoned[0]));
            // The last byte but the difference may be all there is: then the frame is whole.
            let whole = bytes == after;
            assert_eq!(found, if whole { vec![1, 2, 3] } else { vec![1, 2] }, "torn at {torn}");
            adoption.abandoned.remove(0).remove().expect("a torn end is no damage");
        }
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_no_torn_end() {
    let f = Fixture::new();
    let journal = f.open(1);
    for n in 1..=3 {
        journal.append(&alice(), attempt(n), b"payload").await.unwrap();
    }
    journal.close().await;
    let path = segment::path_of(&f.dir(), instance(1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[frame::HEADER_LEN + frame::FRAME_OVERHEAD + 3] ^= 1;
    fs::write(&path, &bytes).unwrap();

    let mut damaged = f.adopt().abandoned.pop().unwrap();
    assert_eq!(attempts(&read_all(&mut damaged)), [2, 3]);
    assert!(matches!(damaged.remove(), Err(AdoptError::Unreadable { unreadable: 1, .. })));
    assert_eq!(f.files().len(), 1, "it stays");
}

#[tokio::test]
async fn an_unknown_root_key_leaves_the_file() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    journal.close().await;
    let other = Arc::new(Barrier::new(&RootKey::generate(&SeededEntropy::new(9)), &[], f.entropy.clone()));
    let mut abandoned = adopt(&f.dir(), instance(999), &other).unwrap().abandoned.pop().unwrap();
    assert!(read_all(&mut abandoned).is_empty());
    assert!(matches!(abandoned.remove(), Err(AdoptError::Unreadable { unreadable: 1, .. })));
    assert_eq!(f.left_behind(), [1]);
}

#[tokio::test]
async fn nothing_is_removed_unread() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    journal.close().await;
    let mut abandoned = f.adopt().abandoned.pop().unwrap();
    abandoned.next_entry().unwrap().unwrap();
    assert!(matches!(abandoned.remove(), Err(AdoptError::Unfinished { .. })));
    assert_eq!(f.left_behind(), [1]);
}

#[tokio::test]
async fn what_cannot_be_settled_is_carried_over_first() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    journal.append(&connection("bob"), attempt(2), b"two").await.unwrap();
    journal.close().await;

    let heir = f.open(2);
    let mut abandoned = f.adopt().abandoned.pop().unwrap();
    let unsettled = read_all(&mut abandoned).split_off(1);
    f.faults.no_writes.store(true, Ordering::SeqCst);
    assert!(matches!(abandoned.carry_over(&heir, &unsettled).await, Err(AdoptError::CarryOver(_))));
    assert_eq!(f.files().len(), 2, "not removed, because not carried over");

    f.faults.no_writes.store(false, Ordering::SeqCst);
    let mut abandoned = f.adopt().abandoned.pop().unwrap();
    let unsettled = read_all(&mut abandoned).split_off(1);
    abandoned.carry_over(&heir, &unsettled).await.unwrap();
    assert_eq!(heir.newest_attempt(&connection("bob")), Some(attempt(2)));
    heir.close().await;
    assert_eq!(f.left_behind(), [2]);
}

#[tokio::test]
async fn concurrent_appends_share_flushes() {
    let f = Fixture::new();
    let journal = f.open(1);
    let before = f.faults.syncs.load(Ordering::SeqCst);
    let appends = (0..100).map(|n| {
        let (journal, id) = (journal.clone(), connection(&format!("user-{n}")));
        async move { journal.append(&id, attempt(n), b"x").await }
    });
    for result in futures_util::future::join_all(appends).await {
        result.unwrap();
    }
    assert_eq!(journal.depth(), 100);
    let flushes = f.faults.syncs.load(Ordering::SeqCst) - before;
    assert!(flushes < 100, "{flushes} flushes");
}

#[tokio::test]
async fn insurance_ends_with_the_next_reply_or_after_a_day() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    journal.settle(&alice(), attempt(1));
    assert_eq!((journal.depth(), journal.kept()), (0, 1), "kept in case the store forgets");
    journal.append(&alice(), attempt(2), b"two").await.unwrap();
    assert_eq!((journal.depth(), journal.kept()), (1, 2), "the store does not have the next one yet");
    journal.settle(&alice(), attempt(2));
    assert_eq!((journal.depth(), journal.kept()), (0, 1));
    assert_eq!(&journal.newest(&alice()).await.unwrap().unwrap().payload[..], b"two");

    journal.append(&connection("eve"), attempt(4), b"four").await.unwrap();
    journal.append(&connection("eve"), attempt(5), b"five").await.unwrap();
    journal.settle(&connection("eve"), attempt(5));
    assert_eq!((journal.depth(), journal.kept()), (1, 3), "an earlier one that the store never got stays");

    journal.append(&connection("bob"), attempt(3), b"three").await.unwrap();
    f.clock.advance(index::INSURANCE);
    // Whoever writes a file's worth makes it forget.
    for n in 10..60 {
        journal.append(&connection("carol"), attempt(n), &[0; 200]).await.unwrap();
        journal.release(&connection("carol"), attempt(n));
    }
    assert_eq!(journal.newest_attempt(&alice()), None);
    assert_eq!(&journal.newest(&connection("bob")).await.unwrap().unwrap().payload[..], b"three", "never settled");
    assert!(journal.newest(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn released_space_is_used_again() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&connection("bob"), attempt(9999), CANARY.as_bytes()).await.unwrap();
    journal.append(&connection("dave"), attempt(8888), CANARY.as_bytes()).await.unwrap();
    journal.settle(&connection("dave"), attempt(8888));
    for n in 0..150 {
        journal.append(&alice(), attempt(n), &[7; 300]).await.unwrap();
        journal.settle(&alice(), attempt(n));
    }
    assert!(journal.probe().await, "whatever it had to tidy up is done");
    let path = segment::path_of(&f.dir(), instance(1));
    assert!(fs::metadata(&path).unwrap().len() <= 16 << 10, "150 entries of over 300 bytes went through it");
    assert_eq!(f.files().len(), 1);
    assert!(f.adopt().abandoned.is_empty(), "still locked");
    journal.close().await;
    let left = f.left_behind();
    assert!([9999, 8888, 149].iter().all(|n| left.contains(n)), "{left:?}");
}

#[tokio::test]
async fn a_journal_that_nobody_needs_is_removed_at_the_end() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    journal.release(&alice(), attempt(1));
    journal.close().await;
    assert_eq!(f.files(), [""; 0]);
}

#[tokio::test]
async fn a_full_disk_is_known_before_a_token_is_spent_and_passes() {
    let f = Fixture::new();
    let journal = f.open(1);
    assert!(journal.is_writable());
    f.faults.no_writes.store(true, Ordering::SeqCst);
    let error = journal.append(&alice(), attempt(1), b"one").await.unwrap_err();
    assert!(matches!(error, JournalError::Unwritable { .. }), "{error}");
    assert!(!journal.is_writable());
    assert!(!journal.probe().await);
    f.faults.no_writes.store(false, Ordering::SeqCst);
    assert!(journal.probe().await);
    assert!(journal.is_writable());
    journal.append(&alice(), attempt(2), b"two").await.unwrap();
    journal.close().await;
    assert_eq!(f.left_behind(), [2], "what failed was not promised");
}

#[tokio::test]
async fn the_reserve_takes_what_is_in_flight_when_the_disk_fills_up() {
    let f = Fixture { limits: Limits { chunk: 4096, reserve: 2048, max_bytes: 4096 }, ..Fixture::new() };
    let journal = f.open(1);
    let mut kept = 0;
    while journal.is_writable() {
        journal.append(&alice(), attempt(kept), &[1; 200]).await.unwrap();
        kept += 1;
    }
    // Not writable, and yet those that had begun find their place.
    journal.append(&alice(), attempt(100), &[1; 200]).await.unwrap();
    journal.append(&alice(), attempt(101), &[1; 200]).await.unwrap();
    assert!(!journal.probe().await);
    for n in 102.. {
        match journal.append(&alice(), attempt(n), &[1; 200]).await {
            Ok(()) => assert!(n < 200, "it never ends"),
            Err(JournalError::Full { max_bytes: 4096 }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    for n in (0..kept).chain(100..200) {
        journal.release(&alice(), attempt(n));
    }
    assert!(journal.probe().await, "the store took them");
    journal.append(&alice(), attempt(300), b"x").await.unwrap();
}

#[tokio::test]
async fn after_a_failed_flush_nothing_old_is_trusted() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&alice(), attempt(1), b"one").await.unwrap();
    let path = segment::path_of(&f.dir(), instance(1));
    let inode = || fs::metadata(&path).unwrap().ino();
    let before = inode();
    f.faults.no_syncs.store(true, Ordering::SeqCst);
    journal.append(&alice(), attempt(2), b"two").await.unwrap_err();
    journal.append(&alice(), attempt(3), b"three").await.unwrap_err();
    assert!(!journal.is_writable());
    f.faults.no_syncs.store(false, Ordering::SeqCst);
    journal.append(&alice(), attempt(4), b"four").await.unwrap();
    assert!(journal.is_writable());
    assert_ne!(inode(), before, "written anew");
    assert_eq!(f.files().len(), 1, "no draft is left");
    journal.close().await;
    assert_eq!(f.left_behind(), [1, 4]);
}

#[tokio::test]
async fn a_draft_left_by_a_crash_is_cleared_away() {
    let f = Fixture::new();
    let journal = f.open(1);
    fs::write(f.dir().join(format!("{}.draft", instance(5))), b"half").unwrap();
    f.adopt();
    assert_eq!(f.files(), [format!("{}.journal", instance(1))]);
    drop(journal);
}

#[tokio::test]
async fn only_we_can_look_and_there_is_nothing_to_see() {
    let f = Fixture::new();
    let journal = f.open(1);
    journal.append(&connection("alice-canary"), attempt(1), CANARY.as_bytes()).await.unwrap();
    let path = segment::path_of(&f.dir(), instance(1));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&f.dir()), mode(&path)), (0o700, 0o600));
    let bytes = fs::read(&path).unwrap();
    for secret in [CANARY.as_bytes(), b"alice-canary", b"google"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    let entry = journal.newest(&connection("alice-canary")).await.unwrap().unwrap();
    assert!(!format!("{entry:?} {journal:?}").contains(CANARY));
}

#[tokio::test]
async fn a_directory_that_cannot_be_says_so() {
    let f = Fixture::new();
    fs::write(f.dir(), b"a file").unwrap();
    let error = f.try_open(1).unwrap_err();
    assert!(matches!(error, JournalError::Unwritable { .. }));
    assert!(error.to_string().contains("journal"), "{error}");
}

#[test]
fn network_file_systems_are_told_apart() {
    assert_eq!(segment::network_file_system_of_magic(0x6969), Some("NFS"));
    assert_eq!(segment::network_file_system_of_magic(0xff53_4d42), Some("CIFS"));
    for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994] {
        assert_eq!(segment::network_file_system_of_magic(local), None);
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let f = Fixture::new();
    let journal = f.open(1);
    let error = journal.append(&alice(), attempt(1), &vec![0; frame::MAX_SEALED]).await.unwrap_err();
    assert!(matches!(error, JournalError::TooLong { .. }));
    assert!(journal.is_writable());
}

#[test]
fn a_name_that_was_given_to_another_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, b"").unwrap();
    let file = fs::File::open(&path).unwrap();
    assert!(segment::still_names(&path, &file).unwrap());
    fs::write(dir.path().join("b"), b"").unwrap();
    fs::rename(dir.path().join("b"), &path).unwrap();
    assert!(!segment::still_names(&path, &file).unwrap());
    fs::remove_file(&path).unwrap();
    assert!(!segment::still_names(&path, &file).unwrap());
}

#[tokio::test]
async fn an_heir_that_dies_halfway_leaves_everything_to_the_next() {
    let f = Fixture::new();
    let dead = f.open(1);
    dead.append(&alice(), attempt(1), b"one").await.unwrap();
    dead.append(&connection("bob"), attempt(2), b"two").await.unwrap();
    dead.close().await;

    let heir = f.open(2);
    let mut estate = f.adopt().abandoned.pop().unwrap();
    let entries = read_all(&mut estate);
    heir.append(&entries[0].connection, entries[0].attempt, &entries[0].payload).await.unwrap();
    // It dies here: its locks are free, and its file and the one it took over are there.
    drop(estate);
    heir.close().await;

    let next = f.open(3);
    let Adoption { abandoned, running } = adopt(&f.dir(), instance(3), &f.barrier).unwrap();
    assert_eq!((abandoned.len(), running.len()), (2, 0));
    for mut estate in abandoned {
        let entries = read_all(&mut estate);
        estate.carry_over(&next, &entries).await.unwrap();
    }
    assert_eq!(next.depth(), 2, "each reply once");
    assert_eq!(&next.newest(&alice()).await.unwrap().unwrap().payload[..], b"one");
    assert_eq!(&next.newest(&connection("bob")).await.unwrap().unwrap().payload[..], b"two");
    assert_eq!(f.files().len(), 1);
}

#[tokio::test]
async fn of_two_heirs_one_adopts() {
    let f = Fixture::new();
    let dead = f.open(1);
    dead.append(&alice(), attempt(1), b"one").await.unwrap();
    dead.close().await;
    let looks: Vec<_> = (0..8)
        .map(|n| {
            let (dir, barrier) = (f.dir(), f.barrier.clone());
            std::thread::spawn(move || adopt(&dir, instance(100 + n), &barrier).unwrap())
        })
        .collect();
    let found: Vec<Adoption> = looks.into_iter().map(|look| look.join().unwrap()).collect();
    assert_eq!(found.iter().map(|adoption| adoption.abandoned.len()).sum::<usize>(), 1);
}

#[tokio::test]
async fn a_fault_turns_the_condition_when_it_happens() {
    let f = Fixture::new();
    let metrics = crate::metrics::Metrics::new();
    let condition = crate::conditions::Conditions::new(&metrics).journal;
    let journal = f.open(1).watched(condition.clone());
    let shows =
        |value: u8| metrics.render().contains(&format!("tokenkeep_part_available{{part=\"journal\"}} {value}\n"));
    assert!(condition.is_well() && shows(1));
    f.faults.no_writes.store(true, Ordering::SeqCst);
    assert!(condition.is_well(), "nobody has tried");
    journal.append(&connection("alice"), attempt(1), b"x").await.unwrap_err();
    assert!(!condition.is_well() && shows(0));
    f.faults.no_writes.store(false, Ordering::SeqCst);
    journal.append(&connection("alice"), attempt(2), b"x").await.unwrap();
    assert!(condition.is_well() && shows(1));
}
