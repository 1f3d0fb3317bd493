//! What is left of the deleted.

use tokenkeep_core::ports::{Count, Expect, Filter, LabelName, Record, SealingKeyId, Version};

use crate::conformance::{
    Fixture, Outcome, Stop,
    help::{at, committed, create, ensure, ensure_eq, ids, list, query, read, record},
};

/// A record with everything a list could find it by.
fn findable(id: &str) -> Record {
    Record {
        expires_at: Some(at(50)),
        due_at: Some(at(50)),
        labels: vec![(LabelName::Provider, "p".into())],
        ..record(id)
    }
}

/// What its owner wants remembered of it.
fn epitaph(id: &str) -> Record {
    Record { changed_at: at(5), sealed: b"remember".to_vec(), sealed_by: SealingKeyId("k2".into()), ..findable(id) }
}

async fn bury(fixture: &Fixture, id: &str) -> Result<Version, Stop> {
    let version = create(&fixture.store, &findable(id)).await?;
    committed(fixture.store.delete(&epitaph(id), &version, at(60)).await?)
}

/// `get` shows it, with what its owner wanted remembered and nothing of the record.
pub async fn a_tombstone_is_read_as_deleted(fixture: Fixture) -> Outcome {
    let version = bury(&fixture, "a").await?;
    let found = read(&fixture.store, &record("a").key).await?;
    let wanted =
        Record { version, deleted: true, expires_at: Some(at(60)), due_at: None, labels: Vec::new(), ..epitaph("a") };
    ensure!(found == wanted, "the tombstone is {found:?}, labels {:?}, due {:?}", found.labels, found.due_at);
    Ok(())
}

/// `changed_since` and `sealed_by` show it, nothing else does, and `count` agrees.
pub async fn a_tombstone_is_in_no_list_but_two(fixture: Fixture) -> Outcome {
    bury(&fixture, "dead").await?;
    create(&fixture.store, &findable("alive")).await?;
    let everything = (at(-1000), at(1000));
    for filter in [
        Filter::All,
        Filter::Label(LabelName::Provider, "p".into()),
        Filter::DueBefore(everything.1),
        Filter::ExpiresBetween(everything.0, everything.1),
    ] {
        ensure_eq!(ids(&fixture.store, &query(filter.clone())).await?, ["alive"], "listed by {filter:?}");
        let count = fixture.store.count(&query(filter.clone())).await?;
        ensure!(!matches!(count, Count::Exact(n) if n != 1), "{count:?} of one record by {filter:?}");
    }
    let changed = list(&fixture.store, &query(Filter::ChangedSince(at(1)))).await?;
    ensure!(changed.len() == 1 && changed[0].deleted, "changed_since lists {changed:?}");
    let sealed = list(&fixture.store, &query(Filter::SealedBy(SealingKeyId("k2".into())))).await?;
    ensure!(sealed.len() == 1 && sealed[0].deleted, "sealed_by lists {sealed:?}");
    Ok(())
}

/// It can be written over by who expects nothing, and by who read it.
pub async fn a_tombstone_counts_as_absent(fixture: Fixture) -> Outcome {
    bury(&fixture, "a").await?;
    create(&fixture.store, &findable("a")).await?;
    let found = read(&fixture.store, &record("a").key).await?;
    ensure!(!found.deleted && found.labels == findable("a").labels, "after creation over a tombstone: {found:?}");
    ensure_eq!(ids(&fixture.store, &query(Filter::All)).await?, ["a"], "listed after the tombstone was replaced");

    let version = bury(&fixture, "b").await?;
    committed(fixture.store.put(&findable("b"), Expect::Version(&version)).await?)?;
    ensure!(!read(&fixture.store, &record("b").key).await?.deleted, "what replaced a tombstone is still one");
    Ok(())
}

/// As it must be when its sealing key retires.
pub async fn a_tombstone_can_be_replaced_by_its_version(fixture: Fixture) -> Outcome {
    let version = bury(&fixture, "a").await?;
    let resealed = Record { sealed_by: SealingKeyId("k3".into()), ..epitaph("a") };
    let version = committed(fixture.store.delete(&resealed, &version, at(60)).await?)?;
    let found = read(&fixture.store, &record("a").key).await?;
    ensure!(found.deleted && found.version == version, "the tombstone in the tombstone's place: {found:?}");
    ensure_eq!(found.sealed_by, resealed.sealed_by, "the key that sealed it");
    Ok(())
}

/// Not before `keep_until`.
pub async fn a_tombstone_is_swept_in_time(fixture: Fixture) -> Outcome {
    bury(&fixture, "a").await?;
    ensure_eq!(fixture.store.sweep(at(59)).await?, 0, "swept before its time");
    ensure!(read(&fixture.store, &record("a").key).await?.deleted, "the tombstone is gone before its time");
    ensure_eq!(fixture.store.sweep(at(60)).await?, 1, "swept in time");
    ensure_eq!(fixture.store.get(&record("a").key).await?, None, "the tombstone after the sweep");
    Ok(())
}
