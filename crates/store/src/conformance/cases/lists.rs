//! Lists, pages and counts.

use std::sync::Arc;

use tokenkeep_core::ports::{
    Count, Cursor, Expect, Filter, Kind, LabelName, Query, Record, RecordKey, Scope, SealingKeyId, Store,
};

use crate::conformance::{
    Fixture, Outcome, Stop,
    help::{at, at_once, committed, create, ensure, ensure_eq, ids, list, query, read, record, tenant},
};

fn labelled(id: &str, labels: &[(LabelName, &str)]) -> Record {
    Record { labels: labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), ..record(id) }
}

fn of(tenant_name: &str, id: &str) -> Record {
    Record { key: RecordKey { tenant: tenant(tenant_name), ..record(id).key }, ..record(id) }
}

/// A record is found by the labels it has now, under each name, and by no label it had.
pub async fn labels_move_with_the_record(fixture: Fixture) -> Outcome {
    let store = &fixture.store;
    let by = |name, value: &str| query(Filter::Label(name, value.to_owned()));
    for name in LabelName::ALL {
        let id = name.as_str();
        let version = create(store, &labelled(id, &[(name, "old")])).await?;
        ensure_eq!(ids(store, &by(name, "old")).await?, [id], "listed by a new {id} label");
        let version = committed(store.put(&labelled(id, &[(name, "new")]), Expect::Version(&version)).await?)?;
        ensure!(ids(store, &by(name, "old")).await?.is_empty(), "still listed by the {id} label it had");
        ensure_eq!(ids(store, &by(name, "new")).await?, [id], "listed by the {id} label it moved to");
        committed(store.put(&labelled(id, &[]), Expect::Version(&version)).await?)?;
        ensure!(ids(store, &by(name, "new")).await?.is_empty(), "still listed by a {id} label that was removed");
    }
    let version = create(store, &labelled("gone", &[(LabelName::Subject, "s")])).await?;
    committed(store.delete(&record("gone"), &version, at(60)).await?)?;
    ensure!(ids(store, &by(LabelName::Subject, "s")).await?.is_empty(), "a deleted record is listed by its label");
    Ok(())
}

/// Whole, in their case, under their name, and without wildcards.
pub async fn labels_are_compared_as_they_are(fixture: Fixture) -> Outcome {
    let values = ["a%", "a_", "ab", "A%", "a", "", "a'b\"c", "a/b:c", "é", " a"];
    for (n, value) in values.iter().enumerate() {
        create(&fixture.store, &labelled(&format!("{n}"), &[(LabelName::Subject, value)])).await?;
    }
    for (n, value) in values.iter().enumerate() {
        let found = ids(&fixture.store, &query(Filter::Label(LabelName::Subject, (*value).into()))).await?;
        ensure_eq!(found, [n.to_string()], "listed by the label {value:?}");
        let other = ids(&fixture.store, &query(Filter::Label(LabelName::Provider, (*value).into()))).await?;
        ensure!(other.is_empty(), "listed by a label of another name");
    }
    Ok(())
}

/// Whatever the filter: a tenant's list holds the tenant's records of one kind, and [`Scope::Every`] all tenants'.
pub async fn tenants_do_not_see_each_other(fixture: Fixture) -> Outcome {
    let store = &fixture.store;
    let alike = Record {
        expires_at: Some(at(60)),
        due_at: Some(at(30)),
        labels: vec![(LabelName::Subject, "alice".into())],
        ..record("a")
    };
    for name in ["one", "two", "one two"] {
        for kind in [Kind::Connection, Kind::Integration] {
            for id in ["a", "two"] {
                let key = RecordKey { tenant: tenant(name), kind, id: id.into() };
                create(store, &Record { key, ..alike.clone() }).await?;
            }
        }
    }
    for filter in filters() {
        let mine = Query { scope: Scope::Tenant(tenant("one")), limit: 1, ..query(filter.clone()) };
        let found = list(store, &mine).await?;
        ensure!(
            found.len() == 2 && found.iter().all(|r| r.key.tenant == tenant("one") && r.key.kind == Kind::Connection),
            "the list of one tenant by {filter:?} holds {found:?}"
        );
        expect_count(store, &mine, 2).await?;
        let every = Query { limit: 1, ..query(filter.clone()) };
        ensure_eq!(list(store, &every).await?.len(), 6, "connections of every tenant by {filter:?}");
        expect_count(store, &every, 6).await?;
        let nobody = Query { scope: Scope::Tenant(tenant("three")), ..query(filter.clone()) };
        ensure!(list(store, &nobody).await?.is_empty(), "a tenant without records sees some by {filter:?}");
    }
    Ok(())
}

