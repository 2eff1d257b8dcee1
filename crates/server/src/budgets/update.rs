use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Budget, BudgetId, BudgetPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a budget.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away.
#[utoipa::path(patch, path = "/budgets/{id}", tag = "budgets",
    params(("id" = BudgetId, Path, description = "Its id")),
    request_body(content = BudgetPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The budget", body = Budget)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<BudgetId>,
    if_match: IfMatch,
    Body(patch): Body<BudgetPatch>,
) -> Result<Found<Budget>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.budgets().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::Budget(id), change).await.map(Found)
}
