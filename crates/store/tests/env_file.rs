//! Records in a file of variables.

use std::{fs, future::ready, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use tokenkeep_core::{
    Tenant,
    ports::{Expect, Kind, Put, Record, RecordKey, SealingKeyId, Store as _, StoreError, Version},
};
use tokenkeep_store::{
    EnvFile, EnvFileError,
    conformance::{Breakable, Fault, Fixture, verdict},
};
use tokenkeep_testkit::SeededEntropy;

fn open(path: &Path) -> Result<EnvFile, EnvFileError> {
    EnvFile::open(Some(path), &SeededEntropy::new(1))
}

fn fixture() -> impl Future<Output = Fixture> {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let store = open(&dir.path().join(".env")).expect("the directory is empty");
    ready(Breakable::fixture(Arc::new(store)).keeping(dir))
}

tokenkeep_store::conformance!(fixture);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_caught() {
    for fault in Fault::ALL {
        println!("{fault:?} is caught by {}: {}", fault.caught_by(), verdict(fault, fixture().await).await);
    }
}

fn record(id: &str) -> Record {
    Record {
        key: RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: id.to_owned() },
        version: Version::default(),
        changed_at: "2026-01-01T00:00:00Z".parse().expect("it is a time"),
        expires_at: None,
        due_at: None,
        labels: vec![],
        sealed_by: SealingKeyId("k".to_owned()),
        sealed: vec![0, 255, 7],
        deleted: false,
    }
}

#[tokio::test]
async fn records_come_back_and_other_lines_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let others = "# ours\nQONTAK_REFRESH_TOKEN=\"x y\"\n\nexport A=b\n";
    fs::write(&path, others).unwrap();
    let store = open(&path).unwrap();
    let record = record("qontak/_default");
    let Put::Committed(version) = store.put(&record, Expect::Absent).await.unwrap() else { panic!("it was empty") };
    drop(store);

    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(others) && text.lines().count() == 5, "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let store = open(&path).unwrap();
    let found = store.get(&record.key).await.unwrap().unwrap();
    assert_eq!((found.version, found.sealed), (version, record.sealed));
}

#[tokio::test]
async fn a_link_leads_to_the_file_and_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("there.env"), dir.path().join(".env"));
    fs::write(&path, "A=b\n").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let store = open(&link).unwrap();
    assert!(matches!(store.put(&record("a"), Expect::Absent).await, Ok(Put::Committed(_))));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&path).unwrap().contains("TOKENKEEP_RECORD_1="));
    assert!(matches!(open(&path), Err(EnvFileError::InUse { .. })), "both names are one file");
}

#[tokio::test]
async fn one_process_has_it_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(EnvFileError::InUse { .. })));
    drop(first);
    assert!(open(&path).is_ok());
}

#[tokio::test]
async fn a_damaged_line_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    fs::write(&path, "A=b\nTOKENKEEP_RECORD_1=bm8gcmVjb3Jk\n").unwrap();
    assert!(matches!(open(&path), Err(EnvFileError::Corrupt { line: 2, .. })));
}

#[tokio::test]
async fn what_cannot_be_written_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let store = open(&path).unwrap();
    // A folder stands where the draft would go.
    fs::create_dir(dir.path().join(".env.new")).unwrap();
    let record = record("a");
    let refused = store.put(&record, Expect::Absent).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(store.get(&record.key).await.unwrap(), None);
    fs::remove_dir(dir.path().join(".env.new")).unwrap();
    assert!(matches!(store.put(&record, Expect::Absent).await, Ok(Put::Committed(_))));
}
