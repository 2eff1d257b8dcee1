use agentkeep_core::{NewReservation, Reserved};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Reserve an amount in every budget that applies to that user, agent and model.
///
/// All of them or none: 402 with the first hard budget that does not allow it. Soft budgets that are passed are told in
/// `over`. A key that is taken gives its reservation back, as it is now.
#[utoipa::path(post, path = "/reservations", tag = "reservations", request_body = NewReservation,
    responses((status = 201, description = "The reservation", body = Reserved)))]
pub(super) async fn reserve(caller: Caller, Body(new): Body<NewReservation>) -> Result<Created<Reserved>> {
    Ok(Created(caller.tenant.budgets().reserve(new).await?))
}
