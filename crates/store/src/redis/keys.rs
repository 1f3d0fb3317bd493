//! The names of keys.

use tokenkeep_core::{
    Tenant,
    id::DEFAULT,
    ports::{Kind, LabelName, RecordKey, Scope},
};

/// What a record's key begins with, after the prefix.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        // Where the operators of an OAuth server on Redis look for it.
        Kind::AuthorizationRequest => "state",
        kind => kind.as_str(),
    }
}

/// What a label set's key begins with, after the prefix.
pub(super) fn label_name(name: LabelName) -> &'static str {
    match name {
        // A kind has that name, too.
        LabelName::Connection => "of_connection",
        name => name.as_str(),
    }
}

/// Where a record stands, after the prefix, and under which name the indexes know it: `kind:id` in the tenant
/// `_default`, else `kind@tenant:id`.
pub(super) fn place(key: &RecordKey) -> String {
    format!("{}{}", tenant_prefix(key.kind, &key.tenant), key.id)
}

/// The record that stands at `place`.
pub(super) fn parse_place(place: &str) -> Option<RecordKey> {
    let (head, id) = place.split_once(':')?;
    let (name, tenant) = match head.split_once('@') {
        None => (head, Tenant::default_tenant()),
        Some((name, escaped)) => {
            let tenant = Tenant::from_stored(&escaped.replace("%3A", ":").replace("%25", "%")).ok()?;
            (name, tenant)
        }
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind_name(*kind) == name)?;
    let key = RecordKey { tenant, kind, id: id.to_owned() };
    // One record has one place, whatever else could be read as it.
    (self::place(&key) == place).then_some(key)
}

/// The places of a kind, or of a tenant's share of it: from the first on, and before the second.
pub(super) fn range(kind: Kind, scope: &Scope) -> (String, String) {
    match scope {
        // `:` and `@` follow a kind, and `A` comes after both.
        Scope::Every => (format!("{}:", kind_name(kind)), format!("{}A", kind_name(kind))),
        Scope::Tenant(tenant) => {
            let first = tenant_prefix(kind, tenant);
            let mut end = first.clone();
            end.pop();
            end.push(';');
            (first, end)
        }
    }
}

fn tenant_prefix(kind: Kind, tenant: &Tenant) -> String {
    let name = kind_name(kind);
    if tenant.as_str() == DEFAULT {
        return format!("{name}:");
    }
    // The first colon ends the tenant, so it has none of its own.
    format!("{name}@{}:", tenant.as_str().replace('%', "%25").replace(':', "%3A"))
}

/// What all keys of a shard begin with. In a cluster the braces make Redis keep them in one slot.
pub(super) fn shard_prefix(prefix: &str, shard: usize, sharded: bool) -> String {
    if sharded { format!("{prefix}{{s{shard:02}}}:") } else { prefix.to_owned() }
}

/// The names of keys that are neither records nor sets of those who have a label.
const OWN: [&str; 12] =
    ["index", "changed", "expires", "due", "dead", "buried", "sealed_by", "l2", "floor", "limit", "layout", "probe"];

/// What a key begins with, after the prefix, if it is a name that is given here; else `other`. Nothing else of a key is
/// told: it may name a person, or be somebody's secret.
pub(super) fn name_of(prefix: &str, key: &[u8]) -> &'static str {
    let find = || {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
        let in_shard = rest.strip_prefix("{s").and_then(|rest| rest.split_once("}:"));
        let rest = in_shard.map_or(rest, |(_, rest)| rest);
        let head = rest.split_once(':').map_or(rest, |(head, _)| head);
        let name = head.split_once('@').map_or(head, |(name, _)| name);
        let names = Kind::ALL.map(kind_name).into_iter().chain(LabelName::ALL.map(label_name)).chain(OWN);
        names.into_iter().find(|known| *known == name)
    };
    find().unwrap_or("other")
}

/// What all keys with the prefix match, in the words of `SCAN`.
pub(super) fn pattern(prefix: &str) -> String {
    let mut pattern = String::new();
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "*"
}

/// The shard of `text` among so many. FNV-1a: the same for ever, on every machine.
pub(super) fn shard_of(text: &str, shards: usize) -> usize {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The low bits of FNV-1a are its weakest; the remainder fits, being below `shards`.
    usize::try_from((hash ^ (hash >> 32)) % shards.max(1) as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key(tenant: &str, kind: Kind, id: &str) -> RecordKey {
        RecordKey { tenant: Tenant::new(tenant).unwrap(), kind, id: id.into() }
    }

    #[test]
    fn a_place_leads_back_to_its_record() {
        for tenant in [DEFAULT, "a", "a:b", "a%3Ab", "%", "%25", "@", "a@b:c", " "] {
            for id in ["x", ":", "@a:x", "a:b", "%3A", "é", " "] {
                for kind in Kind::ALL {
                    let key = key(tenant, kind, id);
                    assert_eq!(parse_place(&place(&key)), Some(key.clone()), "{key:?}");
                    for scope in [Scope::Every, Scope::Tenant(key.tenant.clone())] {
                        let (first, end) = range(kind, &scope);
                        assert!(first <= place(&key) && place(&key) < end, "{key:?} is outside {first:?} to {end:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_tenants_places_are_nobody_elses() {
        let (first, end) = range(Kind::Connection, &Scope::Tenant(Tenant::new("a").unwrap()));
        for tenant in ["a:", "a ", "aa", "a%", DEFAULT] {
            let other = place(&key(tenant, Kind::Connection, "x"));
            assert!(other < first || other >= end, "{other:?}");
        }
    }

    #[test]
    fn other_texts_are_no_place() {
        for text in
            ["", "connection", "nonsense:a", "connection@_default:a", "connection@a%zz\u{e9}:x", "connection@:x"]
        {
            assert_eq!(parse_place(text), None, "{text:?}");
        }
    }

    #[test]
    fn no_two_kinds_of_key_have_one_name() {
        let all: Vec<_> =
            Kind::ALL.map(kind_name).into_iter().chain(LabelName::ALL.map(label_name)).chain(OWN).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_key_is_told_by_its_name_alone() {
        for (key, name) in [
            ("p:connection:google/alice", "connection"),
            ("p:connection@acme:google/alice", "connection"),
            ("p:{s07}:state:x", "state"),
            ("p:{s07}:due:connection", "due"),
            ("p:subject:alice", "subject"),
            ("p:layout", "layout"),
            ("p:refresh:somebodys-secret", "other"),
            ("p:somebodys-secret", "other"),
            ("connection:x", "other"),
        ] {
            assert_eq!(name_of("p:", key.as_bytes()), name, "{key}");
        }
        assert_eq!(name_of("p:", b"p:\xff:x"), "other");
    }

    #[test]
    fn a_prefix_matches_nothing_but_itself() {
        assert_eq!(pattern("oauth:"), "oauth:*");
        assert_eq!(pattern(r"a*[b]?\"), r"a\*\[b\]\?\\*");
    }

    #[test]
    fn shards_are_evenly_filled_and_stay_where_they_are() {
        let mut filled = [0_u32; 16];
        for n in 0..16_000 {
            filled[shard_of(&format!("connection:google/{n}"), 16)] += 1;
        }
        assert!(filled.iter().all(|count| (800..1200).contains(count)), "{filled:?}");
        assert_eq!(shard_of("connection:google/alice", 16), 1);
        assert_eq!(shard_of("anything", 1), 0);
    }
}
