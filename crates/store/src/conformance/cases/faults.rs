//! A store that cannot answer, and replies that are lost.

use std::sync::Arc;

use tokenkeep_core::ports::{Expect, Filter, Kind, Put, Record, Store, StoreError};

use crate::{
    conformance::{
        Fixture, LosesReplies, Outcome, Stop,
        help::{at, at_once, create, ensure, ensure_eq, ids, query, read, record},
    },
    layers::Layered,
};

fn is_unavailable<T: std::fmt::Debug>(what: &str, result: &Result<T, StoreError>) -> Outcome {
    let unavailable = matches!(result, Err(StoreError::Unavailable { .. }));
    ensure!(unavailable, "{what}, while the store was broken, gave {result:?}");
    Ok(())
}

/// While it cannot answer it says so, whatever the call; afterwards everything is there as before.
pub async fn an_outage_is_not_absence(fixture: Fixture) -> Outcome {
    let Some(outage) = &fixture.outage else {
        return Err(Stop::Skipped("there is no way to make this store unavailable"));
    };
    let store = &fixture.store;
    let there = Record { due_at: Some(at(0)), expires_at: Some(at(0)), ..record("a") };
    let version = create(store, &there).await?;
    let before = read(store, &there.key).await?;

    (outage.begin)().await;
    is_unavailable("get", &store.get(&there.key).await)?;
    is_unavailable("get of nothing", &store.get(&record("nothing").key).await)?;
    // A write may also be in doubt; it must not be denied, nor confirmed.
    for put in [
        store.put(&record("b"), Expect::Absent).await,
        store.put(&there, Expect::Version(&version)).await,
        store.delete(&there, &version, at(60)).await,
    ] {
        if put.as_ref().ok() != Some(&Put::Unknown) {
            is_unavailable("a write", &put)?;
        }
    }
    is_unavailable("list", &store.list(&query(Filter::All)).await)?;
    is_unavailable("count", &store.count(&query(Filter::All)).await)?;
    is_unavailable("claim", &store.claim(Kind::Connection, at(0), 10, at(1)).await)?;
    is_unavailable("sweep", &store.sweep(at(0)).await)?;
    is_unavailable("ping", &store.ping().await)?;

    (outage.end)().await;
    store.ping().await?;
    ensure!(read(store, &there.key).await? == before, "the record is not what it was before the outage");
    ensure_eq!(ids(store, &query(Filter::All)).await?, ["a"], "listed after the outage");
    Ok(())
}

/// Who is answered `unknown` reads again and knows; the version of before no longer serves.
pub async fn a_lost_reply_is_found_by_reading(fixture: Fixture) -> Outcome {
    let lossy: Arc<dyn Store> = Arc::new(Layered::around(fixture.store.clone(), LosesReplies::default()));
    ensure_eq!(lossy.put(&record("a"), Expect::Absent).await?, Put::Unknown, "the reply that was to be lost");
    let found = read(&lossy, &record("a").key).await?;
    ensure_eq!(found.sealed, record("a").sealed, "one's own write");
    ensure_eq!(lossy.put(&record("a"), Expect::Absent).await?, Put::Conflict, "the same write again");
    let after = read(&lossy, &record("a").key).await?;
    ensure!(after == found, "repeating a write that had been done changed something");
    Ok(())
}

/// Sixteen each add their mark, reading again whenever they were not told: each mark is there once.
pub async fn lost_replies_lose_and_repeat_nothing(fixture: Fixture) -> Outcome {
    const WRITERS: u8 = 16;
    let lossy: Arc<dyn Store> = Arc::new(Layered::around(fixture.store.clone(), LosesReplies::default()));
    create(&fixture.store, &Record { sealed: Vec::new(), ..record("a") }).await?;
    let done = at_once(WRITERS.into(), |n| {
        let store = lossy.clone();
        async move {
            let mark = u8::try_from(n).unwrap_or(u8::MAX);
            for _ in 0..1000 {
                let mut there = read(&store, &record("a").key).await?;
                if there.sealed.contains(&mark) {
                    return Ok(true);
                }
                there.sealed.push(mark);
                let version = there.version.clone();
                store.put(&there, Expect::Version(&version)).await?;
            }
            Ok(false)
        }
    });
    ensure!(done.await?.iter().all(|done| *done), "a writer never saw its own mark");
    let mut marks = read(&fixture.store, &record("a").key).await?.sealed;
    marks.sort_unstable();
    ensure_eq!(marks, (0..WRITERS).collect::<Vec<_>>(), "the marks");
    Ok(())
}
