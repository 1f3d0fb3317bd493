//! What stores that page by key share.

use jiff::Timestamp;
use tokenkeep_core::ports::{Cursor, Page, Query, Record, RecordKey, Scope};

/// The key, within its kind, of the last record of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) id: &'a str,
}

impl<'a> Position<'a> {
    pub(crate) fn of(key: &'a RecordKey) -> Self {
        Self { tenant: key.tenant.as_str(), id: &key.id }
    }

    /// The tenant's length first, so that no two positions look alike.
    fn to_cursor(self) -> Cursor {
        Cursor(format!("{}:{}{}", self.tenant.len(), self.tenant, self.id))
    }

    fn from_cursor(cursor: &'a Cursor) -> Option<Self> {
        let (length, rest) = cursor.0.split_once(':')?;
        let (tenant, id) = rest.split_at_checked(length.parse().ok()?)?;
        Some(Self { tenant, id })
    }
}

/// Where a page starts.
pub(crate) enum Start<'a> {
    First,
    After(Position<'a>),
    /// The cursor is none of ours, or of another tenant's list.
    Nowhere,
}

impl<'a> Start<'a> {
    pub(crate) fn of(query: &'a Query) -> Self {
        let Some(cursor) = &query.cursor else { return Start::First };
        match (Position::from_cursor(cursor), &query.scope) {
            (Some(position), Scope::Tenant(tenant)) if position.tenant != tenant.as_str() => Start::Nowhere,
            (Some(position), _) => Start::After(position),
            (None, _) => Start::Nowhere,
        }
    }
}

/// How many records a page may hold.
pub(crate) fn size(query: &Query) -> usize {
    usize::try_from(query.limit.max(1)).unwrap_or(usize::MAX)
}

/// Makes a page of `records`, which hold one more than the page may if there are more.
pub(crate) fn cut(mut records: Vec<Record>, size: usize) -> Page {
    let more = records.len() > size;
    records.truncate(size);
    let next = records.last().filter(|_| more).map(|last| Position::of(&last.key).to_cursor());
    Page { records, next }
}

/// The time so many microseconds after the epoch, if it can be told.
///
/// Unlike [`Timestamp::from_microsecond`] it knows the last second before [`Timestamp::MAX`].
pub(crate) fn from_microseconds(micros: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(micros % 1_000_000 * 1_000).ok()?;
    Timestamp::new(micros / 1_000_000, nanos).ok()
}

#[cfg(test)]
mod tests {
    use tokenkeep_core::{
        Tenant,
        ports::{Filter, Kind},
    };

    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_position() {
        for (tenant, id) in [("a", "b"), ("1:a", ":"), ("a b", "é/%_"), ("_default", "x:y")] {
            let position = Position { tenant, id };
            assert_eq!(Position::from_cursor(&position.to_cursor()), Some(position));
        }
    }

    #[test]
    fn other_texts_are_no_cursor() {
        for text in ["", "5", "x:ab", "9:ab", "-1:ab", "1:é"] {
            assert_eq!(Position::from_cursor(&Cursor(text.into())), None, "{text:?}");
        }
    }

    #[test]
    fn a_cursor_of_another_tenants_list_leads_nowhere() {
        let cursor = Some(Position { tenant: "theirs", id: "a" }.to_cursor());
        let list = |scope| Query { scope, kind: Kind::Meta, filter: Filter::All, limit: 1, cursor: cursor.clone() };
        let of = |name| Scope::Tenant(Tenant::new(name).unwrap());
        assert!(matches!(Start::of(&list(of("mine"))), Start::Nowhere));
        assert!(matches!(Start::of(&list(of("theirs"))), Start::After(_)));
        assert!(matches!(Start::of(&list(Scope::Every)), Start::After(_)));
    }
}
