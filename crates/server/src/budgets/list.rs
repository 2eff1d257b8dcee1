use agentkeep_core::Budget;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List budgets.
///
/// Filters: id, name, scope, user_id, agent_id, model, period, limit, hard, created_at, updated_at, metadata.PATH.
/// Orders: id, scope, period, created_at (the default), updated_at. `limit` is the size of the page: a budget's limit is
/// found with `filter=limit>10`.
#[utoipa::path(get, path = "/budgets", tag = "budgets", params(ListParams),
    responses((status = 200, description = "A page of budgets", body = ListOf<Budget>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Budget>> {
    Ok(caller.tenant.budgets().list(&request).await?.into())
}
