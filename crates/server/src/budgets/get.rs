use agentkeep_core::{Budget, BudgetId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a budget.
#[utoipa::path(get, path = "/budgets/{id}", tag = "budgets", params(("id" = BudgetId, Path, description = "Its id")),
    responses((status = 200, description = "The budget", body = Budget)))]
pub(super) async fn get(caller: Caller, Id(id): Id<BudgetId>) -> Result<Found<Budget>> {
    Found::or_not(caller.tenant.budgets().get(id).await?, id)
}
