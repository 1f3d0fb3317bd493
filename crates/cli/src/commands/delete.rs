//! `delete`, `revoke`, `forget`.

use anyhow::Result;
use http::Method;
use tokenkeep_core::{Subject, Tenant};

use super::{Context, confirm, route};
use crate::{
    args,
    client::{Call, segment},
    out,
};

/// Forgets a connection, and with `revoke` has the provider forget it, too.
pub(super) async fn connection(context: &Context, delete: args::Delete, revoke: bool) -> Result<()> {
    let id = delete.which.id()?;
    let question = if revoke {
        format!("Revoke {id} at its provider and forget it?")
    } else {
        format!("Forget {id}? Its refresh token is lost, and still works at the provider.")
    };
    // Asked before the question: a question about nothing would be odd.
    let client = context.client()?;
    client.call(Call::get(route(&id))).await?;
    if !confirm::really(&question, delete.yes)? {
        return Ok(());
    }
    client.call(Call::new(Method::DELETE, format!("{}?revoke={revoke}", route(&id)))).await?;
    out::line(format_args!("{id}: {}", if revoke { "revoked and forgotten" } else { "forgotten" }))
}

/// Forgets all that a person has.
pub(super) async fn person(context: &Context, forget: args::Forget) -> Result<()> {
    let (tenant, subject) =
        forget.person.split_once('/').ok_or_else(|| args::wrong("a person is named TENANT/SUBJECT"))?;
    let (tenant, subject): (Tenant, Subject) =
        (tenant.parse().map_err(args::wrong)?, subject.parse().map_err(args::wrong)?);
    let client = context.client()?;
    if !confirm::really(&format!("Forget everything that {tenant}/{subject} has?"), forget.yes)? {
        return Ok(());
    }
    let path =
        format!("/v1/subjects/{}/{}?revoke={}", segment(tenant.as_str()), segment(subject.as_str()), forget.revoke);
    client.call(Call::new(Method::DELETE, path)).await?;
    out::line(format_args!("{tenant}/{subject}: forgotten"))
}
