use agentkeep::{Lockable, TenantStore};
use agentkeep_core::BudgetId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a budget.
///
/// Reservations stay, and hold nothing of it any more.
#[utoipa::path(delete, path = "/budgets/{id}", tag = "budgets",
    params(("id" = BudgetId, Path, description = "Its id")), responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<BudgetId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.budgets().delete(id).await };
    if_match.then(&caller, Lockable::Budget(id), delete).await.map(|()| Gone)
}
