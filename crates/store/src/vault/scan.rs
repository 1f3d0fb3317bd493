//! Finding records: Vault can list the names in a folder, and nothing else.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokenkeep_core::ports::{Kind, Scope, StoreError};

use super::{
    kv::{Found, Kv},
    place,
};

/// How many secrets are read at once.
const AT_ONCE: usize = 16;

/// What a scan found.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) path: String,
    pub(super) found: Found,
}

/// The folder and the name of a secret; lists go by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct After {
    pub(super) tenant: String,
    pub(super) id: String,
}

/// Up to `limit` secrets of a kind that `keep` keeps, in the order of their paths.
pub(super) async fn scan(
    kv: &Kv,
    root: &str,
    (scope, kind): (&Scope, Kind),
    after: Option<&After>,
    limit: usize,
    keep: impl Fn(&Found) -> bool,
) -> Result<Vec<Hit>, StoreError> {
    let folder = place::of_kind(root, kind);
    let mut tenants = match scope {
        Scope::Tenant(tenant) => vec![place::segment(tenant.as_str())],
        Scope::Every => {
            let names = kv.list(&folder).await?;
            names.iter().filter_map(|name| name.strip_suffix('/')).map(str::to_owned).collect()
        }
    };
    tenants.sort_unstable();
    let mut hits = Vec::new();
    for tenant in tenants {
        if after.is_some_and(|after| tenant < after.tenant) {
            continue;
        }
        let mut ids = kv.list(&format!("{folder}/{tenant}")).await?;
        ids.retain(|id| !id.ends_with('/') && after.is_none_or(|after| tenant > after.tenant || *id > after.id));
        ids.sort_unstable();
        let paths = ids.into_iter().map(|id| format!("{folder}/{tenant}/{id}"));
        // No more at once than may be wanted: a page is often short.
        let at_once = AT_ONCE.min(limit);
        let read = stream::iter(paths).map(|path| async {
            let found = kv.read(&path).await?;
            Ok::<_, StoreError>(Hit { path, found })
        });
        let mut read = std::pin::pin!(read.buffered(at_once));
        while let Some(hit) = read.try_next().await? {
            if keep(&hit.found) {
                hits.push(hit);
            }
            if hits.len() >= limit {
                return Ok(hits);
            }
        }
    }
    Ok(hits)
}
