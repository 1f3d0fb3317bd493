//! Lists that come page by page.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::{
    client::{Call, Client},
    out,
};

/// How many are asked for at once.
const PAGE: u64 = 500;

/// What was listed.
pub(super) struct Listed {
    pub(super) items: Vec<Value>,
    /// Whether there are more than were asked for.
    pub(super) more: bool,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    #[serde(default)]
    unreadable: u64,
    next: Option<String>,
}

/// Up to `limit` items of the list at `path`, or all; warns if some cannot be read.
pub(super) async fn all(
    client: &Client,
    path: &str,
    filters: &[(&str, Option<&str>)],
    limit: Option<u64>,
) -> Result<Listed> {
    let limit = limit.unwrap_or(u64::MAX);
    let (mut items, mut unreadable, mut cursor): (Vec<Value>, u64, Option<String>) = (Vec::new(), 0, None);
    loop {
        let left = limit.saturating_sub(items.len() as u64);
        let page: Page = client.fetch(Call::get(query(path, filters, left.min(PAGE), cursor.as_deref()))).await?;
        items.extend(page.items);
        unreadable += page.unreadable;
        cursor = page.next;
        if cursor.is_none() || items.len() as u64 >= limit {
            break;
        }
    }
    if unreadable > 0 {
        out::note(format_args!("warning: {unreadable} records cannot be read; the server's log says why"));
    }
    let too_many = items.len() as u64 > limit;
    items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Listed { items, more: too_many || cursor.is_some() })
}

fn query(path: &str, filters: &[(&str, Option<&str>)], limit: u64, cursor: Option<&str>) -> String {
    let mut query = Serializer::for_suffix(format!("{path}?"), path.len() + 1);
    query.append_pair("limit", &limit.max(1).to_string());
    for (name, value) in filters.iter().copied().chain([("cursor", cursor)]) {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_escaped() {
        assert_eq!(
            query("/v1/x", &[("a", Some("b|c&d")), ("e", None)], 0, Some("f=")),
            "/v1/x?limit=1&a=b%7Cc%26d&cursor=f%3D"
        );
    }
}
