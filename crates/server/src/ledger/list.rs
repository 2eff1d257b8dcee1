use agentkeep_core::LedgerEntry;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List entries.
///
/// Filters: id, scope, provider, model, total, cost, agent_id, user_id, session_id, message_id, job_id, reservation_id,
/// request_id, created_at, tags.PATH, metadata.PATH. Orders: id, created_at (the default), total. `total` asks for a count of all entries: those with
/// so many tokens are found with `filter=total>1000`.
#[utoipa::path(get, path = "/ledger", tag = "ledger", params(ListParams),
    responses((status = 200, description = "A page of entries", body = ListOf<LedgerEntry>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<LedgerEntry>> {
    Ok(caller.tenant.ledger().list(&request).await?.into())
}
