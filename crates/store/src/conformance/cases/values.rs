//! What a record may hold.

use jiff::Timestamp;
use tokenkeep_core::ports::{Expect, Filter, Query, Record, RecordKey, Scope};

use crate::conformance::{
    Fixture, Outcome,
    help::{at, committed, create, ensure, ensure_eq, ids, query, read, record, tenant},
};

/// Whatever characters they hold, wherever tenant and id meet, whatever a path or a pattern would make of them.
pub async fn odd_ids_are_kept_apart(fixture: Fixture) -> Outcome {
    let (long, longer) = ("x".repeat(255), "y".repeat(512));
    let odd = [
        " ", "  ", "a b", "a/b", "a//b", "/a", "a/", "../a", "a:b", ":", "%", "%25", "_", "a%", "a_", "'", "\"",
        "a'b\"c", "`", "\\", "\\n", "\n", "a|b", "*", "?", "[a]", "{a}", "#a", "A", "a", "é", "e\u{301}", "🔑", "null",
        "0", "-1", "true", "1:a", "x;--", &long, &longer,
    ];
    let owners = ["t", "t/a", "t:a", "T", "t%", " ", "1:a"];
    let key = |owner: &str, id: &str| RecordKey { tenant: tenant(owner), ..record(id).key };
    for owner in owners {
        for id in odd {
            let sealed = format!("{owner}\n{id}").into_bytes();
            create(&fixture.store, &Record { key: key(owner, id), sealed, ..record(id) }).await?;
        }
    }
    let mut wanted = odd.map(str::to_owned);
    wanted.sort_unstable();
    for owner in owners {
        for id in odd {
            let found = read(&fixture.store, &key(owner, id)).await?;
            ensure_eq!(found.key, key(owner, id), "the key that was read");
            ensure_eq!(found.sealed, format!("{owner}\n{id}").into_bytes(), "the content of {owner:?} {id:?}");
        }
        for limit in [1, 100] {
            let mine = Query { scope: Scope::Tenant(tenant(owner)), limit, ..query(Filter::All) };
            ensure_eq!(ids(&fixture.store, &mine).await?, wanted, "listed for the tenant {owner:?}");
        }
    }
    Ok(())
}

/// From nothing to 64 KiB of any bytes.
pub async fn values_of_any_size_are_kept(fixture: Fixture) -> Outcome {
    let any_bytes: Vec<u8> = (0..=u8::MAX).cycle().take(64 * 1024).collect();
    for (id, sealed) in [("empty", Vec::new()), ("nul", vec![0]), ("big", any_bytes)] {
        let each = Record { sealed, ..record(id) };
        let version = create(&fixture.store, &each).await?;
        ensure!(read(&fixture.store, &each.key).await?.sealed == each.sealed, "the {id} value is not what was put");
        committed(fixture.store.put(&each, Expect::Version(&version)).await?)?;
        ensure!(read(&fixture.store, &each.key).await?.sealed == each.sealed, "the {id} value, once replaced");
    }
    Ok(())
}

/// And what is finer is cut off; the first and the last representable time are times like others.
pub async fn times_are_kept_to_the_microsecond(fixture: Fixture) -> Outcome {
    let nanos = |n: i128| Timestamp::from_nanosecond(at(0).as_nanosecond() + n).unwrap_or_default();
    let fine = Record {
        changed_at: nanos(1_001),
        expires_at: Some(nanos(2_999)),
        due_at: Some(nanos(999_999_999)),
        ..record("fine")
    };
    create(&fixture.store, &fine).await?;
    let found = read(&fixture.store, &fine.key).await?;
    ensure_eq!(found.changed_at, nanos(1_000), "changed_at");
    ensure_eq!(found.expires_at, Some(nanos(2_000)), "expires_at");
    ensure_eq!(found.due_at, Some(nanos(999_999_000)), "due_at");
    let since = query(Filter::ChangedSince(nanos(1_999)));
    ensure_eq!(ids(&fixture.store, &since).await?, ["fine"], "changed since the same microsecond");

    let micros = Timestamp::as_microsecond;
    for (id, extreme) in [("first", Timestamp::MIN), ("last", Timestamp::MAX)] {
        create(&fixture.store, &Record { changed_at: extreme, due_at: Some(extreme), ..record(id) }).await?;
        let found = read(&fixture.store, &record(id).key).await?;
        ensure_eq!(micros(found.changed_at), micros(extreme), "the {id} time");
        ensure_eq!(found.due_at.map(micros), Some(micros(extreme)), "the {id} time");
    }
    Ok(())
}
