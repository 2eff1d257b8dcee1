use agentkeep_core::{Reservation, ReservationId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Give everything back that a reservation holds.
///
/// Releasing again changes nothing. 409 when it was settled.
#[utoipa::path(post, path = "/reservations/{id}/release", tag = "reservations",
    params(("id" = ReservationId, Path, description = "Its id")),
    responses((status = 200, description = "The reservation", body = Reservation)))]
pub(super) async fn release(caller: Caller, Id(id): Id<ReservationId>) -> Result<Found<Reservation>> {
    Ok(Found(caller.tenant.budgets().release(id).await?))
}
