use agentkeep_core::{LedgerEntry, LedgerEntryId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get an entry of the ledger.
#[utoipa::path(get, path = "/ledger/{id}", tag = "ledger", params(("id" = LedgerEntryId, Path, description = "Its id")),
    responses((status = 200, description = "The entry", body = LedgerEntry)))]
pub(super) async fn get(caller: Caller, Id(id): Id<LedgerEntryId>) -> Result<Found<LedgerEntry>> {
    Found::or_not(caller.tenant.ledger().get(id).await?, id)
}
