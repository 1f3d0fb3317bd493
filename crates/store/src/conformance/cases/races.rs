//! One record, 32 writers.

use std::sync::Arc;

use tokenkeep_core::ports::{Expect, Put, Record, Store, Version};

use crate::conformance::{
    Fixture, Outcome, Stop,
    help::{at, at_once, committed, create, ensure, ensure_eq, read, record},
};

const WRITERS: usize = 32;
const ROUNDS: i64 = 6;

fn by(writer: usize) -> Record {
    Record { sealed: writer.to_string().into_bytes(), ..record("a") }
}

/// Exactly one was committed, and it is what is there.
async fn one_won(store: &Arc<dyn Store>, puts: &[Put]) -> Result<Version, Stop> {
    let won: Vec<_> = puts.iter().enumerate().filter(|(_, put)| matches!(put, Put::Committed(_))).collect();
    ensure_eq!(won.len(), 1, "winners among {WRITERS}");
    ensure!(puts.iter().all(|put| *put != Put::Unknown), "a write of which nothing is known, without a fault");
    let (writer, put) = won[0];
    let found = read(store, &record("a").key).await?;
    ensure_eq!(Put::Committed(found.version.clone()), *put, "the version that is there");
    ensure_eq!(found.sealed, by(writer).sealed, "the content that is there");
    Ok(found.version)
}

/// All expect the same version.
pub async fn one_of_32_replacements_wins(fixture: Fixture) -> Outcome {
    let mut version = create(&fixture.store, &record("a")).await?;
    for _ in 0..ROUNDS {
        let puts = at_once(WRITERS, |n| {
            let (store, version) = (fixture.store.clone(), version.clone());
            async move { Ok(store.put(&by(n), Expect::Version(&version)).await?) }
        });
        version = one_won(&fixture.store, &puts.await?).await?;
    }
    Ok(())
}

/// All expect nothing; there is nothing at first, then a tombstone.
pub async fn one_of_32_creations_wins(fixture: Fixture) -> Outcome {
    for round in 0..ROUNDS {
        let puts = at_once(WRITERS, |n| {
            let store = fixture.store.clone();
            async move { Ok(store.put(&by(n), Expect::Absent).await?) }
        });
        let version = one_won(&fixture.store, &puts.await?).await?;
        committed(fixture.store.delete(&record("a"), &version, at(round)).await?)?;
        if round % 2 == 0 {
            fixture.store.sweep(at(round)).await?;
        }
    }
    Ok(())
}

/// Half of them delete.
pub async fn one_of_32_writes_and_deletes_wins(fixture: Fixture) -> Outcome {
    for _ in 0..ROUNDS {
        let version = create(&fixture.store, &record("a")).await?;
        let puts = at_once(WRITERS, |n| {
            let (store, version) = (fixture.store.clone(), version.clone());
            async move {
                Ok(match n % 2 {
                    0 => store.put(&by(n), Expect::Version(&version)).await?,
                    _ => store.delete(&by(n), &version, at(60)).await?,
                })
            }
        });
        let version = one_won(&fixture.store, &puts.await?).await?;
        if !read(&fixture.store, &record("a").key).await?.deleted {
            committed(fixture.store.delete(&record("a"), &version, at(60)).await?)?;
        }
    }
    Ok(())
}

/// Each adds one, reading again for as long as another is faster.
pub async fn no_increment_is_lost(fixture: Fixture) -> Outcome {
    create(&fixture.store, &Record { sealed: vec![0], ..record("a") }).await?;
    let tries = at_once(WRITERS, |_| {
        let store = fixture.store.clone();
        async move {
            // Each round one of them commits, so nobody needs more tries than there are writers.
            for _ in 0..=WRITERS {
                let mut there = read(&store, &record("a").key).await?;
                there.sealed[0] += 1;
                let version = there.version.clone();
                if store.put(&there, Expect::Version(&version)).await? != Put::Conflict {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    });
    ensure!(tries.await?.iter().all(|done| *done), "a writer lost against writers that were done");
    let sum = usize::from(read(&fixture.store, &record("a").key).await?.sealed[0]);
    ensure_eq!(sum, WRITERS, "the sum of {WRITERS} increments");
    Ok(())
}
