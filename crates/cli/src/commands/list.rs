//! `list`: connections, page by page.

use anyhow::Result;
use serde_json::Value;
use tokenkeep_core::{IntegrationId, Subject, Tenant};

use super::{Context, connections::ConnectionBody, pages, times::relative};
use crate::{args, out};

pub(super) async fn run(context: &Context, list: args::List) -> Result<()> {
    let filters = [
        ("provider", list.provider.as_ref().map(IntegrationId::as_str)),
        ("tenant", list.tenant.as_ref().map(Tenant::as_str)),
        ("subject", list.subject.as_ref().map(Subject::as_str)),
        ("status", list.status.as_deref()),
    ];
    let listed = pages::all(&context.client()?, "/v1/connections", &filters, list.limit).await?;
    if list.output.json {
        return out::json(&listed.items);
    }
    if listed.items.is_empty() {
        out::note("No connections. `tokenkeep connect google --subject alice` makes one.");
        return Ok(());
    }
    let shown = listed.items.len();
    let rows = listed.items.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    out::table(["CONNECTION", "STATUS", "EXPIRES", "NEXT REFRESH", "GENERATION", "NAME"], rows)?;
    if listed.more {
        out::note(format_args!("There are more than these {shown}."));
    }
    Ok(())
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
