//! `list`: connections, page by page.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use tokenkeep_core::{IntegrationId, Subject, Tenant};
use url::form_urlencoded::Serializer;

use super::{Context, connections::ConnectionBody, times::relative};
use crate::{args, client::Call, out};

/// How many are asked for at once.
const PAGE: u64 = 500;

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    #[serde(default)]
    unreadable: u64,
    next: Option<String>,
}

pub(super) async fn run(context: &Context, list: args::List) -> Result<()> {
    let client = context.client()?;
    let limit = list.limit.unwrap_or(u64::MAX);
    let (mut items, mut unreadable, mut cursor) = (Vec::new(), 0, None);
    loop {
        let left = limit - items.len() as u64;
        let page: Page = client.fetch(Call::get(query(&list, left.min(PAGE), cursor.as_deref()))).await?;
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
    if list.output.json {
        return out::json(&items);
    }
    if items.is_empty() {
        out::note("No connections. `tokenkeep connect google --subject alice` makes one.");
        return Ok(());
    }
    let rows = items.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    out::table(["CONNECTION", "STATUS", "EXPIRES", "NEXT REFRESH", "GENERATION", "NAME"], rows)?;
    if cursor.is_some() {
        out::note(format_args!("There are more than these {limit}."));
    }
    Ok(())
}

fn query(list: &args::List, limit: u64, cursor: Option<&str>) -> String {
    let mut query = Serializer::new(String::from("/v1/connections?"));
    query.append_pair("limit", &limit.max(1).to_string());
    for (name, value) in [
        ("provider", list.provider.as_ref().map(IntegrationId::as_str)),
        ("tenant", list.tenant.as_ref().map(Tenant::as_str)),
        ("subject", list.subject.as_ref().map(Subject::as_str)),
        ("status", list.status.as_deref()),
        ("cursor", cursor),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

fn row(item: Value) -> Result<[String; 6]> {
    let body: ConnectionBody = serde_json::from_value(item)?;
    Ok([
        format!("{}/{}/{}", body.provider, body.tenant, body.subject),
        body.status,
        relative(body.expires_at),
        relative(body.next_refresh_at),
        body.generation.to_string(),
        body.display_name.unwrap_or_default(),
    ])
}
