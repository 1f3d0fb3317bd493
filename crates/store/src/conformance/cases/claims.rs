//! Handing out what is due.

use std::{collections::HashSet, sync::Arc};

use tokenkeep_core::ports::{Expect, Kind, Put, Record, RecordKey, Store};

use crate::conformance::{
    Fixture, Outcome, Stop,
    help::{at, at_once, committed, create, ensure, ensure_eq, read, record, tenant},
};

fn due(id: &str, second: i64) -> Record {
    Record { due_at: Some(at(second)), ..record(id) }
}

async fn claim(store: &Arc<dyn Store>, due_before: i64, limit: u32, until: i64) -> Result<Vec<Record>, Stop> {
    Ok(store.claim(Kind::Connection, at(due_before), limit, at(until)).await?)
}

fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| r.key.id.as_str()).collect()
}

/// Of every tenant, of one kind, up to the limit, at or before the time, neither the dead nor what is never due.
pub async fn the_earliest_are_claimed_first(fixture: Fixture) -> Outcome {
    let store = &fixture.store;
    create(store, &record("never")).await?;
    let integration = RecordKey { kind: Kind::Integration, ..record("other kind").key };
    create(store, &Record { key: integration, ..due("", 1) }).await?;
    let version = create(store, &due("dead", 1)).await?;
    committed(store.delete(&due("dead", 1), &version, at(1000)).await?)?;
    // Not in the order of their ids, nor in that of their creation.
    for (id, second) in [("e", 1), ("a", 4), ("c", 2), ("b", 5), ("d", 3)] {
        let key = RecordKey { tenant: tenant(["one", "two"][usize::from(second % 2 == 0)]), ..record(id).key };
        create(store, &Record { key, ..due(id, second) }).await?;
    }
    ensure_eq!(ids(&claim(store, 4, 0, 100).await?), [""; 0], "a claim of none");
    ensure_eq!(ids(&claim(store, 4, 3, 100).await?), ["e", "c", "d"], "the first three due before 4");
    ensure_eq!(ids(&claim(store, 4, 3, 100).await?), ["a"], "the rest due before 4");
    ensure_eq!(ids(&claim(store, 4, 3, 100).await?), [""; 0], "what is left due before 4");
    ensure_eq!(ids(&claim(store, 5, 3, 100).await?), ["b"], "due before 5");
    Ok(())
}

/// It moves `due_at` and nothing else: who read the record before may write it after.
pub async fn a_claim_leaves_the_version_alone(fixture: Fixture) -> Outcome {
    create(&fixture.store, &due("a", 1)).await?;
    let before = read(&fixture.store, &record("a").key).await?;
    let claimed = claim(&fixture.store, 1, 10, 100).await?;
    let wanted = Record { due_at: Some(at(100)), ..before.clone() };
    ensure!(claimed == [wanted.clone()], "claimed {claimed:?}, due {:?}", claimed.first().map(|r| r.due_at));
    ensure!(read(&fixture.store, &before.key).await? == wanted, "the claim changed more than when the record is due");
    committed(fixture.store.put(&due("a", 7), Expect::Version(&before.version)).await?)?;
    ensure_eq!(read(&fixture.store, &before.key).await?.due_at, Some(at(7)), "due after a write that says so");
    Ok(())
}

/// Then it is handed out again.
pub async fn a_claim_ends_when_it_said(fixture: Fixture) -> Outcome {
    create(&fixture.store, &due("a", 1)).await?;
    ensure_eq!(ids(&claim(&fixture.store, 10, 10, 100).await?), ["a"], "the first claim");
    ensure_eq!(ids(&claim(&fixture.store, 99, 10, 200).await?), [""; 0], "a claim before the first has ended");
    ensure_eq!(ids(&claim(&fixture.store, 100, 10, 200).await?), ["a"], "a claim when the first has ended");
    Ok(())
}

/// Eight claim at once, round after round, until nothing is left.
pub async fn nothing_is_claimed_twice(fixture: Fixture) -> Outcome {
    const DUE: usize = 120;
    for n in 0..DUE {
        create(&fixture.store, &due(&n.to_string(), 1)).await?;
    }
    let mut claimed = HashSet::new();
    // Eight rounds suffice; a store that hands out the same for ever fails the case, it does not hang it.
    for round in 0..=DUE {
        let some = at_once(8, |_| {
            let store = fixture.store.clone();
            async move { claim(&store, 1000, 2, 5000).await }
        });
        let some = some.await?.concat();
        if some.is_empty() {
            break;
        }
        for record in some {
            ensure!(claimed.insert(record.key.id.clone()), "{record:?} was claimed twice, last in round {round}");
        }
    }
    ensure_eq!(claimed.len(), DUE, "records claimed");
    Ok(())
}

/// Writers count up while others claim: no increment is lost to a claim, no write conflicts because of one.
pub async fn claims_and_writes_do_not_undo_each_other(fixture: Fixture) -> Outcome {
    const STEPS: u8 = 20;
    let names = ["a", "b", "c", "d"];
    for name in names {
        create(&fixture.store, &Record { sealed: vec![0], ..due(name, 1) }).await?;
    }
    let conflicts = at_once(8, |task| {
        let store = fixture.store.clone();
        async move {
            let mut conflicts = 0;
            for _ in 0..STEPS {
                if task >= names.len() {
                    claim(&store, 1, 2, 1).await?;
                    continue;
                }
                let mut there = read(&store, &record(names[task]).key).await?;
                there.sealed[0] += 1;
                let version = there.version.clone();
                conflicts += i32::from(store.put(&there, Expect::Version(&version)).await? == Put::Conflict);
            }
            Ok(conflicts)
        }
    });
    ensure_eq!(conflicts.await?.iter().sum::<i32>(), 0, "writes that conflicted with a claim");
    for name in names {
        ensure_eq!(read(&fixture.store, &record(name).key).await?.sealed, [STEPS], "increments beside claims");
    }
    Ok(())
}
