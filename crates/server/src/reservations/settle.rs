use agentkeep_core::{Money, Reservation, ReservationId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// What work cost.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReservationSettlement {
    /// US dollars.
    cost: Money,
}

/// Settle a reservation with what the work cost: that is spent, the rest given back.
///
/// It is for cost that is not logged: an entry of the ledger that names its reservation settles it by itself. Settling
/// again with the same cost changes nothing. One that has expired can be settled. 409 when it was released, or settled
/// with another cost.
#[utoipa::path(post, path = "/reservations/{id}/settle", tag = "reservations",
    params(("id" = ReservationId, Path, description = "Its id")), request_body = ReservationSettlement,
    responses((status = 200, description = "The reservation", body = Reservation)))]
pub(super) async fn settle(
    caller: Caller,
    Id(id): Id<ReservationId>,
    Body(settlement): Body<ReservationSettlement>,
) -> Result<Found<Reservation>> {
    Ok(Found(caller.tenant.budgets().settle(id, settlement.cost).await?))
}
