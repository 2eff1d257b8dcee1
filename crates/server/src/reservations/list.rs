use agentkeep_core::Reservation;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List reservations.
///
/// Filters: id, key, user_id, agent_id, model, amount, status, cost, expires_at, job_id, created_at, updated_at. Orders:
/// id, created_at (the default), updated_at.
#[utoipa::path(get, path = "/reservations", tag = "reservations", params(ListParams),
    responses((status = 200, description = "A page of reservations", body = ListOf<Reservation>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Reservation>> {
    Ok(caller.tenant.budgets().list_reservations(&request).await?.into())
}
