use agentkeep_core::{LedgerEntry, NewLedgerEntry};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, query::ListOf};

/// Entries to log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLedgerEntries {
    /// The entries.
    entries: Vec<NewLedgerEntry>,
}

/// Log many entries: all of them or none.
///
/// They come back in the order given. An entry whose `request_id` was logged already, or stands twice among them, is
/// answered with the first one. What is wrong with one is told with its place (`entries[3].input`).
#[utoipa::path(post, path = "/ledger/batch", tag = "ledger", request_body = NewLedgerEntries,
    responses((status = 201, description = "The entries", body = ListOf<LedgerEntry>)))]
pub(super) async fn log_many(
    caller: Caller,
    Body(new): Body<NewLedgerEntries>,
) -> Result<(StatusCode, ListOf<LedgerEntry>)> {
    let entries = caller.tenant.ledger().log_many(new.entries).await?;
    Ok((StatusCode::CREATED, ListOf::whole(entries)))
}
