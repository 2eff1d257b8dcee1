use agentkeep_core::{BudgetId, BudgetUsage, Timestamp};
use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{auth::Caller, error::Result, query::Query, resource::Id};

/// Which period is shown.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Period {
    /// A time in it; now when absent.
    at: Option<Timestamp>,
}

/// What is spent and reserved of a budget in one of its periods.
#[utoipa::path(get, path = "/budgets/{id}/usage", tag = "budgets",
    params(("id" = BudgetId, Path, description = "Its id"), Period),
    responses((status = 200, description = "The usage", body = BudgetUsage)))]
pub(super) async fn usage(
    caller: Caller,
    Id(id): Id<BudgetId>,
    Query(period): Query<Period>,
) -> Result<Json<BudgetUsage>> {
    let time = period.at.unwrap_or_else(|| caller.tenant.now());
    Ok(Json(caller.tenant.budgets().usage_at(id, time).await?))
}