/// Filters that let through what `tenants_do_not_see_each_other` writes.
fn filters() -> [Filter; 6] {
    [
        Filter::All,
        Filter::Label(LabelName::Subject, "alice".into()),
        Filter::DueBefore(at(30)),
        Filter::ExpiresBetween(at(60), at(61)),
        Filter::ChangedSince(at(0)),
        Filter::SealedBy(SealingKeyId("k1".into())),
    ]
}

async fn expect_count(store: &Arc<dyn Store>, query: &Query, wanted: u64) -> Outcome {
    let count = store.count(query).await?;
    ensure!(!matches!(count, Count::Exact(n) if n != wanted), "{count:?} of {wanted} by {:?}", query.filter);
    Ok(())
}

/// Whatever the size of the page; and there is no page after the last record.
pub async fn every_page_goes_on_where_the_last_ended(fixture: Fixture) -> Outcome {
    let mut wanted = Vec::new();
    for n in 0..24 {
        let each = of(["one", "two", "three"][n % 3], &format!("{n:02}"));
        create(&fixture.store, &each).await?;
        wanted.push(each.key.id);
    }
    for limit in [0, 1, 2, 7, 8, 23, 24, 25, u32::MAX] {
        let query = Query { limit, ..query(Filter::All) };
        ensure_eq!(ids(&fixture.store, &query).await?, wanted, "listed in pages of {limit}");
    }
    let page = fixture.store.list(&Query { limit: 24, ..query(Filter::All) }).await?;
    ensure_eq!(page.next, None, "the page after the one that held the last record");
    Ok(())
}

/// Each record that is there throughout is listed once, though others are written, replaced and deleted all the time.
pub async fn paging_is_steady_while_others_come_and_go(fixture: Fixture) -> Outcome {
    const STABLE: usize = 30;
    for n in 0..STABLE {
        create(&fixture.store, &record(&format!("{n:02}"))).await?;
        create(&fixture.store, &record(&format!("{n:02}-passing"))).await?;
    }
    // One task pages, the others change what lies between, before and behind.
    let seen = at_once(4, |task| {
        let store = fixture.store.clone();
        async move {
            if task == 0 {
                return list(&store, &Query { limit: 3, ..query(Filter::All) }).await;
            }
            for n in (task - 1..STABLE).step_by(3) {
                let passing = record(&format!("{n:02}-passing"));
                let found = read(&store, &passing.key).await?;
                committed(store.delete(&passing, &found.version, at(0)).await?)?;
                create(&store, &record(&format!("{n:02}-new"))).await?;
                let stable = read(&store, &record(&format!("{n:02}")).key).await?;
                committed(store.put(&stable, Expect::Version(&stable.version)).await?)?;
                store.sweep(at(0)).await?;
            }
            Ok(Vec::new())
        }
    });
    once_each(&seen.await?.concat(), STABLE)?;

    // The same again, a change after each page, so that every store meets one.
    let mut paged = Vec::new();
    let mut all = Query { limit: 4, ..query(Filter::All) };
    for n in 0..STABLE * 3 {
        let page = fixture.store.list(&all).await?;
        paged.extend(page.records);
        let gone = read(&fixture.store, &record(&format!("{:02}-new", n % STABLE)).key).await?;
        if !gone.deleted {
            committed(fixture.store.delete(&gone, &gone.version, at(0)).await?)?;
            fixture.store.sweep(at(-1)).await?;
        }
        create(&fixture.store, &record(&format!("{:02}-late-{n}", STABLE - n % STABLE))).await?;
        match page.next {
            None => return once_each(&paged, STABLE),
            next => all.cursor = next,
        }
    }
    Err(Stop::Failed("the list has no end".into()))
}

fn once_each(records: &[Record], stable: usize) -> Outcome {
    for n in 0..stable {
        let id = format!("{n:02}");
        let times = records.iter().filter(|r| r.key.id == id).count();
        ensure_eq!(times, 1, "times that a record was listed which was there throughout");
    }
    Ok(())
}

