use agentkeep_core::{LedgerEntry, NewLedgerEntry};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Log what a call of a model used.
///
/// Without a cost it is computed from the prices that are valid at that time; without such a price it is not known. A
/// `request_id` that was logged already gives the first entry back. What the entry names (agent, user, session, message,
/// job) need not exist. Budgets count it, also when they are spent. A reservation that it names is settled by it; 422
/// when there is no such reservation.
#[utoipa::path(post, path = "/ledger", tag = "ledger", request_body = NewLedgerEntry,
    responses((status = 201, description = "The entry", body = LedgerEntry)))]
pub(super) async fn log(caller: Caller, Body(new): Body<NewLedgerEntry>) -> Result<Created<LedgerEntry>> {
    Ok(Created(caller.tenant.ledger().log(new).await?))
}
