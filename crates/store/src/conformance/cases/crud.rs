//! One record, one writer.

use std::collections::HashSet;

use tokenkeep_core::ports::{Expect, Kind, LabelName, Put, Record, RecordKey, SealingKeyId, Version};

use crate::conformance::{
    Fixture, Outcome,
    help::{at, committed, create, ensure, ensure_eq, read, record, tenant},
};

/// Absence is an answer, not an error.
pub async fn nothing_is_read_as_none(fixture: Fixture) -> Outcome {
    ensure_eq!(fixture.store.get(&record("a").key).await?, None, "a record nobody wrote");
    Ok(())
}

/// Every field comes back, the version is the one answered, and what was put is alive.
pub async fn what_is_put_is_read(fixture: Fixture) -> Outcome {
    let full = Record {
        version: Version("the store must not take this".into()),
        expires_at: Some(at(60)),
        due_at: Some(at(30)),
        labels: LabelName::ALL.map(|name| (name, format!("{} value", name.as_str()))).to_vec(),
        sealed_by: SealingKeyId("k2".into()),
        deleted: true,
        ..record("a")
    };
    let version = create(&fixture.store, &full).await?;
    let wanted = Record { version, deleted: false, ..full };
    let found = read(&fixture.store, &wanted.key).await?;
    ensure!(found == wanted, "what is read is not what was put: {found:?}, {wanted:?}");
    Ok(())
}

/// A second write leaves nothing of the first.
pub async fn put_replaces_everything(fixture: Fixture) -> Outcome {
    let labels = vec![(LabelName::Provider, "p".into()), (LabelName::Subject, "s".into())];
    let first = Record { expires_at: Some(at(60)), due_at: Some(at(30)), labels, ..record("a") };
    let version = create(&fixture.store, &first).await?;
    let labels = vec![(LabelName::Subject, "t".into())];
    let second = Record { changed_at: at(1), labels, sealed: b"second".to_vec(), ..record("a") };
    let version = committed(fixture.store.put(&second, Expect::Version(&version)).await?)?;
    let wanted = Record { version, ..second };
    ensure!(read(&fixture.store, &wanted.key).await? == wanted, "the second write left something of the first");
    Ok(())
}

/// `Expect::Absent` never touches what is there.
pub async fn put_absent_needs_absence(fixture: Fixture) -> Outcome {
    create(&fixture.store, &record("a")).await?;
    let before = read(&fixture.store, &record("a").key).await?;
    let second = Record { sealed: b"second".to_vec(), labels: vec![(LabelName::Subject, "s".into())], ..record("a") };
    ensure_eq!(fixture.store.put(&second, Expect::Absent).await?, Put::Conflict, "creating what is there");
    ensure!(read(&fixture.store, &before.key).await? == before, "a write that conflicted changed something");
    Ok(())
}

/// `Expect::Version` never touches another version, and creates nothing.
pub async fn put_needs_the_version(fixture: Fixture) -> Outcome {
    let never = Version("no such version".into());
    let nothing = fixture.store.put(&record("a"), Expect::Version(&never)).await?;
    ensure_eq!(nothing, Put::Conflict, "replacing what is not there");
    ensure_eq!(fixture.store.get(&record("a").key).await?, None, "the record that conflicted");

    let old = create(&fixture.store, &record("a")).await?;
    let change = Record { sealed: b"second".to_vec(), ..record("a") };
    committed(fixture.store.put(&change, Expect::Version(&old)).await?)?;
    let before = read(&fixture.store, &change.key).await?;
    let third = Record { sealed: b"third".to_vec(), ..record("a") };
    for version in [&old, &never, &Version::default()] {
        let put = fixture.store.put(&third, Expect::Version(version)).await?;
        ensure_eq!(put, Put::Conflict, "replacing version {version:?} when it is not there");
    }
    ensure!(read(&fixture.store, &before.key).await? == before, "a write that conflicted changed something");
    Ok(())
}

/// Nor does a deletion.
pub async fn delete_needs_the_version(fixture: Fixture) -> Outcome {
    let old = create(&fixture.store, &record("a")).await?;
    let nothing = fixture.store.delete(&record("b"), &old, at(60)).await?;
    ensure_eq!(nothing, Put::Conflict, "deleting what is not there, with another record's version");
    ensure_eq!(fixture.store.get(&record("b").key).await?, None, "the record that was not there to delete");

    let current = committed(fixture.store.put(&record("a"), Expect::Version(&old)).await?)?;
    ensure_eq!(fixture.store.delete(&record("a"), &old, at(60)).await?, Put::Conflict, "deleting an old version");
    let found = read(&fixture.store, &record("a").key).await?;
    ensure!(!found.deleted && found.version == current, "a deletion that conflicted changed something");
    committed(fixture.store.delete(&record("a"), &current, at(60)).await?)?;
    Ok(())
}

/// The same bytes written again, under the same key or another, are another version: who holds an old one has lost.
pub async fn versions_are_never_reused(fixture: Fixture) -> Outcome {
    let store = &fixture.store;
    let mut seen = HashSet::new();
    let mut old = Vec::new();
    let mut remember = |version: &Version| {
        ensure!(seen.insert(version.clone()), "version {version:?} was given twice");
        Ok(())
    };
    for round in 0..4 {
        let mut version = create(store, &record("a")).await?;
        remember(&version)?;
        for _ in 0..2 {
            old.push(version.clone());
            version = committed(store.put(&record("a"), Expect::Version(&version)).await?)?;
            remember(&version)?;
        }
        old.push(version.clone());
        let tombstone = committed(store.delete(&record("a"), &version, at(round)).await?)?;
        remember(&tombstone)?;
        old.push(tombstone);
        // Every other time not even the tombstone is left.
        if round % 2 == 1 {
            store.sweep(at(round)).await?;
        }
        remember(&create(store, &record(&format!("b{round}"))).await?)?;
    }
    create(store, &record("a")).await?;
    for version in &old {
        let put = store.put(&record("a"), Expect::Version(version)).await?;
        ensure_eq!(put, Put::Conflict, "a write that expects version {version:?} of an earlier life");
        let delete = store.delete(&record("a"), version, at(60)).await?;
        ensure_eq!(delete, Put::Conflict, "a deletion that expects version {version:?} of an earlier life");
    }
    Ok(())
}

/// The same id under another kind or tenant is another record.
pub async fn kinds_and_tenants_are_apart(fixture: Fixture) -> Outcome {
    let store = &fixture.store;
    let mut keys = Vec::new();
    for name in ["one", "two"] {
        keys.extend(Kind::ALL.map(|kind| RecordKey { tenant: tenant(name), kind, id: "a".into() }));
    }
    for (n, key) in keys.iter().enumerate() {
        ensure_eq!(store.get(key).await?, None, "a record of which only the id was written");
        create(store, &Record { key: key.clone(), sealed: n.to_string().into_bytes(), ..record("a") }).await?;
    }
    let first = read(store, &keys[0]).await?;
    committed(store.delete(&first, &first.version, at(60)).await?)?;
    for (n, key) in keys.iter().enumerate().skip(1) {
        let found = read(store, key).await?;
        ensure!(found.key == *key && !found.deleted, "reading {key:?} gave {found:?}");
        ensure_eq!(found.sealed, n.to_string().into_bytes(), "the content of {key:?}");
    }
    Ok(())
}

/// A store has a name and answers.
pub async fn it_describes_itself_and_answers(fixture: Fixture) -> Outcome {
    let description = fixture.store.describe();
    ensure!(!description.name.is_empty() && !description.location.is_empty(), "it has no name or no place");
    fixture.store.ping().await?;
    Ok(())
}