/// A cursor may come from a caller, who may have made it up.
pub async fn a_foreign_cursor_ends_the_list(fixture: Fixture) -> Outcome {
    create(&fixture.store, &record("a")).await?;
    for text in ["", "nonsense", "-1", "'; DROP TABLE records; --", "\u{e9}", "9999999999999999999999:a"] {
        let page = fixture.store.list(&Query { cursor: Some(Cursor(text.into())), ..query(Filter::All) }).await?;
        ensure!(page.records.is_empty() && page.next.is_none(), "the cursor {text:?} gave {page:?}");
    }
    Ok(())
}

/// Its start is included, and what does not change is not listed.
pub async fn changed_since_shows_what_changed(fixture: Fixture) -> Outcome {
    for n in 0..4 {
        create(&fixture.store, &Record { changed_at: at(n), ..record(&n.to_string()) }).await?;
    }
    let since = |second| query(Filter::ChangedSince(at(second)));
    ensure_eq!(ids(&fixture.store, &since(2)).await?, ["2", "3"], "changed since 2");
    let first = read(&fixture.store, &record("0").key).await?;
    let change = Record { changed_at: at(9), ..first.clone() };
    committed(fixture.store.put(&change, Expect::Version(&first.version)).await?)?;
    ensure_eq!(ids(&fixture.store, &since(3)).await?, ["0", "3"], "changed since 3, after 0 was changed at 9");
    Ok(())
}

/// From the start on, the end excluded, and never what does not expire.
pub async fn expires_between_is_half_open(fixture: Fixture) -> Outcome {
    create(&fixture.store, &record("never")).await?;
    for n in 0..5 {
        create(&fixture.store, &Record { expires_at: Some(at(n)), ..record(&n.to_string()) }).await?;
    }
    let found = ids(&fixture.store, &query(Filter::ExpiresBetween(at(1), at(3)))).await?;
    ensure_eq!(found, ["1", "2"], "expiring in [1, 3)");
    ensure!(ids(&fixture.store, &query(Filter::ExpiresBetween(at(3), at(3)))).await?.is_empty(), "[3, 3) is empty");
    Ok(())
}

/// At or before, and never what is never due.
pub async fn due_before_includes_its_end(fixture: Fixture) -> Outcome {
    create(&fixture.store, &record("never")).await?;
    for n in 0..5 {
        create(&fixture.store, &Record { due_at: Some(at(n)), ..record(&n.to_string()) }).await?;
    }
    ensure_eq!(ids(&fixture.store, &query(Filter::DueBefore(at(2)))).await?, ["0", "1", "2"], "due before 2");
    Ok(())
}

/// As it must be for a key to retire.
pub async fn sealed_by_goes_by_the_key(fixture: Fixture) -> Outcome {
    let by = |key: &str| query(Filter::SealedBy(SealingKeyId(key.into())));
    for n in 0..3 {
        create(&fixture.store, &record(&n.to_string())).await?;
    }
    let one = read(&fixture.store, &record("1").key).await?;
    let resealed = Record { sealed_by: SealingKeyId("k2".into()), ..one.clone() };
    committed(fixture.store.put(&resealed, Expect::Version(&one.version)).await?)?;
    ensure_eq!(ids(&fixture.store, &by("k1")).await?, ["0", "2"], "sealed by the old key");
    ensure_eq!(ids(&fixture.store, &by("k2")).await?, ["1"], "sealed by the new key");
    ensure!(ids(&fixture.store, &by("k")).await?.is_empty(), "sealed by the beginning of a key's name");
    Ok(())
}

/// Whatever the page size and the cursor, where the store counts at all.
pub async fn count_agrees_with_list(fixture: Fixture) -> Outcome {
    for n in 0..7 {
        let each = Record {
            expires_at: (n % 2 == 0).then(|| at(60)),
            due_at: (n % 3 == 0).then(|| at(30)),
            labels: if n < 5 { vec![(LabelName::Subject, "alice".into())] } else { Vec::new() },
            ..of(["one", "two"][n % 2], &n.to_string())
        };
        create(&fixture.store, &each).await?;
    }
    let version = create(&fixture.store, &record("dead")).await?;
    committed(fixture.store.delete(&record("dead"), &version, at(60)).await?)?;
    for filter in filters() {
        for scope in [Scope::Every, Scope::Tenant(tenant("one"))] {
            let query = Query { scope, limit: 2, ..query(filter.clone()) };
            let listed = list(&fixture.store, &query).await?.len() as u64;
            expect_count(&fixture.store, &query, listed).await?;
            let cursor = fixture.store.list(&query).await?.next;
            expect_count(&fixture.store, &Query { cursor, ..query }, listed).await?;
        }
    }
    Ok(())
}
