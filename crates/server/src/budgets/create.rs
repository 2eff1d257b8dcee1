use agentkeep_core::{Budget, NewBudget};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a budget.
///
/// What was spent in its present period before, by the ledger, is counted. 422 when user or agent do not exist.
#[utoipa::path(post, path = "/budgets", tag = "budgets", request_body = NewBudget,
    responses((status = 201, description = "The budget", body = Budget)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewBudget>) -> Result<Created<Budget>> {
    Ok(Created(caller.tenant.budgets().create(new).await?))
}
