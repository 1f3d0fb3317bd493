//! Garbage.

use tokenkeep_core::{
    Tenant,
    ports::{Filter, Kind, LabelName, Record, RecordKey},
};

use crate::conformance::{
    Fixture, Outcome,
    help::{at, create, ensure, ensure_eq, ids, query, record, tenant},
};

/// At or before it, not by the store's own clock; what never expires stays.
pub async fn sweep_goes_by_the_time_it_is_told(fixture: Fixture) -> Outcome {
    let store = &fixture.store;
    create(store, &record("never")).await?;
    // Both far from any clock's present.
    let (past, future) = (-1_700_000_000, 100_000_000_000);
    for (id, second) in [("past", past), ("later", past + 1), ("future", future)] {
        let labels = vec![(LabelName::Subject, "s".into())];
        create(store, &Record { expires_at: Some(at(second)), due_at: Some(at(0)), labels, ..record(id) }).await?;
    }
    for (now, removed, left) in [
        (past - 1, 0, &["future", "later", "never", "past"][..]),
        (past, 1, &["future", "later", "never"]),
        (past, 0, &["future", "later", "never"]),
        (future - 1, 1, &["future", "never"]),
        (future, 1, &["never"]),
        (future * 2, 0, &["never"]),
    ] {
        ensure_eq!(store.sweep(at(now)).await?, removed, "swept at {now}");
        ensure_eq!(ids(store, &query(Filter::All)).await?, left, "left after the sweep at {now}");
    }
    for id in ["past", "later", "future"] {
        ensure_eq!(store.get(&record(id).key).await?, None, "what was swept");
    }
    let by_label = ids(store, &query(Filter::Label(LabelName::Subject, "s".into()))).await?;
    ensure!(by_label.is_empty(), "what was swept is listed by its label: {by_label:?}");
    let claimed = store.claim(Kind::Connection, at(0), 10, at(1)).await?;
    ensure!(claimed.is_empty(), "what was swept is claimed: {claimed:?}");
    Ok(())
}

/// All in one call, though there be many.
pub async fn sweep_takes_every_kind_and_tenant(fixture: Fixture) -> Outcome {
    let mut written = 0;
    for owner in [Tenant::default_tenant(), Tenant::system(), tenant("one")] {
        for kind in Kind::ALL {
            for n in 0..50 {
                let key = RecordKey { tenant: owner.clone(), kind, id: n.to_string() };
                create(&fixture.store, &Record { key, expires_at: Some(at(n)), ..record("") }).await?;
                written += 1;
            }
        }
    }
    ensure_eq!(fixture.store.sweep(at(1000)).await?, written, "swept");
    Ok(())
}

/// A store does not judge: what has expired may hold a live refresh token.
pub async fn the_expired_is_there_until_swept(fixture: Fixture) -> Outcome {
    let expired = Record { expires_at: Some(at(-1_700_000_000)), ..record("a") };
    create(&fixture.store, &expired).await?;
    ensure!(fixture.store.get(&expired.key).await?.is_some(), "the expired record is gone without a sweep");
    ensure_eq!(ids(&fixture.store, &query(Filter::All)).await?, ["a"], "listed");
    Ok(())
}
